"""Xception against Fig. 5, Section 3 and Table 3."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convarium import create_model
from convarium.blocks import Residual
from convarium.facts import find_facts
from convarium.networks import create_on_meta, xception


@pytest.fixture(scope="module")
def built():
    return create_on_meta("xception").eval()


def small(in_chans, widths, starts_with=nn.ReLU, act=nn.ReLU):
    """A module of Fig. 5 with norms that are not the identity."""
    torch.manual_seed(0)
    module = xception.module(in_chans, widths, None, xception.conv_bn_tensorflow, act, starts_with).eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -1, 1)
            nn.init.uniform_(part.running_var, 0, 0.1)
            nn.init.uniform_(part.bias, -1, 1)
    return module


def test_fig_5_sizes(built):
    """19x19x728 maps through the middle flow, 2048 features at the end; the other sides follow from the strides."""
    shapes = built.stage_shapes()
    sides = {name: shape[1] for name, shape in shapes.items()}
    assert [sides[name] for name in ("conv1", "conv2", "block1", "block2")] == [149, 147, 74, 37]
    assert all(shapes[f"block{i}"] == (728, 19, 19) for i in range(3, 12))
    assert shapes["block12"] == (1024, 10, 10) and shapes["conv4"] == (2048, 10, 10)
    assert built.head_hidden_size == 2048 and built.head.drop.p == 0.5


def test_36_convolutions_in_14_modules_with_connections_around_all_but_the_first_and_the_last(built):
    """Section 3; a separable convolution is one, and those of the connections do not count."""
    convolutions = [
        name
        for name, m in built.named_modules()
        if isinstance(m, nn.Conv2d) and "shortcut" not in name and "depthwise" not in name
    ]
    assert len(convolutions) == 36
    around = [name for name, stage in built.stages.items() if isinstance(stage, Residual)]
    assert around == [f"block{i}" for i in range(1, 13)]
    assert [name for name in built.stages if name not in around] == ["conv1", "conv2", "conv3", "conv4"]
    projected = [name for name in around if not isinstance(built.stages[name].shortcut, nn.Identity)]
    assert projected == ["block1", "block2", "block3", "block12"]


def test_all_but_the_first_two_convolutions_are_separable(built):
    for name, m in built.named_modules():
        if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3):
            assert m.bias is None
            assert m.groups == (1 if name in ("stages.conv1.conv", "stages.conv2.conv") else m.in_channels)


def test_a_downsampling_module_by_hand():
    """ReLU, separable, norm, twice; the pooling pads at the bottom and the right alone; 1x1 of stride 2 around it."""
    module, x = small(4, (6, 8)), torch.randn(2, 4, 8, 8)

    def normed(norm, y):
        return F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-3)

    y = x
    for layer in (module.branch.conv1, module.branch.conv2):
        y = y.clamp(min=0)
        y = F.conv2d(y, layer.depthwise.weight, padding=1, groups=y.shape[1])
        y = normed(layer.pointwise.norm, F.conv2d(y, layer.pointwise.conv.weight))
    y = F.max_pool2d(F.pad(y, (0, 1, 0, 1), value=float("-inf")), 3, 2)
    shortcut = normed(module.shortcut.norm, F.conv2d(x[:, :, ::2, ::2], module.shortcut.conv.weight))
    torch.testing.assert_close(module(x), y + shortcut)


def test_a_middle_module_adds_to_its_input_as_it_is():
    """No activation after the sum: with a last norm of zeros it is the identity on negative maps too."""
    module, x = small(6, (6, 6, 6)), torch.randn(2, 6, 5, 5)
    assert not torch.equal(module(x), x)
    nn.init.zeros_(module.branch.conv3.pointwise.norm.weight)
    nn.init.zeros_(module.branch.conv3.pointwise.norm.bias)
    assert torch.equal(module(x), x)


def test_block1_starts_without_an_activation(built):
    """Fig. 5: conv2 has just ended in one."""
    kinds = {name: type(stage.branch.act1) for name, stage in built.stages.items() if isinstance(stage, Residual)}
    assert kinds.pop("block1") is nn.Identity
    assert set(kinds.values()) == {nn.ReLU}


def test_the_halves_of_a_separable_convolution_stay_linear_whatever_the_activation():
    """Section 4.7. Twice the input is twice the output, but for the norm's bias."""
    module, x = small(4, (4, 4), act=nn.Tanh, starts_with=nn.Tanh), torch.randn(1, 4, 5, 5)
    layer = module.branch.conv1
    zero, once, twice = layer(0 * x), layer(x), layer(2 * x)
    torch.testing.assert_close(twice - zero, 2 * (once - zero))


def test_table_3_has_fewer_parameters_than_inception_v3(built):
    params = sum(p.numel() for p in built.parameters())
    assert params == find_facts("xception").printed("params").value < 23_626_728


def test_glorot_initialisation():
    torch.manual_seed(0)
    network = create_model("xception")
    conv = network.stages.conv4.pointwise.conv
    bound = (6 / (1536 + 2048)) ** 0.5
    assert conv.weight.abs().max() <= bound
    assert conv.weight.var().item() == pytest.approx(bound**2 / 3, rel=0.01)
    assert not network.head.classifier.bias.any()


def test_the_torch_ports_pad_every_side_and_have_torchs_constant():
    network = create_on_meta("xception_cadene")
    assert {m.eps for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-5}
    odd, even = torch.randn(1, 2, 75, 75), torch.randn(1, 2, 74, 74)
    own, ports = create_on_meta("xception").stages.block2.branch.pool, network.stages.block2.branch.pool
    assert torch.equal(own(odd), ports(odd))
    assert own(even).shape == ports(even).shape and not torch.equal(own(even), ports(even))
