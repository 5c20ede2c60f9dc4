"""AlexNet against Section 3.5, the caption of Fig. 2, Sections 3.3, 4.2 and 5; the single column against its files."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convarium.blocks import conv_act, max_pool_caffe
from convarium.network import Head
from convarium.networks import alexnet as module
from convarium.networks import create_model, create_on_meta
from convarium.networks.alexnet import FIGURE_2, ONE_COLUMN, columns, dense, first_layer


def small_head(channels, num_classes, act):
    hidden = {"fc6": dense(36 * channels, 8, act), "fc7": dense(8, 8, act)}
    return Head(36 * channels, num_classes, pool="flatten", hidden=hidden, hidden_size=8)


@pytest.fixture
def small(monkeypatch):
    """A function from a name to the network with its own convolutions and narrow dense layers."""
    monkeypatch.setattr(module, "dense_head", small_head)
    torch.manual_seed(0)
    return lambda name, **arguments: create_model(name, num_classes=10, **arguments).eval()


def layers(network):
    blocks = {**dict(network.stages.items()), **dict(network.head.hidden.named_children())}
    found = {name: first_layer(block) for name, block in blocks.items() if not name.startswith("pool")}
    return {**found, "fc8": network.head.classifier}


def parameters_of(table):
    """Parameters of a table's convolutions under AlexNet's dense layers."""
    with torch.device("meta"):
        convolutions = nn.ModuleDict(columns(table, 3, None, conv_act, None, max_pool_caffe))
    return sum(p.numel() for p in (*convolutions.parameters(), *create_on_meta("alexnet").head.parameters()))


def test_kernels_of_section_3_5():
    """96 kernels 11x11x3 with stride 4, 256 of 5x5x48, 384 of 3x3x256, 384 of 3x3x192, 256 of 3x3x192."""
    found = layers(create_on_meta("alexnet"))
    shapes = [tuple(found[f"conv{i}"].weight.shape) for i in range(1, 6)]
    assert shapes == [(96, 3, 11, 11), (256, 48, 5, 5), (384, 256, 3, 3), (384, 192, 3, 3), (256, 192, 3, 3)]
    assert [found[f"conv{i}"].stride[0] for i in range(1, 6)] == [4, 1, 1, 1, 1]
    assert [found[name].out_features for name in ("fc6", "fc7", "fc8")] == [4096, 4096, 1000]


def test_neurons_of_figure_2():
    """The caption's counts; 253,440 for conv1 is not a number of 55x55 maps, and leaves the abstract's sum short."""
    shapes = create_on_meta("alexnet").stage_shapes()
    neurons = [torch.Size(shapes[f"conv{i}"]).numel() for i in range(1, 6)]
    assert neurons[1:] == [186_624, 64_896, 64_896, 43_264] and neurons[0] == 290_400
    assert 253_440 % (55 * 55) != 0
    assert round(sum(neurons) + 4096 + 4096 + 1000, -4) == 660_000


def test_parameters_of_every_layer():
    found = {
        name: sum(p.numel() for p in layer.parameters()) for name, layer in layers(create_on_meta("alexnet")).items()
    }
    assert found == {
        "conv1": 34_944, "conv2": 307_456, "conv3": 885_120, "conv4": 663_936, "conv5": 442_624,
        "fc6": 37_752_832, "fc7": 16_781_312, "fc8": 4_097_000,
    }  # fmt: skip


def test_without_the_groups_it_is_the_ports_network():
    whole = {name: row and (*row[:4], 1) for name, row in FIGURE_2.items()}
    assert parameters_of(whole) == 62_378_344
    assert parameters_of(FIGURE_2) == 60_965_224


def test_each_column_sees_only_its_own_maps(small):
    """conv2, conv4 and conv5 read the maps of their own GPU, conv3 those of both (Section 3.5)."""
    stages = small("alexnet").stages
    for name, seen in (("conv2", 48), ("conv3", 256), ("conv4", 192), ("conv5", 192)):
        conv = first_layer(stages[name])
        x = torch.rand(1, conv.in_channels, 5, 5, requires_grad=True)
        y = conv(x)
        y[:, : y.shape[1] // 2].sum().backward()
        reached = x.grad.abs().sum((0, 2, 3)).nonzero().flatten().tolist()
        assert reached == list(range(seen))


def test_conv1_is_rectified_then_normalised_as_in_section_3_3(small):
    """b = a / (k + alpha sum of a^2 over 5 neighbouring maps) ^ beta, with k = 2, alpha = 1e-4 / 5, beta = 0.75."""
    network = small("alexnet")
    x = 60 * torch.randn(1, 3, 43, 43)
    conv = first_layer(network.stages.conv1)
    a = F.conv2d(x, conv.weight, conv.bias, stride=4).clamp(min=0)
    squares = F.pad(a**2, (0, 0, 0, 0, 2, 2))
    sums = sum(squares[:, i : i + 96] for i in range(5))
    torch.testing.assert_close(network.stages.conv1(x), a / (2 + 1e-4 / 5 * sums) ** 0.75)
    assert not torch.allclose(small("alexnet", norm=None).stages.conv1(x), network.stages.conv1(x))


def test_pools_overlap():
    for name in ("alexnet", "alexnet_owt"):
        pools = [m for m in create_on_meta(name).modules() if isinstance(m, nn.MaxPool2d)]
        assert [(pool.kernel_size, pool.stride, pool.padding) for pool in pools] == [(3, 2, 0)] * 3


@pytest.mark.parametrize("name", ["alexnet", "alexnet_owt", "zfnet"])
def test_dropout_follows_the_first_two_dense_layers(name):
    network = create_on_meta(name)
    found = [path for path, m in network.named_modules() if isinstance(m, nn.Dropout) and m.p > 0]
    assert found == ["head.hidden.fc6.drop", "head.hidden.fc7.drop"]
    assert list(dict(network.head.hidden.fc6.named_children())) == ["fc", "act", "drop"]
    assert network.head.hidden.fc6.drop.p == network.head.hidden.fc7.drop.p == 0.5


@pytest.mark.parametrize("name", ["alexnet", "alexnet_owt"])
def test_initialisation_of_section_5(small, name):
    wide = ("conv3", "conv4", "conv5") if name == "alexnet_owt" else ()
    for layer_name, layer in layers(small(name)).items():
        biases = 1.0 if layer_name in ("conv2", "conv4", "conv5", "fc6", "fc7") else 0.0
        assert (layer.bias == biases).all(), layer_name
        if layer.weight.numel() > 10_000:
            assert layer.weight.std().item() == pytest.approx(0.03 if layer_name in wide else 0.01, rel=0.03)


def test_gates_keep_their_own_biases(small):
    gate = small("alexnet", attention="se").stages.conv2.layer.attention
    assert not gate.fc1.bias.any() and not gate.fc2.bias.any()


def test_at_224_pixels_rounding_does_not_matter_to_the_single_column():
    network = create_on_meta("alexnet_owt")
    with torch.device("meta"):
        rounded_up = columns(ONE_COLUMN, 3, None, conv_act, None, max_pool_caffe)
        x = torch.empty(1, 3, 224, 224)
        for name, stage in rounded_up.items():
            x = stage(x)
            assert tuple(x.shape[1:]) == network.stage_shapes()[name]


def test_the_authors_crop_of_223_pixels_needs_no_padding():
    """cuda-convnet2's layers-223-1gpu.cfg: maps of 54, 27, 13 and 6 pixels, so the dense layers are the same."""
    table = {**ONE_COLUMN, "conv1": (64, 11, 4, 0, 1)}
    sides = []
    with torch.device("meta"):
        x = torch.empty(1, 3, 223, 223)
        for stage in columns(table, 3, None, conv_act, None, max_pool_caffe).values():
            x = stage(x)
            sides.append(x.shape[-1])
    assert sides == [54, 27, 27, 13, 13, 13, 13, 6]
    assert parameters_of(table) == 61_100_840
