"""BN-Inception against Fig. 5 and Section 4.2 of arXiv 1502.03167."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convarium import create_model
from convarium.networks import create_on_meta

# Fig. 5 as printed: side and channels of the output; #1x1, #3x3 reduce, #3x3, double #3x3 reduce, double #3x3, pool,
# projection (0: "pass through").
FIG_5 = {
    "inception_3a": (28, 256, (64, 64, 64, 64, 96, "avg", 32)),
    "inception_3b": (28, 320, (64, 64, 96, 64, 96, "avg", 64)),
    "inception_3c": (14, 576, (0, 128, 160, 64, 96, "max", 0)),
    "inception_4a": (14, 576, (224, 64, 96, 96, 128, "avg", 128)),
    "inception_4b": (14, 576, (192, 96, 128, 96, 128, "avg", 128)),
    "inception_4c": (14, 576, (160, 128, 160, 128, 160, "avg", 128)),
    "inception_4d": (14, 576, (96, 128, 192, 160, 192, "avg", 128)),
    "inception_4e": (7, 1024, (0, 128, 192, 192, 256, "max", 0)),
    "inception_5a": (7, 1024, (352, 192, 320, 160, 224, "avg", 128)),
    "inception_5b": (7, 1024, (352, 192, 320, 192, 224, "max", 128)),
}
STEM = {"conv1": (64, 112, 112), "pool1": (64, 56, 56), "conv2": (192, 56, 56), "pool2": (192, 28, 28)}


def output_channels(chans, row):
    ones, _, threes, _, doubles, _, projection = row
    return ones + threes + doubles + (projection or chans)


def module_weights(chans, row):
    """Convolution weights of one module."""
    ones, reduce3, threes, reduce_double, doubles, _, projection = row
    pointwise = chans * (ones + reduce3 + reduce_double + projection)
    return pointwise + 9 * (reduce3 * threes + reduce_double * doubles + doubles**2)


def convolution_channels(row):
    """Outputs of all convolutions of a module."""
    ones, reduce3, threes, reduce_double, doubles, _, projection = row
    return ones + reduce3 + threes + reduce_double + 2 * doubles + projection


def hand_count(projection_4cd=128):
    """Weights and channels of all modules, and the output channels of each."""
    chans, weights, channels, widths = 192, 0, 0, {}
    for name, (_, _, row) in FIG_5.items():
        row = (*row[:6], projection_4cd) if name in ("inception_4c", "inception_4d") else row
        weights, channels = weights + module_weights(chans, row), channels + convolution_channels(row)
        chans = widths[name] = output_channels(chans, row)
    return weights, channels, widths


def test_fig_5_output_sizes():
    """4c, 4d and 4e are 608, 608 and 1056 deep by Fig. 5's columns, 576, 576 and 1024 by its output sizes."""
    _, _, widths = hand_count()
    printed = {name: (chans, side, side) for name, (side, chans, _) in FIG_5.items()}
    by_columns = {name: (widths[name], *printed[name][1:]) for name in FIG_5}
    differ = {name: chans for name, (chans, *_) in by_columns.items() if chans != printed[name][0]}
    assert differ == {"inception_4c": 608, "inception_4d": 608, "inception_4e": 1056}
    assert create_on_meta("bn_inception").stage_shapes() == STEM | by_columns
    assert create_on_meta("inception_v2_slim").stage_shapes() == STEM | printed


def test_parameters_by_hand():
    weights, channels, _ = hand_count()
    stem, channels = 9_408 + 64 * 64 + 9 * 64 * 192, channels + 64 + 64 + 192
    assert stem + weights + 2 * channels + 1_025_000 == 11_285_224
    assert 11_285_224 + channels == 11_295_240  # the idle biases of the Caffe form


def test_slim_parameters_by_hand():
    """TF-Slim's own test counts 10,173,112 variables below the classifier: weights, conv1's biases, and three numbers
    per channel of batch norm (a shift and two statistics)."""
    weights, channels, _ = hand_count(projection_4cd=96)
    weights, channels = weights + 64 * 64 + 9 * 64 * 192, channels + 64 + 192
    conv1 = 49 * 24 + 24 * 64 + 64
    assert weights + conv1 + 3 * channels == 10_173_112
    assert weights + conv1 + channels + 1_025_000 == 11_178_336
    network = create_on_meta("inception_v2_slim")
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert sum(m.num_features for m in norms) == channels
    assert all(m.weight is None and m.bias is not None and m.eps == 1e-3 for m in norms)


def test_fewer_parameters_than_section_4_2_says_whichever_way():
    for name in ("bn_inception", "inception_v2_slim"):
        assert sum(p.numel() for p in create_on_meta(name).parameters()) < 0.85 * 13.6e6


@pytest.mark.parametrize("name", ["bn_inception", "inception_v2_slim"])
@pytest.mark.parametrize("module_name", ["inception_3b", "inception_3c", "inception_5b"])
def test_a_module_by_hand(name, module_name):
    """Every convolution with its norm and a rectifier; a mean, a maximum passed through at stride 2, a maximum."""
    torch.manual_seed(0)
    module = create_model(name).eval().stages[module_name]
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):  # so that no norm is the identity
            nn.init.uniform_(norm.running_mean, -1, 1)
            nn.init.uniform_(norm.bias, -1, 1)
    first = next(m for m in module.modules() if isinstance(m, nn.Conv2d))
    x, b = torch.randn(2, first.in_channels, 8, 8), module.branches
    stride = 2 if module_name == "inception_3c" else 1

    def layer(part, y, stride=1):
        y = F.conv2d(y, part.conv.weight, stride=stride, padding=part.conv.kernel_size[0] // 2)
        shift, scale = part.norm.running_mean[:, None, None], (1 + part.norm.eps) ** -0.5
        return ((y - shift) * scale + part.norm.bias[:, None, None]).clamp(min=0)

    if module_name == "inception_3b":
        zeros_count = name == "bn_inception"  # Caffe's mean divides by nine everywhere
        pooled = layer(b["pool"][1], F.avg_pool2d(x, 3, 1, 1, count_include_pad=zeros_count))
    elif module_name == "inception_3c":
        pooled = F.max_pool2d(x, 3, 2, ceil_mode=True)  # Caffe's
    else:
        pooled = layer(b["pool"][1], F.max_pool2d(x, 3, 1, 1))
    three, double = b["3x3"], b["double_3x3"]
    expected = [
        layer(three[1], layer(three[0], x), stride),
        layer(double[2], layer(double[1], layer(double[0], x)), stride),
        pooled,
    ]
    if "1x1" in b:
        expected.insert(0, layer(b["1x1"], x))
    torch.testing.assert_close(module(x), torch.cat(expected, 1), atol=1e-4, rtol=1e-4)


def test_strided_modules_fit_together_on_odd_maps():
    for name in ("bn_inception", "inception_v2_slim"):
        maps = create_on_meta(name).stage_shapes((3, 240, 208))
        assert maps["inception_3b"][1:] == (30, 26) and maps["inception_4a"][1:] == (15, 13)
        assert maps["inception_4e"][1:] == (8, 7)


def test_where_means_and_maxima_stand():
    network = create_on_meta("bn_inception")
    for name, (_, _, row) in FIG_5.items():
        pools = [m for m in network.stages[name].branches["pool"].modules() if "Pool" in type(m).__name__]
        assert len(pools) == 1 and isinstance(pools[0], nn.AvgPool2d) == (row[5] == "avg")


def test_the_separable_conv1():
    """7x7 with 8 kernels per channel, then 1x1 with a bias and a rectifier, no norm."""
    torch.manual_seed(0)
    conv1 = create_model("inception_v2_slim").stages["conv1"]
    x = torch.randn(1, 3, 16, 16)
    each = [F.conv2d(x[:, i : i + 1], conv1.depthwise.weight[8 * i : 8 * i + 8], stride=2, padding=3) for i in range(3)]
    expected = F.conv2d(torch.cat(each, 1), conv1.pointwise.weight, conv1.pointwise.bias).clamp(min=0)
    torch.testing.assert_close(conv1(x), expected, atol=1e-5, rtol=1e-4)


def test_idle_biases_do_nothing_in_training():
    """A bias before batch norm is subtracted with the mean."""
    torch.manual_seed(0)
    module = create_model("bn_inception_caffe").train().stages["inception_3a"]
    x = torch.randn(2, 192, 6, 6)
    before = module(x)
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.uniform_(m.bias, -1, 1)
    torch.testing.assert_close(module(x), before, atol=1e-4, rtol=1e-4)


def test_no_dropout_no_response_normalisation_and_the_preprocessing():
    network, slim = create_on_meta("bn_inception"), create_on_meta("inception_v2_slim")
    assert network.head.drop.p == 0 and slim.head.drop.p == 0.2
    assert not any(isinstance(m, nn.LocalResponseNorm) for m in network.modules())
    assert network.mean == pytest.approx((128 / 255, 117 / 255, 104 / 255)) and slim.mean == slim.std == (0.5, 0.5, 0.5)
    assert network.auxiliary is None
