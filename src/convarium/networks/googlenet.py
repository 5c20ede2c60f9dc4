"""GoogLeNet: C. Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, Table 1, Figs. 2 and 3.

Departs from the paper:

- conv1 is a plain 7x7: the parameters and operations printed for it (2.7K, 34M) are those of a separable one with 8
  kernels per channel, which no public weights have;
- the parameters of the local response normalisation, whose places Fig. 3 shows, are AlexNet's with k = 1, and the
  initialisation is that of the BVLC release: the paper gives neither;
- ``googlenet_naive`` puts Table 1's widths into the modules of Fig. 2a, which concatenate the pooled input as it is;
- ``googlenet_tv`` is torchvision's form: batch norm and no biases, 3x3 where the paper has 5x5, pool4 2x2.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from convarium.blocks import Concat, Slot, conv_act, conv_bn_tensorflow, lrn, max_pool_caffe, slot, truncated_normal
from convarium.network import BYTE_STD, CAFFE_MEAN, IMAGENET_MEAN, IMAGENET_STD, Auxiliary, Head, Network, Shape

# Table 1: #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj; of a pooling, its window.
TABLE_1: dict[str, tuple[int, ...]] = {
    "inception_3a": (64, 96, 128, 16, 32, 32),
    "inception_3b": (128, 128, 192, 32, 96, 64),
    "pool3": (3,),
    "inception_4a": (192, 96, 208, 16, 48, 64),
    "inception_4b": (160, 112, 224, 24, 64, 64),
    "inception_4c": (128, 128, 256, 24, 64, 64),
    "inception_4d": (112, 144, 288, 32, 64, 64),
    "inception_4e": (256, 160, 320, 32, 128, 128),
    "pool4": (3,),
    "inception_5a": (256, 160, 320, 32, 128, 128),
    "inception_5b": (384, 192, 384, 48, 128, 128),
}
AUXILIARY = ("inception_4a", "inception_4d")


def named(**layers: nn.Module) -> nn.Sequential:
    """Layers in turn, under their names."""
    return nn.Sequential(OrderedDict(layers))


def reduced(chans: int, row: tuple[int, ...], conv: Slot, five: int = 5) -> tuple[dict[str, nn.Module], int]:
    """The branches of Fig. 2b, and the channels of their maps together."""
    ones, reduce3, threes, reduce5, fives, projection = row
    branches = {
        "1x1": conv(chans, ones, 1),
        "3x3": named(reduce=conv(chans, reduce3, 1), conv=conv(reduce3, threes, 3)),
        "5x5": named(reduce=conv(chans, reduce5, 1), conv=conv(reduce5, fives, five)),
        "pool": named(pool=nn.MaxPool2d(3, 1, padding=1), project=conv(chans, projection, 1)),
    }
    return branches, ones + threes + fives + projection


def naive(chans: int, row: tuple[int, ...], conv: Slot) -> tuple[dict[str, nn.Module], int]:
    """The branches of Fig. 2a: no 1x1 before the 3x3 and the 5x5, the pooled input as it is."""
    ones, _, threes, _, fives, _ = row
    convs = {"1x1": conv(chans, ones, 1), "3x3": conv(chans, threes, 3), "5x5": conv(chans, fives, 5)}
    return {**convs, "pool": nn.MaxPool2d(3, 1, padding=1)}, ones + threes + fives + chans


def auxiliary_head(num_classes: int, map_: Shape, conv: Slot, act: Slot) -> nn.Sequential:
    """5x5/3 mean, 1x1 to 128, 1024 units, 70 % dropout, classifier (Section 5). Where images are so small that the map
    is less than 5x5, the window is the map's side."""
    chans, height, width = map_
    window = min(5, height, width)
    positions = ((height - window) // 3 + 1) * ((width - window) // 3 + 1)
    return named(
        pool=nn.AvgPool2d(window, 3), conv=conv(chans, 128, 1), flatten=nn.Flatten(),
        fc=nn.Linear(128 * positions, 1024), act=act(), drop=nn.Dropout(0.7), classifier=nn.Linear(1024, num_classes),
    )  # fmt: skip


def bvlc(module: nn.Module) -> None:
    """Uniform with variance 1 / fan-in, biases 0.2 (Caffe's "xavier"; the classifiers' biases there are 0)."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        bound = math.sqrt(3 / module.weight[0].numel())
        nn.init.uniform_(module.weight, -bound, bound)
        if module.bias is not None:
            nn.init.constant_(module.bias, 0.2)


def googlenet(
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    attention: Slot | None = None,
    conv: Slot = conv_act,
    act: Slot = nn.ReLU,
    table: Mapping[str, tuple[int, ...]] = TABLE_1,
    module: Callable[..., tuple[dict[str, nn.Module], int]] = reduced,
    norm: Slot = lrn,
    drop_rate: float = 0.4,
    initialise: Callable[[nn.Module], None] = bvlc,
    mean: tuple[float, ...] = CAFFE_MEAN,
    std: tuple[float, ...] = BYTE_STD,
) -> Network:
    """Table 1, for 224x224 images: 6,998,552 parameters, 13,378,280 with both auxiliary heads."""
    stages: dict[str, nn.Module] = {
        "conv1": conv(in_chans, 64, 7, 2),
        "pool1": named(pool=max_pool_caffe(3, 2), norm=norm()),
        "conv2_reduce": conv(64, 64, 1),
        "conv2": named(layer=conv(64, 192, 3), norm=norm()),
        "pool2": max_pool_caffe(3, 2),
    }
    chans = 192
    for name, row in table.items():
        if name.startswith("pool"):
            stages[name] = max_pool_caffe(row[0], 2)
        else:
            branches, chans = module(chans, row, conv)
            stages[name] = Concat(branches, slot(attention, chans))

    def heads(num_classes: int, maps: Mapping[str, Shape]) -> dict[str, nn.Module]:
        return {name: auxiliary_head(num_classes, maps[name], conv, act).apply(initialise) for name in AUXILIARY}

    head, size = Head(chans, num_classes, drop_rate=drop_rate), (in_chans, 224, 224)
    auxiliary = Auxiliary(heads, weight=0.3)
    network = Network(stages, head, input_size=size, min_input_size=32, mean=mean, std=std, auxiliary=auxiliary)
    return network.apply(initialise)


googlenet_naive = partial(googlenet, module=naive)
googlenet_tv = partial(
    googlenet,
    conv=conv_bn_tensorflow,
    table=TABLE_1 | {"pool4": (2,)},
    module=partial(reduced, five=3),
    norm=nn.Identity,
    drop_rate=0.2,
    initialise=truncated_normal(0.01),
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
