"""Pre-activation ResNet against Figs. 4 and 5, Tables 2 and 4 and the appendix."""

import functools

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from convarium import create_model
from convarium.networks import create_on_meta
from convarium.networks.preact_resnet import (
    BASIC,
    BOTTLENECK,
    bn_after_addition,
    full_preactivation,
    original,
    preact_bottleneck_cifar,
    preact_conv,
    preact_resnet,
    preact_resnet_cifar,
    relu_before_addition,
    relu_only_preactivation,
)
from convarium.networks.resnet import projection, zero_pad

FIG_4 = {
    "a": original,
    "b": bn_after_addition,
    "c": relu_before_addition,
    "d": relu_only_preactivation,
    "e": full_preactivation,
}


def on_meta(builder, *arguments, **more):
    with torch.device("meta"):
        return builder(*arguments, **more)


def count(network):
    return sum(p.numel() for p in network.parameters())


def macs(network):
    with FlopCounterMode(display=False) as counter:
        network.eval()(torch.empty(1, *network.input_size, device="meta"))
    return counter.get_total_flops() // 2


def convolutions(network):
    return [m for name, m in network.named_modules() if isinstance(m, nn.Conv2d) and "shortcut" not in name]


def unnormalise(module):
    """Statistics and scales at random, so that no norm is the identity."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_mean, -1, 1)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.uniform_(norm.bias, -1, 1)
    return module.eval()


# -- the table and the depths -----------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [50, 101, 152, 200])
def test_imagenet_sizes_are_resnets(depth):
    network = create_on_meta(f"preact_resnet{depth}")
    assert network.stage_shapes() == create_on_meta("resnet50").stage_shapes()
    assert len(convolutions(network)) + 1 == depth


@pytest.mark.parametrize("depth", [110, 164, 1001])
def test_cifar_depth_and_units(depth):
    """Section 4.1: 333 units in ResNet-1001, 111 on each map size; the classifier is the last layer."""
    network = create_on_meta(f"preact_resnet{depth}_cifar")
    units = {110: 18, 164: 18, 1001: 111}[depth]
    assert [len(stage) for name, stage in network.stages.items() if name != "conv1"] == [units] * 3
    assert len(convolutions(network)) + 1 == depth


def test_the_bottleneck_has_about_the_parameters_of_the_unit_it_replaces():
    """Appendix: [3x3, 16] x 2 of ResNet-110 becomes [1x1, 16; 3x3, 16; 1x1, 64] in ResNet-164."""
    two, three = (create_on_meta(f"preact_resnet{d}_cifar").stages.stage1[1].branch for d in (110, 164))
    shapes = lambda branch: [tuple(layer.conv.weight.shape[:3]) for layer in branch]  # noqa: E731
    assert shapes(two) == [(16, 16, 3)] * 2 and shapes(three) == [(16, 64, 1), (16, 16, 3), (64, 16, 1)]
    weights = [sum(layer.conv.weight.numel() for layer in branch) for branch in (two, three)]
    assert weights == [2 * 9 * 16 * 16, 64 * 16 + 9 * 16 * 16 + 16 * 64]
    assert count(create_on_meta("preact_resnet164_cifar")) / count(create_on_meta("preact_resnet110_cifar")) > 0.98


def test_the_printed_10_2_million_leave_out_the_norms():
    network = create_on_meta("preact_resnet1001_cifar")
    norms = sum(p.numel() for m in network.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())
    assert f"{count(network) - norms:.2e}" == "1.02e+07" and f"{count(network):.2e}" == "1.03e+07"


@pytest.mark.parametrize(("depth", "saved"), [(50, 231_211_008), (101, 231_211_008), (152, 231_211_008)])
@pytest.mark.long
def test_the_stride_in_the_3x3_costs_what_it_costs_resnet_v1_5(depth, saved):
    network = on_meta(preact_resnet, depth)
    branch = network.stages.conv3_x[0].residual.branch
    assert [layer.conv.stride[0] for layer in branch] == [1, 2, 1]
    in_the_first = on_meta(preact_resnet, depth, convolutions=BOTTLENECK)
    assert macs(network) - macs(in_the_first) == saved
    assert count(network) == count(in_the_first)


# -- Fig. 4 -----------------------------------------------------------------------------------------------------


def by_hand(form, unit, x):
    """A unit whose shape does not change, as its drawing in Fig. 4 reads from top to bottom."""
    weights = [m for m in unit.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in unit.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(weights) == len(norms) == 2
    (w1, w2), (n1, n2), relu = weights, norms, lambda y: y.clamp(min=0)
    return {
        "a": lambda: relu(x + n2(w2(relu(n1(w1(x)))))),
        "b": lambda: relu(n2(x + w2(relu(n1(w1(x)))))),
        "c": lambda: x + relu(n2(w2(relu(n1(w1(x)))))),
        "d": lambda: x + n2(w2(relu(n1(w1(relu(x)))))),
        "e": lambda: x + w2(relu(n2(w1(relu(n1(x)))))),
    }[form]()


@pytest.mark.parametrize("form", FIG_4)
def test_each_order_of_fig_4_by_hand(form):
    torch.manual_seed(0)
    unit = unnormalise(FIG_4[form](8, 8, 1, convolutions=BASIC, shortcut=projection))
    x = torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(unit(x), by_hand(form, unit, x))


def test_the_five_orders_have_the_same_parts_and_are_five_functions():
    """The caption of Fig. 4: the same components, only the orders differ."""
    x = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    outputs, parts = [], set()
    for make in FIG_4.values():
        torch.manual_seed(0)
        unit = make(8, 8, 1, convolutions=BOTTLENECK[1:2] * 2, shortcut=projection)
        parts.add(tuple(sorted(type(m).__name__ for m in unit.modules() if not list(m.children()))))
        outputs.append(unit(x))
    assert len({tuple(p for p in each if p != "Identity") for each in parts}) == 1
    assert not any(torch.allclose(a, b) for i, a in enumerate(outputs) for b in outputs[:i])


@pytest.mark.parametrize("form", FIG_4)
@pytest.mark.parametrize("builder", [preact_resnet_cifar, preact_bottleneck_cifar])
def test_a_small_net_of_each_order(form, builder):
    """It has a finite gradient everywhere, and the classifier reads a rectified map, but in c with projections."""
    torch.manual_seed(0)
    network = builder(20, unit=FIG_4[form], num_classes=3)
    features = network.forward_features(torch.randn(4, 3, 8, 8))
    network.forward_head(features).logsumexp(1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert features.shape == (4, network.num_features, 2, 2)
    assert (form == "c" and builder is preact_bottleneck_cifar) or (features >= 0).all()


@pytest.mark.parametrize("name", ["resnet20_cifar", "resnet50_v1_5"])
def test_the_first_order_is_resnet(name):
    """Fig. 4a with ResNet's weights computes what ResNet computes, with zero padding and with projections."""
    torch.manual_seed(0)
    old = unnormalise(create_model(name, num_classes=3))
    builder, depth, side = (preact_resnet_cifar, 20, 8) if "cifar" in name else (preact_resnet, 50, 32)
    new = builder(depth, unit=original, num_classes=3).eval()
    for kind in (nn.Conv2d, nn.BatchNorm2d, nn.Linear):
        ours, theirs = ([m for m in network.modules() if isinstance(m, kind)] for network in (old, new))
        for source, target in zip(ours, theirs, strict=True):
            target.load_state_dict(source.state_dict())
    x = torch.randn(1, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(new(x), old(x))


def test_relu_before_addition_only_adds():
    """Section 4.1: with Fig. 4c the forward signal is monotonically increasing; with Fig. 4e it is not."""
    torch.manual_seed(0)
    x = torch.rand(1, 8, 6, 6)
    for make, rises in [(relu_before_addition, True), (full_preactivation, False)]:
        assert (make(8, 8, 1, convolutions=BASIC, shortcut=zero_pad)(x) >= x).all() == rises


# -- the appendix -----------------------------------------------------------------------------------------------


def relu_norm(piece, x):
    return piece.norm(x).clamp(min=0)


def test_the_first_activation_is_before_the_ways_part_and_one_more_follows_the_last_addition():
    torch.manual_seed(0)
    network = unnormalise(preact_resnet_cifar(20))
    x = torch.randn(2, 3, 8, 8)
    conv1, first, last = network.stages.conv1, network.stages.stage1[0], network.stages.stage3[-1]
    y = relu_norm(conv1.preactivation, conv1.convolution.conv(x))
    torch.testing.assert_close(conv1(x), y)
    torch.testing.assert_close(first(y), y + first.branch[1].conv(relu_norm(first.branch[1], first.branch[0].conv(y))))
    z = torch.randn(2, 64, 4, 4)
    torch.testing.assert_close(last(z), relu_norm(last.act, z + last.branch(z)))
    between = [unit for stage in ("stage1", "stage2", "stage3") for unit in network.stages[stage]][1:-1]
    assert all(list(unit.branch[0]._modules) == ["norm", "act", "conv"] for unit in between)
    assert all(isinstance(unit.act, nn.Identity) for unit in between)


def test_a_projection_starts_from_the_activated_map_and_zero_padding_from_the_map():
    torch.manual_seed(0)
    x = torch.randn(2, 64, 8, 8)
    unit = unnormalise(preact_bottleneck_cifar(20)).stages.stage2[0]
    y = relu_norm(unit.preactivation, x)
    one, two, three = unit.residual.branch
    expected = three.conv(relu_norm(three, two.conv(relu_norm(two, one.conv(y)))))
    assert [layer.conv.stride[0] for layer in (one, two, three)] == [2, 1, 1]
    torch.testing.assert_close(unit(x), expected + unit.residual.shortcut.conv(y))
    unit = unnormalise(preact_resnet_cifar(20)).stages.stage2[0]
    out = unit(x[:, :16]) - unit.branch(x[:, :16])
    torch.testing.assert_close(out[:, :16], x[:, :16, ::2, ::2])
    assert out[:, 16:].abs().max() < 1e-5


def test_the_signal_at_any_unit_is_that_of_an_earlier_one_and_the_sum_of_the_branches_between():
    """Eq. 4; so a stage whose branches are silent is the identity, negative values included (not so in Fig. 4a)."""
    torch.manual_seed(0)
    stage = unnormalise(preact_resnet_cifar(20)).stages.stage2[1:]
    added = []
    for unit in stage:
        unit.branch.register_forward_hook(lambda _module, _args, out: added.append(out))
    x = torch.randn(2, 32, 4, 4)
    torch.testing.assert_close(stage(x), x + sum(added))
    assert len(added) == len(stage) == 2
    first_order = preact_resnet_cifar(20, unit=original).eval().stages.stage2[1:]
    for units in (stage, first_order):
        for unit in units:
            nn.init.zeros_([m for m in unit.branch.modules() if isinstance(m, nn.Conv2d)][-1].weight)
    assert torch.equal(stage(x), x)
    assert torch.equal(first_order(x), x.clamp(min=0))


# -- the slot ---------------------------------------------------------------------------------------------------


def test_preact_conv_is_conv_bn_turned_round():
    layer = preact_conv(4, 8, 3, 2, groups=2)
    assert list(layer._modules) == ["norm", "act", "conv"] and layer.norm.num_features == 4 and layer.conv.bias is None
    assert layer(torch.randn(1, 4, 7, 7)).shape == (1, 8, 4, 4)
    assert preact_conv(4, 8, (1, 7)).conv.padding == (0, 3)
    assert preact_conv(4, 8, 3, padding=0).conv.padding == (0, 0)
    assert list(preact_conv(4, None)._modules) == ["norm", "act"]
    assert list(preact_conv(4, None, norm=None, act=nn.Tanh)._modules) == ["act"]


def test_another_norm_and_activation_reach_every_place():
    groups = functools.partial(preact_conv, norm=functools.partial(nn.GroupNorm, 4))
    network = create_on_meta("preact_resnet164_cifar", conv=groups, act=nn.Tanh)
    kinds = [type(m) for m in network.modules()]
    assert kinds.count(nn.GroupNorm) == kinds.count(nn.Tanh) == 3 * 18 * 3 + 1
    assert nn.BatchNorm2d not in kinds and nn.ReLU not in kinds


def test_he_initialisation_has_variance_two_over_fan_out():
    torch.manual_seed(0)
    stage = preact_bottleneck_cifar(56).stages.stage3
    for k, width in ((0, 64), (1, 64), (2, 256)):
        weights = torch.cat([unit.branch[k].conv.weight.flatten() for unit in stage[1:]])
        assert weights.var().item() == pytest.approx(2 / ((9 if k == 1 else 1) * width), rel=0.05)


def test_timms_pooling_before_the_first_norm_is_the_same_until_a_gain_is_negative():
    torch.manual_seed(0)
    paper, timm = create_model("preact_resnet50").eval(), create_model("preact_resnet50_timm").eval()
    convolution, preactivation = paper.stages.conv1
    timm.stages.conv1.load_state_dict(convolution.state_dict())
    x = torch.randn(1, 3, 64, 64)
    first = lambda network: network.stages.pool1(network.stages.conv1(x))  # noqa: E731
    for gain, same in ((0.5, True), (-0.5, False)):
        nn.init.constant_(preactivation.norm.weight, gain)
        timm.stages.pool1.preactivation.load_state_dict(preactivation.state_dict())
        assert torch.allclose(first(paper), first(timm)) == same


def test_keras_form_halves_each_map_in_the_last_unit_of_a_stage():
    network = create_model("preact_resnet50_keras")
    sides = {}
    x = torch.zeros(1, 64, 56, 56)
    for name in ("conv2_x", "conv3_x", "conv4_x", "conv5_x"):
        for unit in network.stages[name]:
            x = unit.eval()(x)
            sides.setdefault(name, []).append(x.shape[-1])
    assert sides == {
        "conv2_x": [56, 56, 28],
        "conv3_x": [28, 28, 28, 14],
        "conv4_x": [14, 14, 14, 14, 14, 7],
        "conv5_x": [7, 7, 7],
    }
    assert isinstance(network.stages["conv2_x"][2].shortcut, torch.nn.MaxPool2d)
