"""BN-Inception: S. Ioffe, C. Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal
Covariate Shift", ICML 2015; figures and sections as in arXiv 1502.03167, the table is its Fig. 5.

Departs from the paper:

- conv1 is a plain 7x7; the paper's is separable with 8 kernels per channel, as in ``inception_v2_slim``;
- inception_4c, 4d and 4e have the widths of Fig. 5's columns, whose sums are 608, 608 and 1056 where its output sizes
  print 576, 576 and 1024; ``inception_v2_slim`` projects to 96 in 4c and 4d, which gives the latter;
- Section 4.2 counts 13.6 million parameters; Fig. 5 has 11.3 million, whichever way its widths are read;
- averages count the padding and the means subtracted are 128, 117 and 104, as in the public (Caffe) weights; the paper
  says neither. The initialisation is He's, the paper giving none;
- ``bn_inception_caffe`` has the biases, idle before batch norm, of those weights;
- ``inception_v2_slim`` is Google's release (TF-Slim's inception_v2): no gains in batch norm, and no norm after conv1.
  Its convolutions of stride 2 pad all sides alike here; TensorFlow pads more at the bottom and the right.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from convarium.blocks import Concat, Slot, avg_pool_same, conv_bn, he_normal, max_pool_caffe, max_pool_same, slot
from convarium.network import BYTE_STD, INCEPTION_MEAN, INCEPTION_STD, Head, Network

# Fig. 5: #1x1; #3x3 reduce, #3x3; double #3x3 reduce, double #3x3; pool and projection (0: "pass through", stride 2).
Row = tuple[int, tuple[int, int], tuple[int, int], tuple[str, int]]
FIG_5: dict[str, Row] = {
    "inception_3a": (64, (64, 64), (64, 96), ("avg", 32)),
    "inception_3b": (64, (64, 96), (64, 96), ("avg", 64)),
    "inception_3c": (0, (128, 160), (64, 96), ("max", 0)),
    "inception_4a": (224, (64, 96), (96, 128), ("avg", 128)),
    "inception_4b": (192, (96, 128), (96, 128), ("avg", 128)),
    "inception_4c": (160, (128, 160), (128, 160), ("avg", 128)),
    "inception_4d": (96, (128, 192), (160, 192), ("avg", 128)),
    "inception_4e": (0, (128, 192), (192, 256), ("max", 0)),
    "inception_5a": (352, (192, 320), (160, 224), ("avg", 128)),
    "inception_5b": (352, (192, 320), (192, 224), ("max", 128)),
}
FIG_5_SLIM: dict[str, Row] = FIG_5 | {
    "inception_4c": (160, (128, 160), (128, 160), ("avg", 96)),
    "inception_4d": (96, (128, 192), (160, 192), ("avg", 96)),
}
mean_with_padding = partial(avg_pool_same, count_padding=True)
CAFFE_MEAN_128 = (128 / 255, 117 / 255, 104 / 255)  # red, green, blue


def inception(chans: int, row: Row, conv: Slot, avg_pool: Slot) -> tuple[dict[str, nn.Module], int]:
    """The branches of GoogLeNet's module with two 3x3 in place of the 5x5 (appendix), and their channels together.
    Without a projection, the convolutions and the pooling have stride 2 and the pooled input is passed on."""
    ones, (reduce3, threes), (reduce_double, doubles), (kind, projection) = row
    stride = 1 if projection else 2
    branches: dict[str, nn.Module] = {"1x1": conv(chans, ones, 1)} if ones else {}
    branches["3x3"] = nn.Sequential(conv(chans, reduce3, 1), conv(reduce3, threes, 3, stride))
    branches["double_3x3"] = nn.Sequential(
        conv(chans, reduce_double, 1), conv(reduce_double, doubles, 3), conv(doubles, doubles, 3, stride)
    )
    # Where the map is even, as for 224x224 images, this maximum is Caffe's too; elsewhere Caffe's does not fit.
    pool = avg_pool(3) if kind == "avg" else max_pool_same(3, stride)
    branches["pool"] = nn.Sequential(pool, conv(chans, projection, 1)) if projection else pool
    return branches, ones + threes + doubles + (projection or chans)


def plain_conv1(in_chans: int, conv: Slot, act: Slot) -> nn.Module:
    """7x7/2, as in GoogLeNet."""
    return conv(in_chans, 64, 7, 2)


def separable_conv1(in_chans: int, conv: Slot, act: Slot) -> nn.Module:
    """7x7/2, 8 kernels per channel, then 1x1 with a bias (appendix: "depth multiplier 8"); no norm, as in TF-Slim."""
    depthwise = nn.Conv2d(in_chans, 8 * in_chans, 7, 2, 3, groups=in_chans, bias=False)
    return nn.Sequential(OrderedDict(depthwise=depthwise, pointwise=nn.Conv2d(8 * in_chans, 64, 1), act=act()))


def batch_norm_without_gain(channels: int) -> nn.Module:
    """Batch norm that shifts and does not scale, as the next layer can."""
    norm = nn.BatchNorm2d(channels, eps=1e-3)
    norm.register_parameter("weight", None)
    return norm


def bn_inception(
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    attention: Slot | None = None,
    conv: Slot = conv_bn,
    act: Slot = nn.ReLU,
    table: Mapping[str, Row] = FIG_5,
    conv1: Callable[[int, Slot, Slot], nn.Module] = plain_conv1,
    max_pool: Slot = max_pool_caffe,
    avg_pool: Slot = mean_with_padding,
    drop_rate: float = 0.0,
    mean: tuple[float, ...] = CAFFE_MEAN_128,
    std: tuple[float, ...] = BYTE_STD,
) -> Network:
    """Fig. 5, for 224x224 images; no dropout, no local response normalisation (Section 4.2.1)."""
    stages: dict[str, nn.Module] = {
        "conv1": conv1(in_chans, conv, act),
        "pool1": max_pool(3, 2),
        "conv2": nn.Sequential(OrderedDict(reduce=conv(64, 64, 1), conv=conv(64, 192, 3))),
        "pool2": max_pool(3, 2),
    }
    chans = 192
    for name, row in table.items():
        branches, chans = inception(chans, row, conv, avg_pool)
        stages[name] = Concat(branches, slot(attention, chans))
    head, size = Head(chans, num_classes, drop_rate=drop_rate), (in_chans, 224, 224)
    return Network(stages, head, input_size=size, min_input_size=32, mean=mean, std=std).apply(he_normal)


bn_inception_caffe = partial(bn_inception, conv=partial(conv_bn, bias=True))
inception_v2_slim = partial(
    bn_inception,
    conv=partial(conv_bn, norm=batch_norm_without_gain),
    table=FIG_5_SLIM,
    conv1=separable_conv1,
    max_pool=max_pool_same,
    avg_pool=avg_pool_same,
    drop_rate=0.2,
    mean=INCEPTION_MEAN,
    std=INCEPTION_STD,
)
