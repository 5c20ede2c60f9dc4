"""Inception-v2 and v3 against Table 1, Figs. 5, 6, 7 and 10, and Sections 4, 6 and 10."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convarium import create_model
from convarium.blocks import conv_bn
from convarium.networks import create_on_meta
from convarium.networks.inception_v3 import auxiliary_head
from convarium.training.auxiliary import WithAuxiliary


def conv_weights(module):
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Conv2d))


# -- hand counts: a convolution as (inputs, outputs, kernel positions) ------------------------------------------


def fig_5(chans, pool, second=9):
    """1x1 64; 1x1 48, ``second`` 64; 1x1 64, 3x3 96, 3x3 96; mean, 1x1."""
    return [
        (chans, 64, 1),
        (chans, 48, 1),
        (48, 64, second),
        (chans, 64, 1),
        (64, 96, 9),
        (96, 96, 9),
        (chans, pool, 1),
    ]


def fig_6(width):
    """1x1 192; 1x1, 1x7, 7x1 192; 1x1, 7x1, 1x7, 7x1, 1x7 192; mean, 1x1 192, all of 768."""
    single = [(768, width, 1), (width, width, 7), (width, 192, 7)]
    double = [(768, width, 1), *3 * [(width, width, 7)], (width, 192, 7)]
    return [(768, 192, 1), *single, *double, (768, 192, 1)]


def fig_7(chans):
    """1x1 320; 1x1 384, 1x3 and 3x1 384; 1x1 448, 3x3 384, 1x3 and 3x1 384; mean, 1x1 192."""
    split = 2 * [(384, 384, 3)]
    return [(chans, 320, 1), (chans, 384, 1), *split, (chans, 448, 1), (448, 384, 9), *split, (chans, 192, 1)]


def reduction(chans, *towers):
    """Towers of (outputs, kernel positions); the last convolution of each has stride 2."""
    inner, strided = [], []
    for tower in towers:
        inputs = chans
        for i, (outputs, positions) in enumerate(tower, start=1):
            (strided if i == len(tower) else inner).append((inputs, outputs, positions))
            inputs = outputs
    return inner, strided


def params(convs):
    """With batch norm's gain and shift."""
    return sum(i * o * k + 2 * o for i, o, k in convs)


def macs(convs, side):
    return side**2 * sum(i * o * k for i, o, k in convs)


V2_FIG_10 = [
    reduction(288, [(128, 1), (384, 9)], [(64, 1), (96, 9), (96, 9)]),
    reduction(768, [(192, 1), (320, 9)], [(192, 1), (192, 9), (192, 9)]),
]
V3_REDUCTIONS = [
    reduction(288, [(384, 9)], [(64, 1), (96, 9), (96, 9)]),
    reduction(768, [(192, 1), (320, 9)], [(192, 1), (192, 7), (192, 7), (192, 9)]),
]
BY_SIDE = {
    "inception_v2": {
        149: [(3, 32, 9)],
        147: [(32, 32, 9), (32, 64, 9)],
        71: [(64, 80, 9)],
        35: [(80, 192, 9), (192, 288, 9), *3 * fig_5(288, 64), *V2_FIG_10[0][0]],
        17: [*V2_FIG_10[0][1], *5 * fig_6(128), *V2_FIG_10[1][0]],
        8: [*V2_FIG_10[1][1], *fig_7(1280), *fig_7(2048)],
    },
    "inception_v3": {
        149: [(3, 32, 9)],
        147: [(32, 32, 9), (32, 64, 9)],
        73: [(64, 80, 1)],
        71: [(80, 192, 9)],
        35: [*fig_5(192, 32, 25), *fig_5(256, 64, 25), *fig_5(288, 64, 25), *V3_REDUCTIONS[0][0]],
        17: [*V3_REDUCTIONS[0][1], *fig_6(128), *2 * fig_6(160), *fig_6(192), *V3_REDUCTIONS[1][0]],
        8: [*V3_REDUCTIONS[1][1], *fig_7(1280), *fig_7(2048)],
    },
}


@pytest.mark.parametrize(
    ("name", "all_params", "all_macs"),
    [("inception_v2", 23_228_360, 5_599_877_728), ("inception_v3", 23_834_568, 5_713_216_096)],
)
def test_counts_by_hand(name, all_params, all_macs):
    convs = BY_SIDE[name]
    assert sum(map(params, convs.values())) + 2049 * 1000 == all_params
    assert sum(macs(each, side) for side, each in convs.items()) + 2048 * 1000 == all_macs
    assert conv_weights(create_on_meta(name).stages) == sum(i * o * k for each in convs.values() for i, o, k in each)


def test_the_plain_convolutions_of_table_1_leave_no_room_for_its_cost():
    """Table 3 says 3.8e9 for the whole network; six convolutions that Table 1 fixes have 1.63e9."""
    convs = BY_SIDE["inception_v2"]
    plain = [macs(convs[149], 149), macs(convs[147], 147), macs(convs[71], 71), macs(convs[35][:2], 35)]
    assert f"{sum(plain) / 1e9:.2f}" == "1.63"
    network = create_on_meta("inception_v2")
    stem = [stage for name, stage in network.stages.items() if name.startswith("conv")]
    assert sum(p.numel() for stage in stem for p in stage.parameters()) == 711_872


# -- Table 1 ----------------------------------------------------------------------------------------------------


def test_table_1_output_sizes():
    """The table prints input sizes: each is what the row above gives, once a reduction is between the groups."""
    shapes = create_on_meta("inception_v2").stage_shapes()
    inputs = [(3, 299, 299), *shapes.values()]
    printed = {
        "conv1": (3, 299), "conv2": (32, 149), "conv3": (32, 147), "pool": (64, 147), "conv4": (64, 73),
        "conv5": (80, 71), "conv6": (192, 35), "inception_fig5": (288, 35), "inception_fig6": (768, 17),
        "inception_fig7": (1280, 8),
    }  # fmt: skip
    found = {name: (chans, side) for name, (chans, side, _) in zip(shapes, inputs, strict=False)}
    assert {name: found[name] for name in printed} == printed
    assert inputs[-1] == (2048, 8, 8)


def test_numbers_of_modules():
    """Section 6: three, five and two."""
    stages = create_on_meta("inception_v2").stages
    assert [len(stages[name]) for name in ("inception_fig5", "inception_fig6", "inception_fig7")] == [3, 5, 2]
    longest = [3 * 3, 3, 5 * 5, 3, 2 * 3]  # the facts' departures name their sum
    assert 6 + sum(longest) + 1 == 53


def test_stages_of_the_release():
    shapes = create_on_meta("inception_v3").stage_shapes()
    assert shapes["Mixed_5b"] == (256, 35, 35) and shapes["Mixed_5d"] == (288, 35, 35)
    assert {shapes[f"Mixed_6{x}"] for x in "abcde"} == {(768, 17, 17)}
    assert shapes["Mixed_7a"] == (1280, 8, 8) and shapes["Mixed_7c"] == (2048, 8, 8)


# -- modules by hand --------------------------------------------------------------------------------------------


def layer(part, y, **options):
    """Convolution, batch norm with eps 0.001 and its first statistics, rectifier."""
    return (F.conv2d(y, part.conv.weight, padding=part.conv.padding, **options) * 1.001**-0.5).clamp(min=0)


def test_fig_6_by_hand():
    torch.manual_seed(0)
    module = create_model("inception_v3").eval().stages["Mixed_6b"]
    x, b = torch.randn(1, 768, 9, 9), module.branches
    single, double, pooled = b["branch_1"], b["branch_2"], b["branch_3"]
    assert [each.conv.kernel_size for each in single] == [(1, 1), (1, 7), (7, 1)]
    assert [each.conv.kernel_size for each in double] == [(1, 1), (7, 1), (1, 7), (7, 1), (1, 7)]
    inside = F.avg_pool2d(torch.ones(1, 1, 9, 9), 3, 1, 1)  # the share of each window that is not padding
    expected = [
        layer(b["branch_0"][0], x),
        layer(single[2], layer(single[1], layer(single[0], x))),
        layer(double[4], layer(double[3], layer(double[2], layer(double[1], layer(double[0], x))))),
        layer(pooled[1], F.avg_pool2d(x, 3, 1, 1) / inside),
    ]
    torch.testing.assert_close(module(x), torch.cat(expected, 1), atol=1e-3, rtol=1e-4)


def test_fig_7_by_hand():
    """1x3 and 3x1 beside each other, on one map."""
    torch.manual_seed(0)
    module = create_model("inception_v3").eval().stages["Mixed_7b"]
    x = torch.randn(1, 1280, 4, 4)
    branch = module.branches["branch_2"]
    y = layer(branch[1], layer(branch[0], x))
    expected = [layer(each, y) for each in branch[2].branches.values()]
    assert [each.conv.kernel_size for each in branch[2].branches.values()] == [(1, 3), (3, 1)]
    torch.testing.assert_close(module(x)[:, 320 + 768 : 320 + 2 * 768], torch.cat(expected, 1), atol=1e-2, rtol=1e-4)


@pytest.mark.parametrize(("name", "stage"), [("inception_v2", "reduction1"), ("inception_v3", "Mixed_6a")])
@pytest.mark.long
def test_a_reduction_keeps_the_maximum_beside_the_convolutions(name, stage):
    """Fig. 10: the last 288 of 768 maps are the input's, pooled; the first 384 a 3x3 of stride 2."""
    torch.manual_seed(0)
    module = create_model(name).eval().stages[stage]
    x = torch.randn(1, 288, 9, 9)
    y = module(x)
    assert y.shape == (1, 768, 4, 4) and torch.equal(y[:, -288:], F.max_pool2d(x, 3, 2))
    first = module.branches["branch_0"]
    assert len(first) == (2 if name == "inception_v2" else 1)
    reduced = layer(first[0], x) if len(first) == 2 else x
    torch.testing.assert_close(y[:, :384], layer(first[-1], reduced, stride=2), atol=1e-3, rtol=1e-4)


def test_fig_5_is_the_module_of_v3_with_two_3x3_for_the_5x5():
    """Section 3.1: a 5x5 has 25/9 times the weights of a 3x3."""
    v2, v3 = (
        create_on_meta("inception_v2").stages["inception_fig5"][0],
        create_on_meta("inception_v3").stages["Mixed_5d"],
    )
    fives, threes = v3.branches["branch_1"][1].conv, v2.branches["branch_1"][1].conv
    assert fives.weight.numel() * 9 == threes.weight.numel() * 25
    assert conv_weights(v3) - conv_weights(v2) == (25 - 9) * 48 * 64


# -- the auxiliary head, dropout, initialisation ----------------------------------------------------------------


def test_v3s_auxiliary_head():
    """Section 10: batch norm in its dense layer too. 5x5/3 mean to 5x5, 1x1 128, 5x5 768, classifier."""
    model = WithAuxiliary(create_on_meta("inception_v3"), 299)
    assert list(model.heads) == ["Mixed_6e"] and model.weight == 0.3
    head = params([(768, 128, 1), (128, 768, 25)]) + 769 * 1000
    assert sum(p.numel() for p in model.heads.parameters()) == head == 3_326_696
    assert sum(p.numel() for p in model.parameters()) == 27_161_264


def test_v2s_auxiliary_head_has_no_norm_in_its_dense_layer():
    """On the last 17x17 map."""
    model = WithAuxiliary(create_on_meta("inception_v2"), 299)
    head = model.heads["inception_fig6"]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in head.modules()) == 1
    assert sum(p.numel() for p in head.parameters()) == params([(768, 128, 1)]) + 128 * 768 * 25 + 768 + 769 * 1000
    tanh = WithAuxiliary(create_on_meta("inception_v2", act=nn.Tanh), 299)
    assert not any(isinstance(m, nn.ReLU) for m in tanh.modules())


@pytest.mark.parametrize("side", [1, 3, 4, 5, 7, 8, 17])
def test_the_auxiliary_head_fits_any_map(side):
    with torch.device("meta"):
        head = auxiliary_head(10, (768, side, side), conv_bn, conv_bn)
    assert head(torch.empty(2, 768, side, side, device="meta")).shape == (2, 10)


def test_the_auxiliary_head_learns_and_passes_gradients_on():
    torch.manual_seed(0)
    model = WithAuxiliary(create_model("inception_v3", num_classes=3), 75).train()
    logits = model(torch.randn(2, 3, 75, 75))
    F.cross_entropy(logits[1], torch.tensor([0, 1])).backward()
    assert all(p.grad.isfinite().all() for p in model.heads.parameters())
    assert model.network.stages["Conv2d_1a_3x3"].conv.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.network.stages["Mixed_7a"].parameters())


def test_dropout_initialisation_and_norm():
    torch.manual_seed(0)
    network = create_model("inception_v3")
    assert network.head.drop.p == 0.2
    assert {m.eps for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}
    weight = network.stages["Mixed_7c"].branches["branch_2"][1].conv.weight
    assert weight.abs().max() <= 0.2 and weight.std().item() == pytest.approx(0.088, rel=0.01)  # 0.1, cut at two
    assert network.head.classifier.weight.abs().max() <= 0.002
    dense = network.auxiliary.heads(10, {"Mixed_6e": (768, 17, 17)})["Mixed_6e"][2].conv.weight
    assert dense.shape[2:] == (5, 5) and dense.abs().max() <= 0.02
