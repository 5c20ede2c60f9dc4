"""Residual attention networks against Fig. 2, Table 2, Sections 3.1, 3.2 and 4.1, and a count by hand."""

import itertools
import math

import pytest
import torch
from torch import nn

from convarium import describe
from convarium.blocks import conv_bn
from convarium.facts import all_facts
from convarium.networks import create_on_meta
from convarium.networks.residual_attention import (
    AttentionModule,
    Hourglass,
    channel_attention,
    mixed_attention,
    naive_learning,
    preact_conv,
    preact_unit,
    residual_attention_cifar,
    residual_learning,
    resnext_unit,
    spatial_attention,
)

NAMES = ["attention56", "attention92", "attentionnext56", "attention92_cifar"]


def layers_on_the_trunk(network):
    """Convolutions on the longest way past the masks, and the classifier."""
    beside = (".mask.", "shortcut")
    convs = [name for name, m in network.named_modules() if isinstance(m, nn.Conv2d)]
    return sum(not any(part in name for part in beside) for name in convs) + 1


@pytest.mark.parametrize("name", NAMES)
def test_the_name_is_the_number_of_trunk_layers(name):
    depth = 56 if "56" in name else 92
    assert layers_on_the_trunk(create_on_meta(name)) == depth


@pytest.mark.parametrize(("modules", "depth"), [(1, 56), (2, 92), (3, 128), (4, 164), (6, 236)])
def test_trunk_layers_of_m_modules_per_stage(modules, depth):
    """Section 4.1: 36 m + 20."""
    with torch.device("meta"):
        network = residual_attention_cifar((modules,) * 3)
    assert layers_on_the_trunk(network) == depth == 36 * modules + 20


def test_attention_452():
    """Section 4.2: p = 2, t = 4, r = 3 and six modules per stage."""
    with torch.device("meta"):
        assert layers_on_the_trunk(residual_attention_cifar((6, 6, 6), ptr=(2, 4, 3))) == 452


@pytest.mark.parametrize("name", NAMES[:3])
def test_every_mask_of_table_2_ends_at_7_pixels(name):
    network, lowest = create_on_meta(name).eval(), []
    for module in network.modules():
        if isinstance(module, Hourglass) and module.inner is None:
            module.down.register_forward_hook(lambda _m, _x, y: lowest.append(tuple(y.shape[2:])))
    network(torch.empty(1, 3, 224, 224, device="meta"))
    assert set(lowest) == {(7, 7)} and len(lowest) == sum("Attention" in stage for stage in network.stages)


def test_share_of_resnet_152():
    """Section 4.3: 52 % of its parameters and 56 % of its operations."""
    ours, other = (all_facts()[name].counts for name in ("attention56", "resnet152"))
    assert math.floor(100 * ours.params / other.params) == 52 and round(100 * ours.macs / other.macs) == 56


# -- a count by hand ------------------------------------------------------------------------------------------------


def unit_params(chans):
    width = chans // 4
    return chans * width + 9 * width * width + width * chans + 2 * (chans + width + width)


def module_params(chans, poolings, p=1, t=2, r=1):
    """Units of the trunk, of the mask's way down and up, of its skips; two 1x1 with their norms."""
    units = 2 * p + t + 2 * r * poolings + max(0, poolings - 1)
    return units * unit_params(chans) + 2 * (chans * chans + 2 * chans)


def projecting_params(before, after):
    width = after // 4
    norms = 2 * (before + width + width)
    return before * width + 9 * width * width + width * after + before * after + norms


def cifar_params(modules, poolings):
    ways = projecting_params(16, 64) + projecting_params(64, 128) + projecting_params(128, 256)
    each = sum(module_params(chans, n) for chans, n in zip((64, 128, 256), poolings, strict=True))
    return 3 * 16 * 9 + ways + modules * each + 3 * unit_params(256) + 2 * 256 + 256 * 10 + 10


def test_the_hand_count_of_attention_92_for_cifar():
    network = create_on_meta("attention92_cifar")
    facts = all_facts()["attention92_cifar"].counts
    assert sum(p.numel() for p in network.parameters()) == cifar_params(2, (2, 2, 1)) == facts.params == 1_932_442

    def unit_macs(chans):
        return chans * (chans // 4) * 2 + 9 * (chans // 4) ** 2

    def module_macs(chans, side, poolings):
        """Trunk and 1x1s at full size; at each size below, the units down, up and on the skip of the next pooling."""
        macs = side * side * (4 * unit_macs(chans) + 2 * chans * chans)
        for level in range(1, poolings + 1):
            macs += (side >> level) ** 2 * unit_macs(chans) * (3 if level < poolings else 2)
        return macs

    macs = 32 * 32 * (27 * 16 + 16 * 16 + 9 * 16 * 16 + 16 * 64 + 16 * 64)  # conv1 and the first projecting unit
    macs += 32 * 32 * 64 * 32 + 16 * 16 * (9 * 32 * 32 + 32 * 128 + 64 * 128)
    macs += 16 * 16 * 128 * 64 + 8 * 8 * (9 * 64 * 64 + 64 * 256 + 128 * 256)
    macs += 2 * (module_macs(64, 32, 2) + module_macs(128, 16, 2) + module_macs(256, 8, 1))
    macs += 8 * 8 * 3 * unit_macs(256) + 2560
    assert macs == facts.macs


def test_the_poolings_of_the_cifar_masks_are_the_only_ones_with_the_printed_parameters():
    """Table 6: 1.9M for two modules per stage, 5.1M for six."""
    printed = [
        poolings
        for poolings in itertools.product(range(1, 5), range(1, 4), range(1, 3))
        if f"{cifar_params(2, poolings):.1e}" == "1.9e+06" and f"{cifar_params(6, poolings):.1e}" == "5.1e+06"
    ]
    assert printed == [(2, 2, 1)]


# -- masks ----------------------------------------------------------------------------------------------------------


def test_mixed_channel_and_spatial_attention_by_hand():
    torch.manual_seed(0)
    scores = torch.randn(2, 5, 4, 3, dtype=torch.double)
    mixed, channel, spatial = (f(scores) for f in (mixed_attention, channel_attention, spatial_attention))
    for n, c, i, j in itertools.product(range(2), range(5), range(4), range(3)):
        score = scores[n, c, i, j].item()
        assert mixed[n, c, i, j].item() == pytest.approx(1 / (1 + math.exp(-score)))
        norm = math.sqrt(sum(s * s for s in scores[n, :, i, j].tolist()))
        assert channel[n, c, i, j].item() == pytest.approx(score / norm)
        places = scores[n, c].flatten().tolist()
        mean = sum(places) / 12
        std = math.sqrt(sum((s - mean) ** 2 for s in places) / 12)
        assert spatial[n, c, i, j].item() == pytest.approx(1 / (1 + math.exp(-(score - mean) / std)), abs=1e-4)


def module_of(normalise, learning, poolings=1):
    torch.manual_seed(0)
    gates = dict(attention=None, conv=preact_conv, act=nn.ReLU)
    units = lambda n: nn.Sequential(*(preact_unit(8, 8, 1, **gates) for _ in range(n)))  # noqa: E731
    scores = nn.Sequential(preact_conv(8, 8, 1), preact_conv(8, 8, 1))
    return AttentionModule(units, (1, 2, 1), poolings, scores, normalise, learning).eval()


@pytest.mark.parametrize("normalise", [mixed_attention, channel_attention, spatial_attention])
@pytest.mark.parametrize(("learning", "own"), [(residual_learning, 1), (naive_learning, 0)])
def test_a_module_is_its_trunk_times_its_mask(normalise, learning, own):
    module, x = module_of(normalise, learning), torch.randn(2, 8, 6, 6)
    y = module.pre(x)
    mask = normalise(module.mask(y))
    torch.testing.assert_close(module(x), module.post((own + mask) * module.trunk(y)))


def test_a_mask_of_zeros_leaves_the_trunk_alone_in_residual_learning_and_nothing_in_naive_learning():
    """Section 3.1: with M near 0, H is near the trunk's own features."""
    x = torch.randn(1, 8, 6, 6)
    module = module_of(torch.zeros_like, residual_learning)
    assert torch.equal(module(x), module.post(module.trunk(module.pre(x))))
    module = module_of(torch.zeros_like, naive_learning)
    assert torch.equal(module(x), module.post(torch.zeros_like(x)))


@pytest.mark.long
def test_every_kind_of_mask_is_counted_and_one_that_sees_the_whole_image_is_a_gate():
    kinds = (mixed_attention, channel_attention, spatial_attention)
    described = [describe(create_on_meta("attention92_cifar", normalise=kind)) for kind in kinds]
    assert [each.not_counted for each in described] == [{}, {}, {}]
    mixed, channel, spatial = (each.receptive_field_px for each in described)
    # conv1, then the 3x3 of the trunk's units: pre_res_1 and 8 more, 1 + 8 of stride 2, 1 + 8 and 3 last of stride 4.
    assert spatial == 3 + 2 * 9 + 2 * (1 + 2 * 8) + 2 * (2 + 4 * 8) + 2 * 4 * 3 < mixed == channel


@pytest.mark.parametrize("sides", [(8, 12), (7, 9), (2, 3)])
def test_the_hourglass_enlarges_as_caffes_interp_layer(sides):
    """Corner pixels on corner pixels: place i of n reads at i (m - 1) / (n - 1) of m."""
    hourglass, x = Hourglass(lambda n: nn.Identity(), 1, 1), torch.randn(1, 1, *sides)
    low = nn.functional.max_pool2d(x, 3, 2, ceil_mode=True)[0, 0]
    out = hourglass(x)[0, 0]
    ratios = [(m - 1) / (n - 1) for m, n in zip(low.shape, sides, strict=True)]
    for i, j in itertools.product(*map(range, sides)):
        (top, down), (left, right) = ((int(a * r), a * r - int(a * r)) for a, r in zip((i, j), ratios, strict=True))
        below, beside = min(top + 1, low.shape[0] - 1), min(left + 1, low.shape[1] - 1)
        upper = (1 - right) * low[top, left] + right * low[top, beside]
        lower = (1 - right) * low[below, left] + right * low[below, beside]
        torch.testing.assert_close(out[i, j], (1 - down) * upper + down * lower, atol=1e-5, rtol=1e-4)


def test_the_order_of_an_hourglass_with_two_poolings():
    """Fig. 2 and the authors' definition: down, down and one more unit, up, plus the skip of the first level, one unit,
    up."""
    made = itertools.count(1)

    class Step(nn.Module):
        def __init__(self):
            super().__init__()
            self.number = next(made)

        def forward(self, x):
            return x * 10 + self.number

    hourglass = Hourglass(lambda n: Step(), 2, 1)
    down, skip, up = hourglass.down.units.number, hourglass.skip.number, hourglass.up.number
    inner_down, inner_up = hourglass.inner.down.units.number, hourglass.inner.up.number
    step = lambda x, number: x * 10 + number  # noqa: E731
    low = step(1, down)
    joined = step(low, skip) + step(step(low, inner_down), inner_up)
    torch.testing.assert_close(hourglass(torch.ones(1, 1, 8, 8)), torch.full((1, 1, 8, 8), float(step(joined, up))))
    assert inner_down > down and hourglass.inner.inner is None


# -- units ----------------------------------------------------------------------------------------------------------


def uneven(module):
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):  # so that no norm is the identity
            nn.init.uniform_(norm.running_mean, -1, 1)
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.uniform_(norm.bias, -1, 1)
    return module.eval()


def test_a_projecting_unit_activates_once_for_both_ways():
    torch.manual_seed(0)
    unit = uneven(preact_unit(8, 16, 2, None, preact_conv, nn.ReLU))
    norm, _, residual = unit
    x = torch.randn(2, 8, 6, 6)
    y = norm(x).clamp(min=0)
    first, second, third = residual.branch
    branch = second.conv(second.norm(first(y)).clamp(min=0))
    expected = residual.shortcut(y) + third.conv(third.norm(branch).clamp(min=0))
    torch.testing.assert_close(unit(x), expected)
    assert second.conv.stride == residual.shortcut.stride == (2, 2)


def test_the_identity_of_a_preactivation_unit_is_not_activated():
    unit, x = preact_unit(8, 8, 1, None, preact_conv, nn.ReLU).eval(), -torch.rand(1, 8, 4, 4)
    nn.init.zeros_(unit.branch[-1].conv.weight)
    assert torch.equal(unit(x), x)


def test_resnext_units_have_32_groups_and_activate_after_the_addition():
    network = create_on_meta("attentionnext56")
    grouped = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert all(conv.groups == 32 for conv in grouped) and len(grouped) == 6 + 3 * 4 + (8 + 5 + 2)
    unit, x = uneven(resnext_unit(64, 64, 1, None, conv_bn, nn.ReLU)), torch.randn(1, 64, 4, 4)
    y = x
    for layer in unit.branch[:-1]:
        y = layer.norm(layer.conv(y)).clamp(min=0)
    torch.testing.assert_close(unit(x), (x + unit.branch[-1].norm(unit.branch[-1].conv(y))).clamp(min=0))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_follows_the_second_1x1_of_a_mask_and_no_convolution_has_a_bias(name):
    network = create_on_meta(name)
    scores = [module.mask.scores for module in network.modules() if isinstance(module, AttentionModule)]
    for each in scores:
        leaves = [m for m in each.modules() if not list(m.children())]
        assert isinstance(leaves[-1], nn.Conv2d)
        assert [type(m) for m in leaves].count(nn.Conv2d) == 2
        assert [type(m) for m in leaves].count(nn.BatchNorm2d) == (1 if "next" in name else 2)
    assert all(m.bias is None for m in network.modules() if isinstance(m, nn.Conv2d))
