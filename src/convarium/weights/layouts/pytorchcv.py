"""pytorchcv's layout (github.com/osmr/pytorchcv): stages of units, whose convolutions are numbered from 1."""

from convarium.weights.layout import Layout, Rules

NORM = ((".norm.", ".bn."),)
GATE = ((".attention.fc1.", ".se.conv1."), (".attention.fc2.", ".se.conv2."))
GATE_FORM = (("*.attention.fc?.weight", "1x1"),)
OUTPUT = (("head.classifier.", "output."),)
FC = (("head.classifier.", "output.fc."),)


def units(ours: str, theirs: str, count: int, first: int = 1) -> Rules:
    """``count`` blocks of a stage of ours are the units of theirs from ``first`` on."""
    return tuple((f"stages.{ours}.{i}.", f"features.{theirs}.unit{i + first}.") for i in range(count))


# -- chains -----------------------------------------------------------------------------------------------------------

DENSE = (
    ("head.hidden.fc6.", "output.fc1."),
    ("head.hidden.fc7.", "output.fc2."),
    ("head.classifier.", "output.fc3."),
)
FIVE = ("stage1.unit1", "stage2.unit1", "stage3.unit1", "stage3.unit2", "stage3.unit3")
ALEXNET = (
    *((f"stages.conv{i}.layer.", f"stages.conv{i}.") for i in (1, 2)),
    *((f"stages.conv{i}.", f"features.{place}.") for i, place in enumerate(FIVE, 1)),
    *DENSE,
)
NIN = (
    *((f"stages.mlpconv{i}.conv{i}.", f"features.stage{i}.unit1.") for i in (1, 2)),
    *((f"stages.mlpconv{i}.cccp{2 * i - 1}.", f"features.stage{i}.unit2.") for i in (1, 2)),
    *((f"stages.mlpconv{i}.cccp{2 * i}.", f"features.stage{i}.unit3.") for i in (1, 2)),
    ("head.hidden.conv3.", "features.stage3.unit1."),
    ("head.hidden.cccp5.", "features.stage3.unit2."),
    ("head.classifier.", "output.final_conv."),
)
VGG = (*((f"stages.block{i}.conv{i}_", f"features.stage{i}.unit") for i in range(1, 6)), *NORM, *DENSE)
# Fire modules, or separable convolutions, of each stage.
FIRES = {"squeezenet1_0": ((2, 3, 4), (5, 6, 7, 8), (9,)), "squeezenet1_1": ((2, 3), (4, 5), (6, 7, 8, 9))}
SEPARABLE = ((1,), (2, 3), (4, 5), (6, 7, 8, 9, 10, 11), (12, 13))


def in_stages(name: str, stages: tuple[tuple[int, ...], ...]) -> Rules:
    return tuple(
        (f"stages.{name}{number}.", f"features.stage{i}.unit{j}.")
        for i, numbers in enumerate(stages, 1)
        for j, number in enumerate(numbers, 1)
    )


def squeezenet(name: str) -> Layout:
    rules = (
        ("stages.conv1.", "features.init_block."),
        *in_stages("fire", FIRES[name]),
        (".expand.branches.", ".expand"),
        ("head.classifier.conv.", "output.final_conv."),
    )
    return Layout((name,), rules)


MOBILENET = (
    ("stages.conv1.", "features.init_block."),
    *in_stages("dw", SEPARABLE),
    (".depthwise.", ".dw_conv."),
    (".pointwise.", ".pw_conv."),
    *NORM,
    *OUTPUT,
)
XCEPTION = (
    *((f"stages.conv{i}.", f"features.init_block.conv{i}.") for i in (1, 2)),
    *((f"stages.conv{i}.", f"features.final_block.conv{i - 2}.") for i in (3, 4)),
    *in_stages("block", ((1,), (2,), tuple(range(3, 12)), (12,))),
    (".shortcut.", ".identity_conv."),
    *((f".branch.conv{i}.", f".body.block{i}.") for i in (1, 2, 3)),
    (".depthwise.", ".conv.dw_conv."),
    (".pointwise.conv.", ".conv.pw_conv."),
    (".pointwise.norm.", ".bn."),
    *NORM,
    *OUTPUT,
)

# -- residual networks ------------------------------------------------------------------------------------------------

STAGES = tuple(rule for i in range(1, 5) for rule in units(f"conv{i + 1}_x", f"stage{i}", 36))
STAGES_CIFAR = tuple(rule for i in range(1, 4) for rule in units(f"stage{i}", f"stage{i}", 18))
BLOCK = (
    *((f".branch.{i}.", f".body.conv{i + 1}.") for i in range(3)),
    (".shortcut.", ".identity_conv."),
    *GATE,
    *NORM,
    *OUTPUT,
)
RESNET = (("stages.conv1.", "features.init_block.conv."), *STAGES, *BLOCK)
RESNET_CIFAR = (("stages.conv1.", "features.init_block."), *STAGES_CIFAR, *BLOCK)
SENET154 = (
    *((f"stages.conv1.{i}.", f"features.init_block.conv{i + 1}.") for i in range(3)),
    *STAGES,
    *BLOCK,
    ("output.", "output.fc."),
)
PREACTIVATION = (
    (".preactivation.", ".body.conv1."),
    (".residual.", "."),
    (".shortcut.conv.", ".identity_conv."),
    *BLOCK,
)
PREACT_RESNET = (
    ("stages.conv1.convolution.", "features.init_block."),
    ("stages.conv1.preactivation.", "features.init_block."),
    ("stages.pool1.preactivation.", "features.stage1.unit1.body.conv1."),
    ("stages.conv5_x.2.act.", "features.post_activ."),
    *STAGES,
    *PREACTIVATION,
)
PREACT_RESNET_CIFAR = (
    ("stages.conv1.convolution.conv.", "features.init_block."),
    ("stages.conv1.preactivation.", "features.stage1.unit1.body.conv1."),
    ("stages.stage3.17.act.", "features.post_activ."),
    *STAGES_CIFAR,
    *PREACTIVATION,
)

# -- Residual Attention -----------------------------------------------------------------------------------------------

INNER = tuple(".inner" * depth for depth in range(3))
ATTENTION = (
    ("stages.conv1.0.", "features.init_block.conv.conv."),
    ("stages.conv1.2.norm.", "features.init_block.conv.bn."),
    *((f"stages.pre_res_{i}.", f"features.stage{i}.unit1.") for i in (1, 2, 3)),
    *(
        (f"stages.Attention{'ABC'[i - 1]}_{j}.", f"features.stage{i}.unit{j + 1}.")
        for i in (1, 2, 3)
        for j in (1, 2, 3)
    ),
    ("stages.post_res_4.3.norm.", "features.post_activ.bn."),
    *units("post_res_4", "stage4", 3),
    (".pre.0.", ".init_blocks.blocks.block1."),
    *((f".trunk.{i}.", f".hg.skip_seq.skip1.blocks.block{i + 1}.") for i in (0, 1)),
    *(
        (f".mask.hourglass{inner}.{ours}.", f".hg.{theirs}.")
        for i, inner in enumerate(INNER, 1)
        for ours, theirs in (
            ("down.units.0", f"down_seq.down{i}.res_blocks.blocks.block1"),
            ("up.0", f"up_seq.up{i}.res_blocks.blocks.block1"),
            ("skip.unit.0", f"skip_seq.skip{i + 1}.skip1"),
        )
    ),
    (".mask.scores.0.", ".middle_block.conv1."),
    (".mask.scores.1.", ".middle_block.conv2."),
    (".mask.scores.2.", ".middle_block.conv2.conv."),
    (".post.0.", ".final_block."),
    # A unit that changes the map: its first norm, then the residual.
    *((f".unit1.2.branch.0.{part}", f".unit1.body.conv1.conv.{part}") for part in ("weight",)),
    (".unit1.2.shortcut.", ".unit1.identity_conv."),
    (".unit1.2.", ".unit1."),
    *((f".unit1.0.{part}", f".unit1.body.conv1.bn.{part}") for part in ("weight", "bias", "running_", "num_")),
    *BLOCK,
)

# -- Inception --------------------------------------------------------------------------------------------------------

BN_INCEPTION_STAGES = (("3a", "3b"), ("3c", "4a", "4b", "4c", "4d"), ("4e", "5a", "5b"))
HALVING = tuple((f"stages.inception_{name}.branches.", f"features.stage{i}.unit1.branches.") for name, i in
                (("3c", 2), ("4e", 3)))  # fmt: skip
BN_INCEPTION = (
    ("stages.conv1.", "features.init_block.conv1."),
    ("stages.conv2.reduce.", "features.init_block.conv2.conv1."),
    ("stages.conv2.conv.", "features.init_block.conv2.conv2."),
    # The modules that halve the map have no first branch.
    *((f"{ours}{kind}.{i}.", f"{theirs}branch{b}.conv{i + 1}.") for ours, theirs in HALVING
      for b, kind in ((1, "3x3"), (2, "double_3x3")) for i in range(3)),
    *(
        (f"stages.inception_{name}.", f"features.stage{i}.unit{j}.")
        for i, names in enumerate(BN_INCEPTION_STAGES, 1)
        for j, name in enumerate(names, 1)
    ),
    (".branches.1x1.", ".branches.branch1."),
    *((f".branches.3x3.{i}.", f".branches.branch2.conv{i + 1}.") for i in range(2)),
    *((f".branches.double_3x3.{i}.", f".branches.branch3.conv{i + 1}.") for i in range(3)),
    (".branches.pool.1.", ".branches.branch4.conv."),
    *NORM,
    *OUTPUT,
)  # fmt: skip

BRANCHES = (
    (".branch_3.1.", ".branch4.conv."),
    *(
        (f".branch_{b}.{i}.branches.{ours}.", f".branch{b + 1}.conv{side}.")
        for b in (1, 2)
        for i in (1, 2, 3)
        for ours, side in (("1x3", "1x3"), ("3x1", "3x1"), ("branch_0", "1x3"), ("branch_1", "3x1"))
    ),
    *((f".branch_{b}.{i}.", f".branch{b + 1}.conv_list.conv{i + 1}.") for b in range(3) for i in range(5)),
    *((f".branch_{b}.{part}.", f".branch{b + 1}.conv.{part}.") for b in range(3) for part in ("conv", "norm")),
    (".branch.towers.", "."),
    (".branch.linear.", ".conv."),
    *NORM,
)


def stem(*names: str) -> Rules:
    return tuple((f"stages.{name}.", f"features.init_block.conv{i}.") for i, name in enumerate(names, 1))


V3_STAGES = (
    ("Mixed_5b", "Mixed_5c", "Mixed_5d"),
    ("Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
)
INCEPTION_V3 = (
    *stem("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3"),
    *(
        (f"{name}.branches.branch_0.0.", f"{name}.branches.branch1.conv.")
        for names in V3_STAGES
        for name in names
        if name not in ("Mixed_6a", "Mixed_7a")
    ),
    *(
        (f"stages.{name}.", f"features.stage{i}.unit{j}.")
        for i, names in enumerate(V3_STAGES, 1)
        for j, name in enumerate(names, 1)
    ),
    *BRANCHES,
    *FC,
)
INCEPTION_V4 = (
    *stem("conv2d_1a", "conv2d_2a", "conv2d_2b"),
    *((f"stages.mixed_{i + 2}a.", f"features.init_block.block{i}.") for i in (1, 2, 3)),
    *units("inception_a", "stage1", 4),
    ("stages.reduction_a.branches.branch_0.", "features.stage2.unit1.branches.branch1.conv_list.conv1."),
    ("stages.reduction_a.", "features.stage2.unit1."),
    *units("inception_b", "stage2", 7, first=2),
    ("stages.reduction_b.", "features.stage3.unit1."),
    *units("inception_c", "stage3", 3, first=2),
    *BRANCHES,
    *FC,
)
INCEPTION_RESNET_V1 = (
    *stem("conv2d_1a", "conv2d_2a", "conv2d_2b", "conv2d_3b", "conv2d_4a", "conv2d_4b"),
    *units("inception_resnet_a", "stage1", 5),
    ("stages.reduction_a.branches.branch_0.", "features.stage2.unit1.branches.branch1.conv_list.conv1."),
    ("stages.reduction_a.", "features.stage2.unit1."),
    *units("inception_resnet_b", "stage2", 10, first=2),
    ("stages.reduction_b.", "features.stage3.unit1."),
    *units("inception_resnet_c", "stage3", 6, first=2),
    *BRANCHES,
    ("head.hidden.bottleneck.fc.", "output.fc1."),
    ("head.hidden.bottleneck.", "output."),
    ("head.classifier.", "output.fc2."),
)
INCEPTION_RESNET_V2 = (
    *stem("conv2d_1a", "conv2d_2a", "conv2d_2b", "conv2d_3b", "conv2d_4a"),
    ("stages.mixed_5b.", "features.init_block.block."),
    *units("block35", "stage1", 10),
    ("stages.mixed_6a.branches.branch_0.", "features.stage2.unit1.branches.branch1.conv_list.conv1."),
    ("stages.mixed_6a.", "features.stage2.unit1."),
    *units("block17", "stage2", 20, first=2),
    ("stages.mixed_7a.", "features.stage3.unit1."),
    *units("block8", "stage3", 10, first=2),
    ("stages.conv2d_7b.", "features.final_conv."),
    *BRANCHES,
    *FC,
)
BIASES = ("*.conv.bias", 0)  # some of their forms have none where a batch norm follows
LAYOUTS = (
    Layout(("alexnet_owt", "alexnet_pytorchcv", "zfnet_pytorchcv"), ALEXNET),
    Layout(("nin_cifar_pytorchcv",), NIN),
    Layout(("vgg11", "vgg13", "vgg16", "vgg19"), VGG),
    Layout(("vgg*_bn",), VGG, optional=(("*.num_batches_tracked", 0), BIASES)),
    squeezenet("squeezenet1_0"),
    squeezenet("squeezenet1_1"),
    Layout(("mobilenet_v1", "mobilenet_v1_0?[05]"), MOBILENET, eps=1e-5),
    Layout(("xception_cadene",), XCEPTION),
    Layout(("senet154_gluon",), SENET154, values=GATE_FORM),
    Layout(("resnet*_cifar_b", "se_resnet*_cifar_b"), RESNET_CIFAR, values=GATE_FORM),
    Layout(("preact_resnet*_cifar_pytorchcv",), PREACT_RESNET_CIFAR),
    Layout(("preact_resnet*_pytorchcv",), PREACT_RESNET),
    Layout(
        (
            "resnet18",
            "resnet34",
            *(f"{se}resnet{d}{v}" for se in ("", "se_") for d in (50, 101, 152) for v in ("", "_v1_5")),
        ),
        RESNET,
        values=GATE_FORM,
    ),
    Layout(
        (
            "se_resnet18",
            "se_resnet34",
            *(f"{se}resnext{x}" for se in ("", "se_") for x in ("50_32x4d", "101_32x4d", "101_64x4d")),
        ),
        RESNET,
        values=GATE_FORM,
    ),
    Layout(("attention*_pytorchcv",), ATTENTION),
    Layout(("bn_inception_caffe",), BN_INCEPTION),
    Layout(("inception_v3_tv",), INCEPTION_V3),
    Layout(("inception_v4",), INCEPTION_V4),
    Layout(("inception_resnet_v1_facenet",), INCEPTION_RESNET_V1),
    Layout(("inception_resnet_v2_slim",), INCEPTION_RESNET_V2),
)
