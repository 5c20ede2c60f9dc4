"""Inception-v4 and Inception-ResNet: C. Szegedy, S. Ioffe, V. Vanhoucke, A. Alemi, "Inception-v4, Inception-ResNet and
the Impact of Residual Connections on Learning", AAAI 2017, Figs. 3 to 20 and Table 1 as arXiv 1602.07261 numbers them.

Departs from the paper:

- the linear 1x1 of the residual blocks gives as many channels as the block takes: Figs. 17 and 19 print 1154 and 2048
  where Table 1 and Fig. 18 make the maps 1152 and 2144 deep;
- the scale of the residuals is 0.17, 0.10 and 0.20 in the three kinds of blocks, as in the authors' code (TF-Slim); the
  paper says "between 0.1 and 0.3". So is the order of a 1x7 and a 7x1, which some figures turn round;
- the initialisation is Glorot's uniform, TF-Slim's for the Inception-ResNets; the paper does not say;
- ``inception_resnet_v2_slim`` is the network of all public weights: the stem and the first module of Inception-v3,
  twice as many blocks, a last one that is not scaled and has no ReLU, and a 1x1 convolution before the pooling;
- ``inception_resnet_v1_facenet`` is the network of FaceNet's heirs: one block more, not scaled and without ReLU, and a
  dense layer of 512 with batch norm before the classifier.

The attention slot stands after every Inception module and reduction of Inception-v4, and before the scale of every
residual block of the Inception-ResNets.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from torch import nn

from convarium.attention import ResidualScale
from convarium.blocks import Concat, Residual, Slot, avg_pool_same, conv_bn_tensorflow, glorot_uniform, slot
from convarium.network import INCEPTION_MEAN, INCEPTION_STD, Head, Network

# The figures are written as they are drawn, a tower after the other: "3x3-96" is a 3x3 convolution to 96 channels (with
# batch norm and ReLU), "/2" its stride, "V" for valid padding; "a+b" are two convolutions of the same map.
BOX = re.compile(r"(\d)x(\d)-(\d+)(?:/(\d))?(V?)$")
FIG_3 = {
    "conv2d_1a": "3x3-32/2V",
    "conv2d_2a": "3x3-32V",
    "conv2d_2b": "3x3-64",
    "mixed_3a": "max/2V | 3x3-96/2V",
    "mixed_4a": "1x1-64 3x3-96V | 1x1-64 1x7-64 7x1-64 3x3-96V",
    "mixed_5a": "3x3-192/2V | max/2V",
}
FIG_14 = {
    "conv2d_1a": "3x3-32/2V",
    "conv2d_2a": "3x3-32V",
    "conv2d_2b": "3x3-64",
    "maxpool_3a": "max/2V",
    "conv2d_3b": "1x1-80",
    "conv2d_4a": "3x3-192V",
    "conv2d_4b": "3x3-256/2V",
}
SLIM_STEM = {
    "conv2d_1a": "3x3-32/2V",
    "conv2d_2a": "3x3-32V",
    "conv2d_2b": "3x3-64",
    "maxpool_3a": "max/2V",
    "conv2d_3b": "1x1-80",
    "conv2d_4a": "3x3-192V",
    "maxpool_5a": "max/2V",
    "mixed_5b": "1x1-96 | 1x1-48 5x5-64 | 1x1-64 3x3-96 3x3-96 | avg 1x1-64",
}
# Table 1: k, l, m, n of Fig. 7.
TABLE_1 = {
    "Inception-v4": (192, 224, 256, 384),
    "Inception-ResNet-v1": (192, 192, 256, 384),
    "Inception-ResNet-v2": (256, 256, 384, 384),
}


class Slots(NamedTuple):
    """What the builder's slots hold."""

    conv: Slot
    act: Slot
    attention: Slot | None


# A figure makes a module for the channels it is given, and says how many channels come out.
Figure = Callable[[int, Slots], tuple[nn.Module, int]]


# -- how a figure is read ---------------------------------------------------------------------------------------


def tower(text: str, chans: int, slots: Slots) -> tuple[nn.Module, int]:
    """Boxes one above the other."""
    layers = nn.Sequential()
    for box in text.split():
        if "+" in box:
            layer, chans = side_by_side(box.split("+"), chans, slots)
        elif box == "avg":
            layer = avg_pool_same(3)
        elif box == "max/2V":
            layer = nn.MaxPool2d(3, 2)
        else:
            height, width, out, stride, valid = BOX.findall(box)[0]
            padding = {"padding": 0} if valid else {}
            layer = slots.conv(chans, int(out), (int(height), int(width)), int(stride or 1), **padding)
            chans = int(out)
        layers.append(layer)
    return (layers if len(layers) > 1 else layers[0]), chans


def side_by_side(towers: list[str], chans: int, slots: Slots, end: Slot | None = None) -> tuple[nn.Module, int]:
    """Towers on the same map and their "filter concat", with the slot ``end`` after it."""
    made = [tower(text, chans, slots) for text in towers]
    width = sum(out for _, out in made)
    branches = {f"branch_{i}": module for i, (module, _) in enumerate(made)}
    return Concat(branches, end(width) if end else None), width


def plain(text: str) -> Figure:
    """A tower, or a concatenation without a slot."""
    towers = text.split(" | ")
    return partial(tower, text) if len(towers) == 1 else partial(side_by_side, towers)


def inception(text: str) -> Figure:
    """An Inception module."""
    return lambda chans, slots: side_by_side(text.split(" | "), chans, slots, partial(slot, slots.attention))


def residual(scale: float, text: str, act: Slot | None = None) -> Figure:
    """An Inception module that is a residual branch: its towers, a linear 1x1 convolution, and the sum with the input
    (Fig. 20). ``act``: what stands after the sum, where it is not the network's own activation."""

    def make(chans: int, slots: Slots) -> tuple[nn.Module, int]:
        towers, width = side_by_side(text.split(" | "), chans, slots)
        branch = nn.Sequential(OrderedDict(towers=towers, linear=nn.Conv2d(width, chans, 1)))
        gate = nn.Sequential(OrderedDict(attention=slot(slots.attention, chans), scale=ResidualScale(chans, scale)))
        return Residual(branch, nn.Identity(), gate, (act or slots.act)()), chans

    return make


# -- the figures ------------------------------------------------------------------------------------------------


def reduction_a(network: str, kind: Callable[[str], Figure]) -> Figure:
    """Fig. 7 with a row of Table 1, 35x35 to 17x17."""
    k, l, m, n = TABLE_1[network]  # noqa: E741
    return kind(f"3x3-{n}/2V | 1x1-{k} 3x3-{l} 3x3-{m}/2V | max/2V")


# Inception-v4: Figs. 4, 5, 6 and 8.
inception_a = inception("1x1-96 | 1x1-64 3x3-96 | 1x1-64 3x3-96 3x3-96 | avg 1x1-96")
inception_b = inception("1x1-384 | 1x1-192 1x7-224 7x1-256 | 1x1-192 7x1-192 1x7-224 7x1-224 1x7-256 | avg 1x1-128")
inception_c = inception("1x1-256 | 1x1-384 1x3-256+3x1-256 | 1x1-384 3x1-448 1x3-512 1x3-256+3x1-256 | avg 1x1-256")
reduction_b = inception("1x1-192 3x3-192/2V | 1x1-256 1x7-256 7x1-320 3x3-320/2V | max/2V")

# Inception-ResNet-v1: Figs. 10, 11, 13 and 12.
inception_resnet_a_v1 = residual(0.17, "1x1-32 | 1x1-32 3x3-32 | 1x1-32 3x3-32 3x3-32")
inception_resnet_b_v1 = residual(0.10, "1x1-128 | 1x1-128 1x7-128 7x1-128")
FIG_13 = "1x1-192 | 1x1-192 1x3-192 3x1-192"
inception_resnet_c_v1 = residual(0.20, FIG_13)
reduction_b_v1 = plain("1x1-256 3x3-384/2V | 1x1-256 3x3-256/2V | 1x1-256 3x3-256 3x3-256/2V | max/2V")

# Inception-ResNet-v2: Figs. 16, 17, 19 and 18.
FIG_19 = "1x1-192 | 1x1-192 1x3-224 3x1-256"
inception_resnet_a_v2 = residual(0.17, "1x1-32 | 1x1-32 3x3-32 | 1x1-32 3x3-48 3x3-64")
inception_resnet_b_v2 = residual(0.10, "1x1-192 | 1x1-128 1x7-160 7x1-192")
inception_resnet_c_v2 = residual(0.20, FIG_19)
reduction_b_v2 = plain("1x1-256 3x3-384/2V | 1x1-256 3x3-288/2V | 1x1-256 3x3-288 3x3-320/2V | max/2V")


# -- the networks -----------------------------------------------------------------------------------------------

Rows = Mapping[str, list[Figure]]


def stem(boxes: Mapping[str, str]) -> Rows:
    """A stage for every box of a stem."""
    return {name: [plain(text)] for name, text in boxes.items()}


FIG_9: Rows = {
    **stem(FIG_3),
    "inception_a": 4 * [inception_a],
    "reduction_a": [reduction_a("Inception-v4", inception)],
    "inception_b": 7 * [inception_b],
    "reduction_b": [reduction_b],
    "inception_c": 3 * [inception_c],
}
FIG_15_V1: Rows = {
    **stem(FIG_14),
    "inception_resnet_a": 5 * [inception_resnet_a_v1],
    "reduction_a": [reduction_a("Inception-ResNet-v1", plain)],
    "inception_resnet_b": 10 * [inception_resnet_b_v1],
    "reduction_b": [reduction_b_v1],
    "inception_resnet_c": 5 * [inception_resnet_c_v1],
}
FACENET: Rows = {
    **FIG_15_V1,
    "inception_resnet_c": [*FIG_15_V1["inception_resnet_c"], residual(1.0, FIG_13, nn.Identity)],
}
FIG_15_V2: Rows = {
    **stem(FIG_3),
    "inception_resnet_a": 5 * [inception_resnet_a_v2],
    "reduction_a": [reduction_a("Inception-ResNet-v2", plain)],
    "inception_resnet_b": 10 * [inception_resnet_b_v2],
    "reduction_b": [reduction_b_v2],
    "inception_resnet_c": 5 * [inception_resnet_c_v2],
}
SLIM: Rows = {
    **stem(SLIM_STEM),
    "block35": 10 * [inception_resnet_a_v2],
    "mixed_6a": [reduction_a("Inception-ResNet-v2", plain)],
    "block17": 20 * [inception_resnet_b_v2],
    "mixed_7a": [reduction_b_v2],
    "block8": 9 * [inception_resnet_c_v2] + [residual(1.0, FIG_19, nn.Identity)],
    "conv2d_7b": [plain("1x1-1536")],
}


def dropped_head(chans: int, num_classes: int) -> Head:
    """The mean, 20 % dropout, the classifier (Figs. 9 and 15)."""
    return Head(chans, num_classes, drop_rate=0.2)


def head_facenet(chans: int, num_classes: int) -> Head:
    """60 % dropout, a dense layer of 512 without a bias, batch norm, the classifier."""
    parts = OrderedDict(drop=nn.Dropout(0.6), fc=nn.Linear(chans, 512, bias=False), norm=nn.BatchNorm1d(512, eps=1e-3))
    return Head(chans, num_classes, hidden={"bottleneck": nn.Sequential(parts)}, hidden_size=512)


def build(
    rows: Rows,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    attention: Slot | None = None,
    conv: Slot = conv_bn_tensorflow,
    act: Slot = nn.ReLU,
    head: Callable[[int, int], Head] = dropped_head,
) -> Network:
    """A stage for every row, then the head, for 299x299 images."""
    stages: dict[str, nn.Module] = {}
    chans = in_chans
    for name, figures in rows.items():
        modules = []
        for figure in figures:
            module, chans = figure(chans, Slots(conv, act, attention))
            modules.append(module)
        stages[name] = nn.Sequential(*modules) if len(modules) > 1 else modules[0]
    size = (in_chans, 299, 299)
    network = Network(
        stages, head(chans, num_classes), input_size=size, min_input_size=75, mean=INCEPTION_MEAN, std=INCEPTION_STD
    )
    return network.apply(glorot_uniform)


inception_v4 = partial(build, FIG_9)
inception_resnet_v1 = partial(build, FIG_15_V1)
inception_resnet_v1_facenet = partial(build, FACENET, head=head_facenet)
inception_resnet_v2 = partial(build, FIG_15_V2)
inception_resnet_v2_slim = partial(build, SLIM)
