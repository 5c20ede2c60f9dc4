"""torchvision's layout (github.com/pytorch/vision), which timm shares for its ResNets and ResNeXts."""

from convarium.weights.layout import Layout, Rules

BLOCKS = tuple((f"stages.conv{i + 1}_x.", f"layer{i}.") for i in (1, 2, 3, 4))
RESNET = (
    ("stages.conv1.conv.", "conv1."),
    ("stages.conv1.norm.", "bn1."),
    *BLOCKS,
    *((f".branch.{i}.conv.", f".conv{i + 1}.") for i in range(3)),
    *((f".branch.{i}.norm.", f".bn{i + 1}.") for i in range(3)),
    (".shortcut.conv.", ".downsample.0."),
    (".shortcut.norm.", ".downsample.1."),
    ("head.classifier.", "fc."),
)
# Places of the fire modules among the features; poolings and conv1 with its rectifier have the others.
FIRES = {"squeezenet1_0": (3, 4, 5, 7, 8, 9, 10, 12), "squeezenet1_1": (3, 4, 6, 7, 9, 10, 11, 12)}


def squeezenet(name: str) -> Layout:
    fires = ((f"stages.fire{i}.", f"features.{place}.") for i, place in enumerate(FIRES[name], 2))
    rules = (
        ("stages.conv1.conv.", "features.0."),
        *fires,
        ("squeeze.conv.", "squeeze."),
        ("expand.branches.1x1.conv.", "expand1x1."),
        ("expand.branches.3x3.conv.", "expand3x3."),
        ("head.classifier.conv.", "classifier.1."),
    )
    return Layout((name,), rules)


def dense_head(*places: int) -> Rules:
    names = ("head.hidden.fc6.fc.", "head.hidden.fc7.fc.", "head.classifier.")
    return tuple((name, f"classifier.{place}.") for name, place in zip(names, places, strict=True))


GOOGLENET = (
    ("stages.conv1.", "conv1."),
    ("stages.conv2_reduce.", "conv2."),
    ("stages.conv2.layer.", "conv3."),
    ("stages.inception_", "inception"),
    (".branches.1x1.", ".branch1."),
    (".branches.3x3.reduce.", ".branch2.0."),
    (".branches.3x3.conv.", ".branch2.1."),
    (".branches.5x5.reduce.", ".branch3.0."),
    (".branches.5x5.conv.", ".branch3.1."),
    (".branches.pool.project.", ".branch4.1."),
    (".norm.", ".bn."),
    ("head.classifier.", "fc."),
)

# Our branch and the place in it, to the name of the convolution, by kind of module.
INCEPTION = {
    ("Mixed_5b", "Mixed_5c", "Mixed_5d"): {
        "0.0": "1x1", "1.0": "5x5_1", "1.1": "5x5_2", "2.0": "3x3dbl_1", "2.1": "3x3dbl_2", "2.2": "3x3dbl_3",
        "3.1": "_pool",
    },
    ("Mixed_6a",): {"0.0": "3x3", "1.0": "3x3dbl_1", "1.1": "3x3dbl_2", "1.2": "3x3dbl_3"},
    ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"): {
        "0.0": "1x1", "1.0": "7x7_1", "1.1": "7x7_2", "1.2": "7x7_3", "2.0": "7x7dbl_1", "2.1": "7x7dbl_2",
        "2.2": "7x7dbl_3", "2.3": "7x7dbl_4", "2.4": "7x7dbl_5", "3.1": "_pool",
    },
    ("Mixed_7a",): {
        "0.0": "3x3_1", "0.1": "3x3_2", "1.0": "7x7x3_1", "1.1": "7x7x3_2", "1.2": "7x7x3_3", "1.3": "7x7x3_4",
    },
    ("Mixed_7b", "Mixed_7c"): {
        "0.0": "1x1", "1.0": "3x3_1", "1.1.branches.1x3": "3x3_2a", "1.1.branches.3x1": "3x3_2b",
        "2.0": "3x3dbl_1", "2.1": "3x3dbl_2", "2.2.branches.1x3": "3x3dbl_3a", "2.2.branches.3x1": "3x3dbl_3b",
        "3.1": "_pool",
    },
}  # fmt: skip
INCEPTION_V3 = (
    *(
        (f"stages.{module}.branches.branch_{place}.", f"{module}.branch{name}.")
        for modules, places in INCEPTION.items()
        for module in modules
        for place, name in places.items()
    ),
    ("stages.", ""),
    (".norm.", ".bn."),
    ("head.classifier.", "fc."),
)

LAYOUTS = (
    Layout(("resnet18", "resnet34", "resnet*_v1_5", "resnext50_32x4d", "resnext101_*"), RESNET),
    Layout(("alexnet_owt",), dense_head(1, 4, 6), leaves=("stages.", "features.")),
    Layout(("vgg11", "vgg13", "vgg16", "vgg19", "vgg*_bn"), dense_head(0, 3, 6), leaves=("stages.", "features.")),
    squeezenet("squeezenet1_0"),
    squeezenet("squeezenet1_1"),
    Layout(("googlenet_tv",), GOOGLENET, spare=("aux1.*", "aux2.*")),
    Layout(("inception_v3_tv",), INCEPTION_V3, spare=("AuxLogits.*",)),
)
