"""Inception-v4 and the Inception-ResNets against Figs. 3 to 20, Table 1 and Section 3 of arXiv 1602.07261."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convarium import create_model
from convarium.attention import ResidualScale
from convarium.blocks import Residual
from convarium.facts import find_facts
from convarium.networks import create_on_meta, inception_v4
from convarium.networks.inception_v4 import Slots, conv_bn_tensorflow
from convarium.networks.senet import SqueezeExcite

NAMES = ["inception_v4", "inception_resnet_v1", "inception_resnet_v2", "inception_resnet_v2_slim"]
RESIDUAL = {
    "inception_resnet_v1": (5, 10, 5),
    "inception_resnet_v2": (5, 10, 5),
    "inception_resnet_v2_slim": (10, 20, 10),
}


@pytest.fixture(scope="module")
def nets():
    return {name: create_on_meta(name).eval() for name in NAMES}


def count(module):
    return sum(p.numel() for p in module.parameters())


def residuals(network):
    return [[m for m in stage.modules() if isinstance(m, Residual)] for stage in network.stages.values()]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        # Fig. 3, beside the boxes, and Fig. 9
        ("inception_v4", [(64, 147), (160, 73), (192, 71), (384, 35), (1024, 17), (1536, 8)]),
        # Figs. 14 and 15
        ("inception_resnet_v1", [(64, 147), (64, 73), (80, 73), (192, 71), (256, 35), (896, 17), (1792, 8)]),
        # Figs. 3 and 15 with Table 1 and Fig. 18
        ("inception_resnet_v2", [(64, 147), (160, 73), (192, 71), (384, 35), (1152, 17), (2144, 8)]),
        ("inception_resnet_v2_slim", [(192, 71), (192, 35), (320, 35), (1088, 17), (2080, 8), (1536, 8)]),
    ],
)
def test_sizes_of_the_figures(nets, name, sizes):
    shapes = [shape[:2] for shape in nets[name].stage_shapes().values()]
    assert shapes[:2] == [(32, 149), (32, 147)]
    changes = [after for before, after in pairwise(shapes) if before != after]
    assert changes[-len(sizes) :] == sizes


def test_numbers_of_modules(nets):
    """Figs. 9 and 15."""
    assert [len(nets["inception_v4"].stages[f"inception_{letter}"]) for letter in "abc"] == [4, 7, 3]
    for name, numbers in RESIDUAL.items():
        assert tuple(len(found) for found in residuals(nets[name]) if found) == numbers


@pytest.mark.parametrize(
    ("name", "stage", "widths"),
    [
        ("inception_v4", "reduction_a", (192, 224, 256, 384)),
        ("inception_resnet_v1", "reduction_a", (192, 192, 256, 384)),
        ("inception_resnet_v2", "reduction_a", (256, 256, 384, 384)),
        ("inception_resnet_v2_slim", "mixed_6a", (256, 256, 384, 384)),
    ],
)
def test_table_1(nets, name, stage, widths):
    """k, l and m in the long tower, n in the short one; the third is the pooling, which keeps its channels."""
    short, long, pool = nets[name].stages[stage].branches.values()
    assert (*(layer.conv.out_channels for layer in long), short.conv.out_channels) == widths
    assert isinstance(pool, nn.MaxPool2d) and pool.padding == 0


def test_towers_with_asymmetric_kernels(nets):
    """In the order of TF-Slim, whose weights need it."""
    kernels = lambda branch: [m.kernel_size for m in branch.modules() if isinstance(m, nn.Conv2d)]  # noqa: E731
    b = nets["inception_v4"].stages.inception_b[0].branches
    assert kernels(b["branch_1"]) == [(1, 1), (1, 7), (7, 1)]
    assert kernels(b["branch_2"]) == [(1, 1), (7, 1), (1, 7), (7, 1), (1, 7)]
    c = nets["inception_v4"].stages.inception_c[0].branches
    assert kernels(c["branch_2"]) == [(1, 1), (3, 1), (1, 3), (1, 3), (3, 1)]


def test_the_two_ends_of_a_tower_of_fig_6_read_the_same_map():
    module, chans = inception_v4.inception_c(8, Slots(conv_bn_tensorflow, nn.ReLU, None))
    branch, x = module.eval().branches["branch_1"], torch.randn(1, 8, 6, 6)
    y = branch[0](x)
    assert chans == 256 + 512 + 512 + 256
    assert torch.equal(branch(x), torch.cat([end(y) for end in branch[1].branches.values()], dim=1))


@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh])
def test_a_residual_block_by_hand(act):
    """Figs. 17 and 20 with SENet's gate: act(x + 0.1 * gate(linear(towers))), the linear layer with a bias and neither
    norm nor activation."""
    torch.manual_seed(0)
    conv = lambda *args, **kwargs: conv_bn_tensorflow(*args, **{"act": act, **kwargs})  # noqa: E731
    block, chans = inception_v4.inception_resnet_b_v2(24, Slots(conv, act, SqueezeExcite))
    block.eval()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0, 0.1)
            nn.init.uniform_(module.bias, -1, 1)
    convs = [m for m in block.branch.towers.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in block.branch.towers.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [(m.out_channels, m.kernel_size) for m in convs] == [
        (192, (1, 1)), (128, (1, 1)), (160, (1, 7)), (192, (7, 1)),
    ]  # fmt: skip

    def layer(i, y, padding=(0, 0)):
        y = F.conv2d(y, convs[i].weight, padding=padding)
        return act()(
            F.batch_norm(y, norms[i].running_mean, norms[i].running_var, norms[i].weight, norms[i].bias, eps=1e-3)
        )

    x = torch.randn(2, 24, 9, 9)
    towers = torch.cat([layer(0, x), layer(3, layer(2, layer(1, x), (0, 3)), (3, 0))], dim=1)
    linear, gate = block.branch.linear, block.attention.attention
    y = torch.einsum("oi,nihw->nohw", linear.weight[:, :, 0, 0], towers) + linear.bias[:, None, None]
    hidden = (y.mean((2, 3)) @ gate.fc1.weight.T + gate.fc1.bias).clamp(min=0)
    y = y * torch.sigmoid(hidden @ gate.fc2.weight.T + gate.fc2.bias)[:, :, None, None]
    assert chans == 24
    torch.testing.assert_close(block(x), act()(x + 0.1 * y), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", RESIDUAL)
def test_scales_and_linear_layers(nets, name):
    """Section 3.3: between 0.1 and 0.3; only the last block of TF-Slim's form is not scaled, and has no ReLU."""
    blocks = [block for stage in residuals(nets[name]) for block in stage]
    scales = [block.attention.scale.scale for block in blocks]
    a, b, c = RESIDUAL[name]
    slim = name.endswith("_slim")
    assert scales == a * [0.17] + b * [0.1] + (c - slim) * [0.2] + slim * [1.0]
    ends = [type(block.act) for block in blocks]
    assert ends == (len(blocks) - slim) * [nn.ReLU] + slim * [nn.Identity]
    for block in blocks:
        assert isinstance(block.branch.linear, nn.Conv2d) and block.branch.linear.bias is not None
        assert isinstance(block.attention.scale, ResidualScale)


def test_costs_that_section_3_2_compares(nets):
    """Inception-ResNet-v1 at roughly the cost of Inception-v3 (5.713e9 multiply-adds as torchvision has it). That v2
    matches Inception-v4 holds for TF-Slim's form; the network of the figures takes three quarters."""
    macs = {name: find_facts(name).counts.macs for name in NAMES}
    assert 1.05 < macs["inception_resnet_v1"] / 5.713e9 < 1.15
    assert 1.05 < macs["inception_resnet_v2_slim"] / macs["inception_v4"] < 1.10
    assert 0.74 < macs["inception_resnet_v2"] / macs["inception_v4"] < 0.77


@pytest.mark.parametrize(
    ("name", "chans"), [("inception_resnet_v2", (384, 1152, 2144)), ("inception_resnet_v2_slim", (320, 1088, 2080))]
)
def test_a_gate_stands_in_every_residual_block_and_nowhere_else(nets, name, chans):
    network = create_on_meta(name, attention="se")
    gates = sum(n * (2 * c * (c // 16) + c + c // 16) for n, c in zip(RESIDUAL[name], chans, strict=True))
    assert sum(isinstance(m, SqueezeExcite) for m in network.modules()) == sum(RESIDUAL[name])
    assert count(network) == count(nets[name]) + gates


def test_in_inception_v4_a_gate_stands_after_every_module_and_reduction():
    network = create_on_meta("inception_v4", attention="se")
    gates = [m.fc1.in_features for m in network.modules() if isinstance(m, SqueezeExcite)]
    assert gates == 4 * [384] + [1024] + 7 * [1024] + [1536] + 3 * [1536]


def test_facenets_form_by_hand(nets):
    """One more 8x8 block, 512 features (no bias, a norm) and 1000 classes: the 23,995,624 of pytorchcv's network."""
    network = nets["inception_resnet_v1"]
    sixth = count(network.stages.inception_resnet_c[0])
    head = 1792 * 512 + 2 * 512 + 512 * 1000 + 1000
    assert count(network) + sixth - count(network.head) + head == 23_995_624


def test_keras_form_by_hand(nets):
    """Its norms have no scale: 55,813,192 trainable parameters."""
    network = nets["inception_resnet_v2_slim"]
    scales = sum(m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    assert count(network) - scales == 55_813_192


@pytest.mark.parametrize("name", NAMES)
def test_pools_norms_and_dropout(nets, name):
    """Means over what lies inside the map, maxima that pad nothing, TensorFlow's constant, 20 % dropout."""
    for module in nets[name].modules():
        if isinstance(module, nn.AvgPool2d):
            assert not module.count_include_pad
        if isinstance(module, nn.MaxPool2d):
            assert module.padding == 0
        if isinstance(module, nn.BatchNorm2d):
            assert module.eps == 1e-3
    assert nets[name].head.drop.p == pytest.approx(0.2)


def test_glorot_initialisation():
    torch.manual_seed(0)
    network = create_model("inception_resnet_v1")
    linear = network.stages.inception_resnet_b[0].branch.linear
    bound = (6 / (256 + 896)) ** 0.5
    assert linear.weight.abs().max() <= bound and not linear.bias.any()
    assert linear.weight.var().item() == pytest.approx(bound**2 / 3, rel=0.02)
