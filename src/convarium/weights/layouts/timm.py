"""timm's layout (github.com/huggingface/pytorch-image-models): torchvision's where the network is torchvision's,
Cadene's where it came from there."""

from convarium.weights.layout import Layout, Rules
from convarium.weights.layouts import cadene
from convarium.weights.layouts.cadene import GATES, SENET, SENETS, renamed
from convarium.weights.layouts.torchvision import BLOCKS, INCEPTION_V3, RESNET

SE_RESNET = (*RESNET, (".attention.", ".se."))
# The three 3x3 of SENet-154 are numbered with their norms and activations, all but the last norm.
SENET_154 = (
    *((f"stages.conv1.{i}.conv.", f"conv1.{3 * i}.") for i in range(3)),
    *((f"stages.conv1.{i}.norm.", f"conv1.{3 * i + 1}.") for i in range(2)),
    ("stages.conv1.2.norm.", "bn1."),
    *SE_RESNET,
)

# The first unit has the norm that stands after the pooling here, the network the norm after its last unit.
RESNET_V2 = (
    ("stages.conv1.conv.", "stem.conv."),
    ("stages.pool1.preactivation.norm.", "stages.0.blocks.0.norm1."),
    ("stages.conv5_x.2.act.norm.", "norm."),
    *((ours, f"stages.{i}.blocks.") for i, (ours, _) in enumerate(BLOCKS)),
    (".preactivation.norm.", ".norm1."),
    (".residual.", "."),
    *((f".branch.{i}.conv.", f".conv{i + 1}.") for i in range(3)),
    *((f".branch.{i}.norm.", f".norm{i + 1}.") for i in range(3)),
    (".shortcut.conv.", ".downsample.conv."),
    ("head.classifier.", "head.fc."),
)

# VGG: dense layers as convolutions, which read a larger map without more ado. Files of torchvision's are read too.
VGG_HEAD = (
    ("head.hidden.fc6.fc.", "pre_logits.fc1."),
    ("head.hidden.fc7.fc.", "pre_logits.fc2."),
    ("head.classifier.", "head.fc."),
)
VGG_VALUES = (("head.hidden.fc6.fc.weight", "7x7"), ("head.hidden.fc7.fc.weight", "1x1"))
VGG_OLDER = (("classifier.0.", "pre_logits.fc1."), ("classifier.3.", "pre_logits.fc2."), ("classifier.6.", "head.fc."))


# Ours in one row, theirs in groups that begin where the map is halved.
MOBILENET_GROUPS = ((1,), (2, 3), (4, 5), (6, 7, 8, 9, 10, 11), (12, 13))


def mobilenet_blocks() -> Rules:
    return tuple(
        (f"stages.dw{number}.", f"blocks.{group}.{place}.")
        for group, numbers in enumerate(MOBILENET_GROUPS)
        for place, number in enumerate(numbers)
    )


MOBILENET = (
    ("stages.conv1.conv.", "conv_stem."),
    ("stages.conv1.norm.", "bn1."),
    *mobilenet_blocks(),
    (".depthwise.conv.", ".conv_dw."),
    (".depthwise.norm.", ".bn1."),
    (".pointwise.conv.", ".conv_pw."),
    (".pointwise.norm.", ".bn2."),
    ("head.classifier.", "classifier."),
)

LAYOUTS = (
    Layout(("resnet18", "resnet34", "resnet*_v1_5", "resnext50_32x4d", "resnext101_*"), RESNET),
    Layout(("se_resnet50_v1_5", "se_resnext50_32x4d", "se_resnext101_32x4d"), SE_RESNET, GATES),
    Layout(("senet154_gluon",), SENET_154, GATES),
    Layout((*SENETS, "se_resnet*_timm"), SENET, GATES),
    Layout(("preact_resnet*_timm",), RESNET_V2, (("head.classifier.weight", "1x1"),)),
    Layout(
        ("vgg11", "vgg13", "vgg16", "vgg19", "vgg*_bn"), VGG_HEAD, VGG_VALUES, ("stages.", "features."), older=VGG_OLDER
    ),
    Layout(("inception_v3_tv",), INCEPTION_V3, spare=("AuxLogits.*",)),
    Layout(("inception_v4",), cadene.INCEPTION_V4),
    Layout(("inception_resnet_v2_slim",), renamed(cadene.INCEPTION_RESNET_V2, "last_linear.", "classif.")),
    Layout(("xception_cadene",), renamed(cadene.XCEPTION, "last_linear.", "fc.")),
    Layout(("mobilenet_v1_timm",), MOBILENET),
)
