"""GoogLeNet against Table 1, Figs. 2 and 3, and Section 5."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convarium import create_model
from convarium.blocks import conv_act
from convarium.networks import create_on_meta
from convarium.networks.googlenet import auxiliary_head
from convarium.training.auxiliary import WithAuxiliary

# Table 1 as printed: output size and channels; #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj; K of parameters,
# M of operations.
TABLE_1 = {
    "inception_3a": (28, 256, (64, 96, 128, 16, 32, 32), 159, 128),
    "inception_3b": (28, 480, (128, 128, 192, 32, 96, 64), 380, 304),
    "inception_4a": (14, 512, (192, 96, 208, 16, 48, 64), 364, 73),
    "inception_4b": (14, 512, (160, 112, 224, 24, 64, 64), 437, 88),
    "inception_4c": (14, 512, (128, 128, 256, 24, 64, 64), 463, 100),
    "inception_4d": (14, 528, (112, 144, 288, 32, 64, 64), 580, 119),
    "inception_4e": (14, 832, (256, 160, 320, 32, 128, 128), 840, 170),
    "inception_5a": (7, 832, (256, 160, 320, 32, 128, 128), 1072, 54),
    "inception_5b": (7, 1024, (384, 192, 384, 48, 128, 128), 1388, 71),
}
PARAMS_THAT_DO_NOT_FOLLOW = {f"inception_{name}" for name in ("4a", "4c", "4d", "4e", "5a", "5b")}
OPERATIONS_THAT_DO_NOT_FOLLOW = {"inception_5a"}


def module_weights(chans, row, five=5):
    """Weights of a module of Fig. 2b, without biases."""
    ones, reduce3, threes, reduce5, fives, projection = row
    return chans * (ones + reduce3 + reduce5 + projection) + 9 * reduce3 * threes + five**2 * reduce5 * fives


def naive_weights(chans, row):
    """Weights of a module of Fig. 2a."""
    ones, _, threes, _, fives, _ = row
    return chans * (ones + 9 * threes + 25 * fives)


def rows_with_inputs(naive=False):
    """Of each module: name, input channels, side, filter numbers."""
    chans = 192
    for name, (side, out, row, _, _) in TABLE_1.items():
        yield name, chans, side, row
        chans = row[0] + row[2] + row[4] + chans if naive else out


def convolution_weights(module):
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear))


def test_table_1_output_sizes():
    expected = {
        "conv1": (64, 112, 112), "pool1": (64, 56, 56), "conv2_reduce": (64, 56, 56), "conv2": (192, 56, 56),
        "pool2": (192, 28, 28), "pool3": (480, 14, 14), "pool4": (832, 7, 7),
    }  # fmt: skip
    expected |= {name: (chans, side, side) for name, (side, chans, *_) in TABLE_1.items()}
    assert create_on_meta("googlenet").stage_shapes() == expected
    assert all(row[0] + row[2] + row[4] + row[5] == chans for _, chans, row, _, _ in TABLE_1.values())


def test_table_1_parameters_and_operations():
    """Weights without biases, K = 1024, M = 10 ** 6: what follows from the printed filter numbers is as printed, give
    or take one in the last digit, but for the rows known not to be."""
    network, wrong_params, wrong_operations = create_on_meta("googlenet"), set(), set()
    for name, chans, side, row in rows_with_inputs():
        weights = module_weights(chans, row)
        assert convolution_weights(network.stages[name]) == weights
        _, _, _, params_k, operations_m = TABLE_1[name]
        if abs(weights / 1024 - params_k) > 1:
            wrong_params.add(name)
        if abs(weights * side**2 / 1e6 - operations_m) > 1:
            wrong_operations.add(name)
    assert wrong_params == PARAMS_THAT_DO_NOT_FOLLOW and wrong_operations == OPERATIONS_THAT_DO_NOT_FOLLOW
    conv2 = convolution_weights(network.stages["conv2_reduce"]) + convolution_weights(network.stages["conv2"])
    assert conv2 == 64 * 64 + 9 * 64 * 192 == 112 * 1024
    assert round(conv2 * 56**2 / 1e6) == 360
    assert convolution_weights(network.head) == 1000 * 1024


def test_conv1_is_plain_where_the_table_counts_a_separable_one():
    assert convolution_weights(create_on_meta("googlenet").stages["conv1"]) == 7 * 7 * 3 * 64 == 9_408
    separable = 7 * 7 * 3 * 8 + 24 * 64
    assert f"{separable / 1e3:.1f}" == "2.7" and round(separable * 112**2 / 1e6) == 34


def test_the_network_counts_as_its_parts():
    plain = 9_408 + 64 + 64 * 64 + 64 + 9 * 64 * 192 + 192 + 1_025_000
    biases = {name: sum(row) for name, _, _, row in rows_with_inputs()}
    modules = {name: module_weights(chans, row) for name, chans, _, row in rows_with_inputs()}
    assert plain + sum(modules.values()) + sum(biases.values()) == 6_998_552
    network = create_on_meta("googlenet")
    for name, weights in modules.items():
        assert sum(p.numel() for p in network.stages[name].parameters()) == weights + biases[name]


# -- the naive form ---------------------------------------------------------------------------------------------


def test_naive_channels_add_up():
    shapes = create_on_meta("googlenet_naive").stage_shapes()
    assert [shapes[name][0] for name in TABLE_1] == [416, 832, 1280, 1728, 2176, 2640, 3344, 4048, 4944]


def test_naive_counts_by_hand():
    rows = list(rows_with_inputs(naive=True))
    weights = [naive_weights(chans, row) for _, chans, _, row in rows]
    assert sum(weights) == 92_451_840
    biases = sum(row[0] + row[2] + row[4] for *_, row in rows)
    stem = 9_408 + 64 + 64 * 64 + 64 + 9 * 64 * 192 + 192
    assert stem + sum(weights) + biases + (4944 + 1) * 1000 == 97_526_008
    macs = 9_408 * 112**2 + (64 * 64 + 9 * 64 * 192) * 56**2 + 4944 * 1000
    macs += sum(each * side**2 for each, (_, _, side, _) in zip(weights, rows, strict=True))
    assert macs == 12_568_061_056
    network = create_on_meta("googlenet_naive")
    assert [convolution_weights(network.stages[name]) for name, *_ in rows] == weights


def test_a_naive_module_passes_its_pooled_input_on():
    torch.manual_seed(0)
    module = create_model("googlenet_naive").stages["inception_3a"]
    x = torch.randn(1, 192, 6, 6)
    assert torch.equal(module(x)[:, -192:], F.max_pool2d(x, 3, 1, 1))


# -- how it computes --------------------------------------------------------------------------------------------


def test_a_module_by_hand():
    """Fig. 2b: four branches on one map, a rectifier after every convolution, put together in the table's order."""
    torch.manual_seed(0)
    module = create_model("googlenet").stages["inception_3a"]
    x = torch.randn(2, 192, 7, 7)
    b = module.branches

    def relu_conv(layer, y, padding=0):
        return F.conv2d(y, layer.conv.weight, layer.conv.bias, padding=padding).clamp(min=0)

    expected = [
        relu_conv(b["1x1"], x),
        relu_conv(b["3x3"].conv, relu_conv(b["3x3"].reduce, x), 1),
        relu_conv(b["5x5"].conv, relu_conv(b["5x5"].reduce, x), 2),
        relu_conv(b["pool"].project, F.max_pool2d(x, 3, 1, 1)),
    ]
    assert [y.shape[1] for y in expected] == [64, 128, 32, 32]
    torch.testing.assert_close(module(x), torch.cat(expected, 1))


def test_local_response_normalisation_stands_after_pool1_and_conv2():
    """Fig. 3: pooling, normalisation, two convolutions, normalisation, pooling."""
    network = create_on_meta("googlenet")
    kinds = (nn.LocalResponseNorm, nn.MaxPool2d)
    names = [name for name, m in network.stages.named_modules() if isinstance(m, kinds) and "inception" not in name]
    assert names == ["pool1.pool", "pool1.norm", "conv2.norm", "pool2", "pool3", "pool4"]


def test_pooling_hangs_over_the_edge_as_caffes():
    """The last window of pool1 sees the last row and column, the first begins in the first."""
    pool = create_model("googlenet").stages["pool1"].pool
    x = torch.zeros(1, 1, 112, 112)
    x[..., -1, -1], x[..., 2, 2] = 1, 2
    y = pool(x)
    assert y.shape == (1, 1, 56, 56) and y[..., -1, -1] == 1 and y[..., 0, 0] == 2


def test_twenty_two_layers_deep():
    """Section 5: 22 layers with parameters, on the longest path."""
    network = create_on_meta("googlenet")
    depth = 0
    for stage in network.stages.values():
        branches = getattr(stage, "branches", {"": stage}).values()
        depth += max(sum(isinstance(m, nn.Conv2d) for m in branch.modules()) for branch in branches)
    assert depth + 1 == 22


def test_dropout_and_initialisation():
    network = create_on_meta("googlenet")
    assert network.head.drop.p == 0.4 and create_on_meta("googlenet_tv").head.drop.p == 0.2
    heads = WithAuxiliary(network, 224).heads
    assert [m.p for m in heads.modules() if isinstance(m, nn.Dropout)] == [0.7, 0.7]
    torch.manual_seed(0)
    layer = create_model("googlenet").stages["inception_5b"].branches["3x3"].conv.conv
    assert layer.weight.var().item() == pytest.approx(1 / (9 * 192), rel=0.02) and (layer.bias == 0.2).all()


# -- auxiliary heads --------------------------------------------------------------------------------------------


def test_auxiliary_heads_are_section_5s():
    """5x5/3 mean: 4x4x512 on 4a, 4x4x528 on 4d; 128 1x1; 1024 units; 1000 classes."""
    network = create_on_meta("googlenet")
    model = WithAuxiliary(network, 224)
    assert list(model.heads) == ["inception_4a", "inception_4d"] and model.weight == 0.3
    for head, chans in zip(model.heads.values(), (512, 528), strict=True):
        maps = head.pool(torch.empty(1, chans, 14, 14, device="meta"))
        assert maps.shape == (1, chans, 4, 4)
        expected = (chans + 1) * 128 + (16 * 128 + 1) * 1024 + 1025 * 1000
        assert sum(p.numel() for p in head.parameters()) == expected
    assert sum(p.numel() for p in model.parameters()) == 13_378_280


@pytest.mark.parametrize("side", [2, 3, 4, 5, 7, 8])
def test_auxiliary_heads_fit_smaller_maps(side):
    with torch.device("meta"):
        head = auxiliary_head(10, (512, side, side), conv_act, nn.ReLU)
    assert head(torch.empty(2, 512, side, side, device="meta")).shape == (2, 10)


# -- torchvision's form -----------------------------------------------------------------------------------------


def test_torchvisions_form():
    """3x3 in the place of 5x5, two numbers per channel of batch norm in the place of a bias, a 2x2 pool4."""
    network = create_on_meta("googlenet_tv")
    modules = sum(module_weights(chans, row, five=3) for _, chans, _, row in rows_with_inputs())
    channels = 64 + 64 + 192 + sum(sum(row) for *_, row in rows_with_inputs())
    assert 9_408 + 64 * 64 + 9 * 64 * 192 + modules + 2 * channels + 1_025_000 == 6_624_904
    assert network.stages["pool4"].kernel_size == 2 and network.stages["pool3"].kernel_size == 3
    assert {m.eps for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}
    assert not any(isinstance(m, nn.LocalResponseNorm) for m in network.modules())
    assert all(m.bias is None for m in network.modules() if isinstance(m, nn.Conv2d))
