"""Layout of Cadene's pretrainedmodels (github.com/Cadene/pretrained-models.pytorch): other people's networks under one
roof, whose classifier it calls ``last_linear``. Its files of torchvision's networks, and that of Xception, have their
makers' names; they are read too (``older``)."""

from convarium.weights.layout import Layout, Rules
from convarium.weights.layouts import torchvision
from convarium.weights.layouts.torchvision import BLOCKS, RESNET, dense_head

LAST = ("head.classifier.", "last_linear.")


def renamed(rules: Rules, theirs: str, new: str = "last_linear.") -> Rules:
    """``rules`` with the classifier called ``new``, where they call it ``theirs``."""
    return tuple((ours, new if name == theirs else name) for ours, name in rules)


# -- SENets: ported from the released Caffe files; timm's legacy ones are the same ------------------------------------

SENET = (
    ("stages.conv1.conv.", "layer0.conv1."),
    ("stages.conv1.norm.", "layer0.bn1."),
    *((f"stages.conv1.{i}.conv.", f"layer0.conv{i + 1}.") for i in range(3)),
    *((f"stages.conv1.{i}.norm.", f"layer0.bn{i + 1}.") for i in range(3)),
    (".attention.", ".se_module."),
    LAST,
    *RESNET,
)
GATES = (("*.attention.fc?.weight", "1x1"),)
SENETS = ("se_resnet*_caffe", "se_resnext*_caffe", "senet154")

# -- ResNeXts: ported from torch7, whose layers have numbers instead of names ------------------------------------------

RESNEXT = (
    ("stages.conv1.conv.", "features.0."),
    ("stages.conv1.norm.", "features.1."),
    *((ours, f"features.{place}.") for place, (ours, _) in enumerate(BLOCKS, 4)),
    (".branch.0.conv.", ".0.0.0.0."),
    (".branch.0.norm.", ".0.0.0.1."),
    (".branch.1.conv.", ".0.0.0.3."),
    (".branch.1.norm.", ".0.0.0.4."),
    (".branch.2.conv.", ".0.0.1."),
    (".branch.2.norm.", ".0.0.2."),
    (".shortcut.conv.", ".0.1.0."),
    (".shortcut.norm.", ".0.1.1."),
    LAST,
)

# -- Inception ----------------------------------------------------------------------------------------------------

# Inception-v4: the place of each stage among the features, and the names in the last modules, which split twice.
PLACES_V4 = {"conv2d_1a": 0, "conv2d_2a": 1, "conv2d_2b": 2, "mixed_4a": 4, "reduction_a": 10, "reduction_b": 18}
MODULES_V4 = {"inception_a": range(6, 10), "inception_b": range(11, 18), "inception_c": range(19, 22)}
SPLIT_V4 = {
    "1.0": "1_0", "1.1.branches.branch_0": "1_1a", "1.1.branches.branch_1": "1_1b",
    "2.0": "2_0", "2.1": "2_1", "2.2": "2_2", "2.3.branches.branch_0": "2_3a", "2.3.branches.branch_1": "2_3b",
}  # fmt: skip
INCEPTION_V4 = (
    ("stages.mixed_3a.branches.branch_1.", "features.3.conv."),
    ("stages.mixed_5a.branches.branch_0.", "features.5.conv."),
    *((f"stages.{stage}.", f"features.{place}.") for stage, place in PLACES_V4.items()),
    *(
        (f"stages.inception_c.{i}.branches.branch_{ours}.", f"features.{place}.branch{theirs}.")
        for i, place in enumerate(MODULES_V4["inception_c"])
        for ours, theirs in SPLIT_V4.items()
    ),
    *(
        (f"stages.{stage}.{i}.", f"features.{place}.")
        for stage, places in MODULES_V4.items()
        for i, place in enumerate(places)
    ),
    (".branches.branch_", ".branch"),
    (".norm.", ".bn."),
    LAST,
)
INCEPTION_RESNET_V2 = (
    ("stages.block35.", "repeat."),
    ("stages.block17.", "repeat_1."),
    ("stages.block8.9.", "block8."),
    ("stages.block8.", "repeat_2."),
    ("stages.", ""),
    (".branch.towers.branches.branch_", ".branch"),
    (".branch.linear.", ".conv2d."),
    (".branches.branch_", ".branch"),
    (".norm.", ".bn."),
    LAST,
)
BN_INCEPTION = (
    ("stages.conv1.", "conv1_7x7_s2."),
    ("stages.conv2.reduce.", "conv2_3x3_reduce."),
    ("stages.conv2.conv.", "conv2_3x3."),
    ("stages.", ""),
    (".branches.1x1.", "_1x1."),
    (".branches.3x3.0.", "_3x3_reduce."),
    (".branches.3x3.1.", "_3x3."),
    (".branches.double_3x3.0.", "_double_3x3_reduce."),
    (".branches.double_3x3.1.", "_double_3x3_1."),
    (".branches.double_3x3.2.", "_double_3x3_2."),
    (".branches.pool.1.", "_pool_proj."),
    (".conv.", "."),
    (".norm.", "_bn."),
    LAST,
)

# -- Xception: the numbers count activations too, and the first block starts without one ----------------------------


def separables(block: str, first: int, count: int) -> Rules:
    """Rules for the ``count`` separable convolutions of a block, the first of which is its layer number ``first``."""
    rules: list[tuple[str, str]] = []
    for i in range(count):
        ours, place = f"{block}branch.conv{i + 1}.", first + 3 * i
        rules += [
            (f"{ours}depthwise.", f"{block}rep.{place}.conv1."),
            (f"{ours}pointwise.conv.", f"{block}rep.{place}.pointwise."),
            (f"{ours}pointwise.norm.", f"{block}rep.{place + 1}."),
        ]
    return tuple(rules)


XCEPTION = (
    *separables(".block1.", 0, 2),
    *separables(".", 1, 3),
    *((f"stages.conv{i}.conv.", f"conv{i}.") for i in (1, 2)),
    *((f"stages.conv{i}.norm.", f"bn{i}.") for i in (1, 2)),
    *((f"stages.conv{i}.pointwise.norm.", f"bn{i}.") for i in (3, 4)),
    ("stages.", ""),
    (".depthwise.", ".conv1."),
    (".pointwise.conv.", ".pointwise."),
    (".shortcut.conv.", ".skip."),
    (".shortcut.norm.", ".skipbn."),
    LAST,
)

# -- torchvision's networks of their day --------------------------------------------------------------------------

FC = (("fc.", "last_linear."),)


def with_dense_head(*networks: str, places: tuple[int, int, int]) -> Layout:
    """torchvision's networks that end in three dense layers."""
    names = ("linear0.", "linear1.", "last_linear.")
    older = tuple((f"classifier.{place}.", name) for place, name in zip(places, names, strict=True))
    rules = tuple((ours, name) for (ours, _), name in zip(dense_head(*places), names, strict=True))
    return Layout(networks, rules, leaves=("stages.", "_features."), older=(("features.", "_features."), *older))


def squeezenet(name: str) -> Layout:
    rules = renamed(torchvision.squeezenet(name).rules, "classifier.1.", "last_conv.")
    return Layout((name,), rules, older=(("classifier.1.", "last_conv."),))


LAYOUTS = (
    Layout(("resnet101_caffe",), renamed(RESNET, "fc.")),
    Layout(("resnet18", "resnet34", "resnet*_v1_5"), renamed(RESNET, "fc."), older=FC),
    Layout(("resnext101_32x4d", "resnext101_64x4d"), RESNEXT),
    Layout(SENETS, SENET, GATES),
    with_dense_head("alexnet_owt", places=(1, 4, 6)),
    with_dense_head("vgg11", "vgg13", "vgg16", "vgg19", "vgg*_bn", places=(0, 3, 6)),
    squeezenet("squeezenet1_0"),
    squeezenet("squeezenet1_1"),
    Layout(("bn_inception_caffe",), BN_INCEPTION),
    Layout(("inception_v3_tv",), renamed(torchvision.INCEPTION_V3, "fc."), spare=("AuxLogits.*",), older=FC),
    Layout(("inception_v4",), INCEPTION_V4),
    Layout(("inception_resnet_v2_slim",), INCEPTION_RESNET_V2),
    Layout(("xception_cadene",), XCEPTION, older=FC),
)
