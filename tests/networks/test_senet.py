"""SENet against Fig. 3, Tables 1 and 8, the overhead formula and the appendix on SENet-154."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convarium import create_model
from convarium.blocks import conv_bn
from convarium.networks import create_on_meta
from convarium.networks.senet import SqueezeExcite, halved, projection

WIDTH = {18: 1, 34: 1, 50: 4, 101: 4, 152: 4}
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def count(network):
    return sum(p.numel() for p in network.parameters())


def gates(network):
    return [module for module in network.modules() if isinstance(module, SqueezeExcite)]


# -- the gate ---------------------------------------------------------------------------------------------------


def test_squeeze_excite_by_hand():
    gate, x = SqueezeExcite(32, reduction=4), torch.randn(2, 32, 5, 5)
    mean = x.mean((2, 3))
    hidden = (mean @ gate.fc1.weight.T + gate.fc1.bias).clamp(min=0)
    scale = 1 / (1 + (-(hidden @ gate.fc2.weight.T + gate.fc2.bias)).exp())
    assert gate.fc1.out_features == 8
    torch.testing.assert_close(gate(x), x * scale[:, :, None, None])


@pytest.mark.parametrize("name", ["se_resnet18", "se_resnet50", "se_resnext50_32x4d"])
def test_a_block_by_hand(name, uneven_norms):
    """Fig. 3: the gate is the end of the branch; then the addition; then ReLU."""
    torch.manual_seed(0)
    block = uneven_norms(create_model(name).eval().stages.conv3_x[0])
    normed = lambda layer, x: layer.norm(layer.conv(x))  # noqa: E731
    x = torch.randn(2, block.shortcut.conv.in_channels, 8, 8)
    y = x
    for layer in block.branch[:-1]:
        y = normed(layer, y).clamp(min=0)
    y = normed(block.branch[-1], y)
    gate = block.attention
    hidden = (y.mean((2, 3)) @ gate.fc1.weight.T + gate.fc1.bias).clamp(min=0)
    y = y * torch.sigmoid(hidden @ gate.fc2.weight.T + gate.fc2.bias)[:, :, None, None]
    torch.testing.assert_close(block(x), (normed(block.shortcut, x) + y).clamp(min=0))


# -- SE-ResNet and SE-ResNeXt -----------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", WIDTH)
def test_se_adds_the_papers_sum_and_the_biases(depth):
    """SENet, eq. 5: 2/r * sum of N_s C_s^2 over the stages; the released networks add C + C/r biases per gate."""
    channels = [64 * 2**i * WIDTH[depth] for i in range(4)]
    weights = sum(2 * n * c * (c // 16) for n, c in zip(BLOCKS[depth], channels, strict=True))
    biases = sum(n * (c + c // 16) for n, c in zip(BLOCKS[depth], channels, strict=True))
    assert count(create_on_meta(f"se_resnet{depth}")) - count(create_on_meta(f"resnet{depth}")) == weights + biases
    if depth == 50:
        assert weights == 2_514_944


def test_se_resnet_is_resnet_with_the_slot_filled():
    torch.manual_seed(0)
    named = create_model("se_resnet20_cifar")
    torch.manual_seed(0)
    slotted = create_model("resnet20_cifar", attention="se")
    assert {k: v.shape for k, v in named.state_dict().items()} == {k: v.shape for k, v in slotted.state_dict().items()}
    assert all(torch.equal(a, b) for a, b in zip(named.parameters(), slotted.parameters(), strict=True))


@pytest.mark.parametrize("depth", [50, 101])
def test_se_adds_to_resnext_what_it_adds_to_resnet(depth):
    """Eq. 5 knows only the channels that blocks give, and these are ResNet's."""
    added = [
        count(create_on_meta(f"se_{base}")) - count(create_on_meta(base))
        for base in (f"resnet{depth}", f"resnext{depth}_32x4d")
    ]
    assert added[0] == added[1]


def test_table_1_on_the_right():
    """SE-ResNeXt-50 (32x4d): conv 1x1, 128; conv 3x3, 128, C = 32; conv 1x1, 256; fc [16, 256], and doubled after."""
    network = create_on_meta("se_resnext50_32x4d")
    for i, blocks in enumerate(BLOCKS[50]):
        stage = network.stages[f"conv{i + 2}_x"]
        assert len(stage) == blocks
        for block in stage:
            one, three, last = (layer.conv for layer in block.branch)
            assert (one.out_channels, three.out_channels, last.out_channels) == (128 << i, 128 << i, 256 << i)
            assert (one.groups, three.groups, last.groups) == (1, 32, 1)
            assert (block.attention.fc1.out_features, block.attention.fc2.out_features) == (16 << i, 256 << i)


# -- SENet-154: the appendix, a to d, and the released definition ------------------------------------------------


def test_senet154_stacks_as_resnet152():
    network = create_on_meta("senet154")
    assert tuple(len(network.stages[f"conv{i}_x"]) for i in (2, 3, 4, 5)) == BLOCKS[152] and len(gates(network)) == 50
    assert all(gate.fc2.out_features // gate.fc1.out_features == 16 for gate in gates(network))
    assert network.stages.conv1(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 128, 112, 112)
    assert network.stage_shapes()["pool1"] == (128, 56, 56)
    on_path = [m for name, m in network.named_modules() if isinstance(m, nn.Conv2d) and "shortcut" not in name]
    assert len(on_path) + 1 == 154  # three for the first convolution of ResNet-152


def test_a_the_first_1x1_is_half_as_wide():
    network = create_on_meta("senet154")
    for i in range(4):
        for block in network.stages[f"conv{i + 2}_x"]:
            one, three, last = (layer.conv for layer in block.branch)
            widths = (one.out_channels, three.in_channels // three.groups, three.out_channels, last.out_channels)
            assert widths == (128 << i, 2 << i, 256 << i, 256 << i) and three.groups == 64


def test_b_three_3x3_for_the_7x7():
    convolutions = [layer.conv for layer in create_on_meta("senet154").stages.conv1]
    assert [(c.out_channels, c.kernel_size[0], c.stride[0]) for c in convolutions] == [
        (64, 3, 2),
        (64, 3, 1),
        (128, 3, 1),
    ]


def test_c_3x3_projections_where_the_map_is_halved():
    network = create_on_meta("senet154")
    first = [network.stages[f"conv{i}_x"][0].shortcut.conv for i in (2, 3, 4, 5)]
    assert [(c.kernel_size[0], c.stride[0]) for c in first] == [(1, 1), (3, 2), (3, 2), (3, 2)]
    rest = [block.shortcut for i in (2, 3, 4, 5) for block in network.stages[f"conv{i}_x"][1:]]
    assert all(isinstance(each, nn.Identity) for each in rest)


def test_d_dropout_of_a_fifth_before_the_classifier():
    network = create_on_meta("senet154")
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.2] == [network.head.drop.p]


def test_the_first_pooling_hangs_over_the_edge_as_caffes():
    pool, x = create_on_meta("senet154").stages.pool1, torch.randn(1, 2, 112, 112)
    padded = F.pad(x, (0, 1, 0, 1), value=float("-inf"))
    assert torch.equal(pool(x), F.max_pool2d(padded, 3, 2)) and pool(x).shape == (1, 2, 56, 56)


def test_halving_saves_half_of_the_first_1x1_and_of_the_3x3():
    """Multiply-adds of a block of conv2_x beside ResNeXt's 64x4d: 256 -> 256 -> 256 -> 256, in 64 groups."""
    with torch.device("meta"):
        weights = [layer.conv.weight.numel() for layer in halved(256, 64, 1, conv_bn)]
    assert weights == [256 * 256 // 2, 9 * 256 * 256 // 64 // 2, 256 * 256]
    assert isinstance(projection(256, 256, 1, conv_bn), nn.Identity)


# -- the forms of public weights ----------------------------------------------------------------------------------


def test_released_files_pool_as_caffe_and_their_bases_with_padding():
    x = torch.randn(1, 2, 112, 112)
    hanging = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=float("-inf")), 3, 2)
    padded = F.max_pool2d(x, 3, 2, padding=1)
    for name in ("se_resnet50_caffe", "se_resnext50_32x4d_caffe", "se_resnet18_timm"):
        assert torch.equal(create_on_meta(name).stages.pool1(x), hanging)
    for name in ("se_resnet50", "se_resnet50_v1_5", "se_resnext50_32x4d", "senet154_gluon"):
        assert torch.equal(create_on_meta(name).stages.pool1(x), padded)


def test_timms_legacy_block_is_activated_before_the_gate():
    """relu(x + gate(relu(branch))), against relu(x + gate(branch)) of Fig. 3."""
    torch.manual_seed(0)
    legacy = create_model("se_resnet18_timm").eval().stages.conv2_x[0]
    block = create_model("se_resnet18").eval().stages.conv2_x[0]
    block.load_state_dict(legacy.state_dict())
    x = torch.randn(1, 64, 8, 8)
    branch = block.branch(x)
    assert branch.min() < 0
    torch.testing.assert_close(legacy(x), (x + block.attention(branch.clamp(min=0))).clamp(min=0))
    torch.testing.assert_close(block(x), (x + block.attention(branch)).clamp(min=0))


def test_v1_5_has_its_stride_in_the_3x3():
    strides = lambda name: [layer.conv.stride[0] for layer in create_on_meta(name).stages.conv3_x[0].branch]  # noqa: E731
    assert strides("se_resnet50") == [2, 1, 1] and strides("se_resnet50_v1_5") == [1, 2, 1]
