"""SqueezeNet: F. Iandola, S. Han, M. Moskewicz, K. Ashraf, W. Dally, K. Keutzer, "SqueezeNet: AlexNet-level accuracy
with 50x fewer parameters and <0.5MB model size", arXiv 1602.07360, 2016, Table 1, Figs. 1 and 2; ``squeezenet1_1`` is
the authors' later release with a smaller conv1 and earlier pooling.

Departs from the paper:

- the output sizes of Table 1 follow from a 227x227 input, which the authors' Caffe files have; the input here is the
  224x224 that the table prints;
- conv10 is not padded, as the 13x13 of Table 1 says; in the authors' file of version 1.0 a padding of 1 makes it 15x15;
- the initialisation is that of the authors' files: uniform with variance 1 / fan-in, conv10 normal with deviation 0.01,
  biases 0.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial

from torch import nn

from convarium.blocks import Concat, Slot, conv_act, gated, gaussian, max_pool_caffe, slot
from convarium.network import BYTE_STD, CAFFE_MEAN, ConvHead, Network

# Table 1: s1x1, e1x1, e3x3 of each fire module; None: a max pooling 3x3/2.
TABLE_1 = {
    "pool1": None,
    "fire2": (16, 64, 64),
    "fire3": (16, 64, 64),
    "fire4": (32, 128, 128),
    "pool4": None,
    "fire5": (32, 128, 128),
    "fire6": (48, 192, 192),
    "fire7": (48, 192, 192),
    "fire8": (64, 256, 256),
    "pool8": None,
    "fire9": (64, 256, 256),
}
# Version 1.1: the same modules, pooled after conv1, fire3 and fire5.
VERSION_1_1 = {
    "pool1": None,
    "fire2": (16, 64, 64),
    "fire3": (16, 64, 64),
    "pool3": None,
    "fire4": (32, 128, 128),
    "fire5": (32, 128, 128),
    "pool5": None,
    "fire6": (48, 192, 192),
    "fire7": (48, 192, 192),
    "fire8": (64, 256, 256),
    "fire9": (64, 256, 256),
}


def fire(in_chans: int, row: tuple[int, int, int], attention: Slot | None, conv: Slot) -> nn.Sequential:
    """1x1 to few channels, then 1x1 and 3x3 side by side (Fig. 1): ``(N, in_chans, H, W)`` to ``(N, e1x1 + e3x3, H,
    W)``."""
    squeeze, ones, threes = row
    branches = {"1x1": conv(squeeze, ones, 1), "3x3": conv(squeeze, threes, 3)}
    return nn.Sequential(
        OrderedDict(squeeze=conv(in_chans, squeeze, 1), expand=Concat(branches, slot(attention, ones + threes)))
    )


def initialise(module: nn.Module) -> None:
    """Uniform with variance 1 / fan-in (Caffe's "xavier"), biases 0."""
    if isinstance(module, nn.Conv2d):
        bound = math.sqrt(3 / module.weight[0].numel())
        nn.init.uniform_(module.weight, -bound, bound)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def squeezenet1_0(
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    attention: Slot | None = None,
    conv: Slot = conv_act,
    act: Slot = nn.ReLU,
    table: Mapping[str, tuple[int, int, int] | None] = TABLE_1,
    conv1: tuple[int, int] = (96, 7),
    min_input_size: int = 21,
) -> Network:
    """Table 1, for 224x224 images: 1,248,424 parameters. ``conv1``: its channels and kernel."""
    chans, kernel = conv1
    stages: dict[str, nn.Module] = {"conv1": gated(conv(in_chans, chans, kernel, 2, padding=0), attention, chans)}
    for name, row in table.items():
        if row is None:
            stages[name] = max_pool_caffe(3, 2)
            continue
        stages[name], chans = fire(chans, row, attention, conv), row[1] + row[2]

    def conv10(channels: int, classes: int) -> nn.Module:
        layer = nn.Sequential(OrderedDict(conv=nn.Conv2d(channels, classes, 1), act=act()))
        return layer.apply(gaussian(0.01))

    head = ConvHead(chans, num_classes, drop_rate=0.5, classifier=conv10)
    size = (in_chans, 224, 224)
    network = Network(stages, head, input_size=size, min_input_size=min_input_size, mean=CAFFE_MEAN, std=BYTE_STD)
    network.stages.apply(initialise)
    return network


squeezenet1_1 = partial(squeezenet1_0, table=VERSION_1_1, conv1=(64, 3), min_input_size=17)
