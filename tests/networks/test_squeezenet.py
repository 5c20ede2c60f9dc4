"""SqueezeNet against Table 1, the metaparameters of Section 5, Fig. 1, and the operations the authors print."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from convarium.networks import create_model, create_on_meta
from convarium.networks.squeezenet import TABLE_1, VERSION_1_1

# Table 1: output size (side, channels) and parameters before pruning.
ROWS = {
    "conv1": (111, 96, 14_208),
    "pool1": (55, 96, 0),
    "fire2": (55, 128, 11_920),
    "fire3": (55, 128, 12_432),
    "fire4": (55, 256, 45_344),
    "pool4": (27, 256, 0),
    "fire5": (27, 256, 49_440),
    "fire6": (27, 384, 104_880),
    "fire7": (27, 384, 111_024),
    "fire8": (27, 512, 188_992),
    "pool8": (13, 512, 0),
    "fire9": (13, 512, 197_184),
}
CONV10 = 513_000


def macs(network, side):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.empty(1, 3, side, side, device="meta"))
    return counter.get_total_flops() // 2


def fires(table):
    return [row for row in table.values() if row is not None]


def test_table_1_row_by_row():
    """The table's sizes follow from 227x227 pixels, though it prints 224x224."""
    network = create_on_meta("squeezenet1_0")
    assert network.stage_shapes((3, 227, 227)) == {name: (chans, side, side) for name, (side, chans, _) in ROWS.items()}
    found = {name: sum(p.numel() for p in stage.parameters()) for name, stage in network.stages.items()}
    assert found == {name: params for name, (_, _, params) in ROWS.items()}
    assert sum(p.numel() for p in network.head.parameters()) == CONV10
    assert sum(found.values()) + CONV10 == 1_248_424


def test_table_1_follows_from_the_metaparameters():
    """Section 5.1: e_i = 128 + 128 floor(i / 2), half of it 3x3, an eighth of it squeezed."""
    expand = [128 + 128 * (i // 2) for i in range(8)]
    assert fires(TABLE_1) == [(e // 8, e // 2, e // 2) for e in expand]


def test_version_1_1_has_the_same_fire_modules_and_earlier_pools():
    assert fires(VERSION_1_1) == fires(TABLE_1)
    before = lambda table: [list(table)[i - 1] for i, row in enumerate(table.values()) if row is None][1:]  # noqa: E731
    assert before(TABLE_1) == ["fire4", "fire8"] and before(VERSION_1_1) == ["fire3", "fire5"]
    first, second = (create_on_meta(name).stages.conv1.conv for name in ("squeezenet1_0", "squeezenet1_1"))
    assert (first.out_channels, first.kernel_size) == (96, (7, 7))
    assert (second.out_channels, second.kernel_size) == (64, (3, 3))


def test_fifty_times_fewer_parameters_than_alexnet():
    count = lambda name: sum(p.numel() for p in create_on_meta(name).parameters())  # noqa: E731
    assert round(count("alexnet") / count("squeezenet1_0"), -1) == 50


def test_operations_the_authors_print():
    """1.72 GFLOPS per image: two per multiply-add, at 227 pixels, with conv10 padded by 1 as in their file of 1.0.
    0.72 for 1.1 is not reproduced at either size."""
    network = create_on_meta("squeezenet1_0")
    assert macs(network, 227) == 832_667_936
    network.head.classifier.conv.padding = (1, 1)
    assert macs(network, 227) == 861_339_936 and round(2 * 861_339_936 / 1e9, 2) == 1.72
    later = create_on_meta("squeezenet1_1")
    assert macs(later, 227) == 387_747_520
    assert [round(2 * macs(later, side) / 1e9, 2) for side in (224, 227)] == [0.70, 0.78]


@pytest.fixture(scope="module")
def built():
    torch.manual_seed(0)
    return create_model("squeezenet1_1").eval()


def rectified(layer, x, padding=0):
    return F.conv2d(x, layer.conv.weight, layer.conv.bias, padding=padding).clamp(min=0)


def test_a_fire_module_by_hand(built):
    """Fig. 1: rectified 1x1, then rectified 1x1 and 3x3 of it, put together."""
    fire, x = built.stages.fire2, torch.randn(2, 64, 6, 6)
    squeezed = rectified(fire.squeeze, x)
    ones, threes = fire.expand.branches["1x1"], fire.expand.branches["3x3"]
    assert squeezed.shape[1] == 16
    expected = torch.cat([rectified(ones, squeezed), rectified(threes, squeezed, 1)], 1)
    torch.testing.assert_close(fire(x), expected)


def test_the_head_by_hand(built):
    """conv10 after dropout, rectified, then the mean of each map; no dense layer."""
    x = torch.randn(2, 512, 13, 13)
    conv = built.head.classifier.conv
    maps = F.conv2d(x, conv.weight, conv.bias).clamp(min=0)
    torch.testing.assert_close(built.forward_head(x), maps.mean((2, 3)))
    assert built.head.drop.p == 0.5
    assert not any(isinstance(m, nn.Linear) for m in built.modules())


def test_dropout_stands_before_conv10_only():
    for name in ("squeezenet1_0", "squeezenet1_1"):
        network = create_on_meta(name)
        assert [path for path, m in network.named_modules() if isinstance(m, nn.Dropout)] == ["head.drop"]


def test_initialisation(built):
    """Uniform with variance 1 / fan-in in the stages, normal with deviation 0.01 in conv10."""
    for layer in (m for m in built.stages.modules() if isinstance(m, nn.Conv2d)):
        fan_in = layer.weight[0].numel()
        assert layer.weight.var().item() == pytest.approx(1 / fan_in, rel=0.08)
        assert layer.weight.abs().max().item() <= (3 / fan_in) ** 0.5 and not layer.bias.any()
    conv10 = built.head.classifier.conv
    assert conv10.weight.std().item() == pytest.approx(0.01, rel=0.02) and not conv10.bias.any()
    assert conv10.weight.abs().max().item() > 3 * 0.01


def test_the_gate_stands_after_the_concatenation():
    fire = create_on_meta("squeezenet1_1", attention="se").stages.fire2
    assert fire.expand.attention.fc1.in_features == 128
