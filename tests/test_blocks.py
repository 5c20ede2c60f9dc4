"""The shared blocks against their definitions, written out."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convarium import blocks
from convarium.attention import HardMask, ResidualScale, SpatialMask


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


# -- pooling: each convention, window by window -------------------------------------------------------------------


def windows_caffe(side, kernel, stride):
    count = -(-(side - kernel) // stride) + 1
    return [range(i * stride, min(i * stride + kernel, side)) for i in range(count)]


def windows_torch(side, kernel, stride):
    pad = kernel // 2
    count = (side + 2 * pad - kernel) // stride + 1
    return [range(max(0, i * stride - pad), min(i * stride - pad + kernel, side)) for i in range(count)]


def windows_same(side, kernel, stride):
    count = -(-side // stride)
    before = max(0, (count - 1) * stride + kernel - side) // 2
    return [range(max(0, i * stride - before), min(i * stride - before + kernel, side)) for i in range(count)]


POOLS = [
    (blocks.max_pool_caffe, windows_caffe, torch.amax),
    (blocks.avg_pool_caffe, windows_caffe, torch.mean),
    (blocks.max_pool_torch, windows_torch, torch.amax),
    (blocks.max_pool_same, windows_same, torch.amax),
]


@pytest.mark.parametrize("side", [6, 7, 8, 13, 14])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2), (3, 1)])
@pytest.mark.parametrize(("pool", "windows", "reduce"), POOLS, ids=lambda p: getattr(p, "__name__", ""))
def test_a_pool_looks_through_the_windows_of_its_convention(pool, windows, reduce, kernel, stride, side):
    x = random(2, 3, side, side + 1)
    rows, columns = windows(side, kernel, stride), windows(side + 1, kernel, stride)
    expected = torch.stack(
        [
            torch.stack([reduce(x[:, :, r.start : r.stop, c.start : c.stop], dim=(2, 3)) for c in columns], dim=2)
            for r in rows
        ],
        dim=2,
    )
    torch.testing.assert_close(pool(kernel, stride)(x), expected)


def test_the_three_conventions_agree_on_the_size_and_not_on_the_pixels():
    x = random(1, 1, 112, 112)
    maps = [pool(3, 2)(x) for pool in (blocks.max_pool_caffe, blocks.max_pool_torch, blocks.max_pool_same)]
    assert {tuple(m.shape) for m in maps} == {(1, 1, 56, 56)}
    assert not torch.equal(maps[0], maps[1])
    assert torch.equal(maps[0], maps[2])  # on an even side nothing is padded in front by either
    odd = x[:, :, :111, :111]
    assert not torch.equal(blocks.max_pool_caffe(3, 2)(odd), blocks.max_pool_same(3, 2)(odd)[..., :55, :55])


def test_a_mean_with_and_without_the_padding():
    x = torch.ones(1, 1, 4, 4)
    assert torch.equal(blocks.avg_pool_same(3)(x), x)
    corner = blocks.avg_pool_same(3, count_padding=True)(x)[0, 0, 0, 0]
    assert corner.item() == pytest.approx(4 / 9)


# -- convolutions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [((3, 3), 1, 1), ((5, 5), 2, 0), ((1, 7), 1, 3), ((1, 1), 3, 0)]
)
def test_im2col_is_convolution(kernel, stride, padding):
    x, weight, bias = random(2, 5, 13, 17), random(4, 5, *kernel), random(4)
    expected = F.conv2d(x, weight, bias, stride, padding)
    torch.testing.assert_close(blocks.im2col_conv2d(x, weight, bias, stride, padding), expected)
    unbiased = F.conv2d(x, weight, None, stride, padding)
    torch.testing.assert_close(blocks.im2col_conv2d(x, weight, stride=stride, padding=padding), unbiased)


def test_a_convolution_keeps_the_size_unless_told_to_be_valid():
    x = random(1, 3, 9, 9)
    assert blocks.conv_bn(3, 4, (1, 7))(x).shape == blocks.conv_bn(3, 4, (7, 1))(x).shape == (1, 4, 9, 9)
    assert blocks.conv_bn(3, 4, 3, padding=0)(x).shape == (1, 4, 7, 7)
    assert blocks.conv_bn(3, 4, 3, 2)(x).shape == (1, 4, 5, 5)


def test_a_bias_stands_only_where_no_norm_brings_one():
    assert blocks.conv_bn(3, 4, 3).conv.bias is None
    assert blocks.conv_act(3, 4, 3).conv.bias is not None and not hasattr(blocks.conv_act(3, 4, 3), "norm")
    assert blocks.conv_bn(3, 4, 3, bias=True).conv.bias is not None
    assert [name for name, _ in blocks.conv_bn(3, 4, 3, act=None).named_children()] == ["conv", "norm"]


def test_a_separable_convolution_costs_what_the_papers_say():
    """MobileNet, Section 3.1: the ratio of weights is 1/N + 1/k^2; 16 to 32 channels, 3x3: 656 against 4,608."""
    bare = dict(depthwise=blocks.partial(blocks.conv_act, bias=False, act=None))
    layer = blocks.separable(16, 32, 3, pointwise=bare["depthwise"], **bare)
    assert sum(p.numel() for p in layer.parameters()) == 656
    assert pytest.approx(1 / 32 + 1 / 9) == 656 / 4608
    x = random(1, 16, 6, 6)
    kernel = torch.einsum("oc,cij->ocij", layer.pointwise.conv.weight[:, :, 0, 0], layer.depthwise.conv.weight[:, 0])
    torch.testing.assert_close(layer(x), F.conv2d(x, kernel, padding=1))


# -- normalisation, initialisation --------------------------------------------------------------------------------


def test_local_response_normalisation_by_its_formula():
    """Krizhevsky et al., Section 3.3, with alpha divided by n."""
    x, (n, alpha, beta, k) = random(2, 9, 4, 4), (5, 0.3, 0.75, 2.0)
    expected = torch.empty_like(x)
    for i in range(9):
        neighbours = x[:, max(0, i - n // 2) : min(9, i + n // 2 + 1)]
        expected[:, i] = x[:, i] / (k + alpha / n * neighbours.square().sum(1)) ** beta
    torch.testing.assert_close(blocks.lrn(n, alpha, beta, k)(x), expected)


@pytest.mark.parametrize(
    ("initialise", "variance"),
    [
        (blocks.he_normal, 2 / (9 * 128)),
        (blocks.glorot_uniform, 2 / (9 * (64 + 128))),
        (blocks.gaussian(0.01), 1e-4),
        (blocks.truncated_normal(0.1), 0.7737 * 1e-2),  # the variance of a unit normal cut at two deviations: 0.7737
    ],
)
def test_initialisations_have_their_variance(initialise, variance):
    torch.manual_seed(0)
    layer = nn.Conv2d(64, 128, 3)
    initialise(layer)
    assert layer.weight.var().item() == pytest.approx(variance, rel=0.02)
    assert abs(layer.weight.mean().item()) < 3e-4 and not layer.bias.any()


# -- attention ----------------------------------------------------------------------------------------------------


def test_a_spatial_mask_is_one_sigmoid_per_place():
    gate, x = SpatialMask(6), random(2, 6, 4, 4)
    score = torch.einsum("c,nchw->nhw", gate.score.weight[0, :, 0, 0], x) + gate.score.bias
    torch.testing.assert_close(gate(x), x / (1 + (-score).exp())[:, None])


def test_a_hard_mask_keeps_or_drops_each_place_and_learns_as_the_soft_one():
    torch.manual_seed(0)
    gate, x = HardMask(6), random(2, 6, 8, 8)
    gate.score.bias.data.zero_()
    mask = gate(x) / x
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(mask[:, 0], (gate.score(x)[:, 0] > 0).float())
    gate(x).square().sum().backward()
    straight = gate.score.weight.grad.clone()
    # d/dw of sum (m x)^2 with dm = d sigmoid: 2 m x^2 s (1 - s) dscore
    score = gate.score(x).detach()
    slope = torch.sigmoid(score) * (1 - torch.sigmoid(score))
    outer = (2 * mask * x.square()).sum(1, keepdim=True) * slope
    torch.testing.assert_close(straight[0, :, 0, 0], (outer * x).sum((0, 2, 3)), rtol=1e-4, atol=1e-4)


def test_a_residual_scale_is_a_constant_without_parameters():
    x = random(1, 2, 3, 3)
    assert torch.equal(ResidualScale(2, 0.1)(x), 0.1 * x) and not list(ResidualScale(2).parameters())


@pytest.mark.parametrize("kind", [SpatialMask, HardMask])
def test_a_gate_can_start_as_the_identity_and_still_learns(kind):
    gate, x = kind(5), random(2, 5, 4, 4)
    gate.start_as_identity()
    assert torch.equal(gate(x), x)
    gate(x).square().sum().backward()
    assert gate.score.weight.grad.abs().sum() > 0
