"""VGG against Tables 1 and 2 and the arithmetic of Section 2.3."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convarium import describe
from convarium.networks import create_model, create_on_meta
from convarium.networks import vgg as module

# Table 1's head: weight layers of each column; Table 2: millions of parameters.
COLUMNS = {
    "vgg11": (11, 133), "vgg11_lrn": (11, 133), "vgg13": (13, 133),
    "vgg16_c": (16, 134), "vgg16": (16, 138), "vgg19": (19, 144),
}  # fmt: skip


def convolutions(network):
    return [m for m in network.modules() if isinstance(m, nn.Conv2d)]


@pytest.fixture
def small(monkeypatch):
    """A function from a name to the network with its own convolutions and no dense layers but the classifier."""
    monkeypatch.setattr(module, "dense", lambda in_features, out_features, act: nn.Identity())
    torch.manual_seed(0)
    return lambda name: create_model(name, num_classes=10).eval()


@pytest.mark.parametrize("name", COLUMNS)
def test_tables_1_and_2(name):
    network = create_on_meta(name)
    depth, millions = COLUMNS[name]
    dense = [m for m in network.modules() if isinstance(m, nn.Linear)]
    assert len(convolutions(network)) + len(dense) == depth
    assert [layer.out_features for layer in dense] == [4096, 4096, 1000]
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == millions


@pytest.mark.parametrize("name", COLUMNS)
def test_every_block_doubles_the_width_up_to_512_and_halves_the_map(name):
    network = create_on_meta(name)
    widths = [64, 128, 256, 512, 512]
    assert list(network.stage_shapes().values()) == [(w, 112 >> i, 112 >> i) for i, w in enumerate(widths)]
    for block, width in zip(network.stages.values(), widths, strict=True):
        assert {c.out_channels for c in convolutions(block)} == {width}
        assert all(c.stride == (1, 1) and c.padding == (c.kernel_size[0] // 2,) * 2 for c in convolutions(block))


def test_columns_differ_as_the_table_says():
    """B has two convolutions per block; C adds a 1x1 to the last three, D makes it 3x3, E adds another 3x3."""
    kernels = lambda name: [[c.kernel_size[0] for c in convolutions(b)] for b in create_on_meta(name).stages.values()]  # noqa: E731
    assert kernels("vgg11") == kernels("vgg11_lrn") == [[3], [3], [3, 3], [3, 3], [3, 3]]
    assert kernels("vgg13") == [[3, 3]] * 5
    assert kernels("vgg16_c") == [[3, 3]] * 2 + [[3, 3, 1]] * 3
    assert kernels("vgg16") == [[3, 3]] * 2 + [[3, 3, 3]] * 3
    assert kernels("vgg19") == [[3, 3]] * 2 + [[3, 3, 3, 3]] * 3


def test_the_1x1_layers_of_c_are_what_it_has_over_b():
    count = lambda name: sum(p.numel() for p in create_on_meta(name).parameters())  # noqa: E731
    assert count("vgg16_c") - count("vgg13") == 256 * 257 + 2 * 512 * 513


def test_three_3x3_see_7x7_with_45_percent_fewer_weights(small):
    """Section 2.3: 27 C^2 weights for the field of a 7x7, whose 49 C^2 are 81 % more."""
    block = nn.Sequential(*list(small("vgg16").stages.block3.children())[:3])
    for conv in convolutions(block):
        nn.init.constant_(conv.weight, 1e-3)
    x = torch.ones(1, 128, 15, 15, requires_grad=True)
    block(x)[0, :, 7, 7].sum().backward()
    seen = x.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    assert seen.tolist() == list(range(4, 11))
    of_equal_width = [c.weight.numel() for c in convolutions(block)[1:]]
    assert 1.5 * sum(of_equal_width) == 27 * 256**2 and round(100 * 49 / 27) - 100 == 81


def test_the_resnet_paper_counts_the_convolutions_of_vgg16_and_all_of_vgg19():
    """15.3 and 19.6 billion."""
    stages = {name: {row.name: row.macs for row in describe(name).stages} for name in ("vgg16", "vgg19")}
    of_blocks = {name: sum(m for row, m in rows.items() if row.startswith("block")) for name, rows in stages.items()}
    assert of_blocks["vgg16"] == 15_346_630_656
    assert sum(stages["vgg16"].values()) - of_blocks["vgg16"] == 25_088 * 4096 + 4096 * 4096 + 4096 * 1000
    assert f"{sum(stages['vgg19'].values()):.2e}" == "1.96e+10"


def test_dropout_follows_the_first_two_dense_layers():
    for name in (*COLUMNS, "vgg16_bn"):
        network = create_on_meta(name)
        found = [path for path, m in network.named_modules() if isinstance(m, nn.Dropout) and m.p > 0]
        assert found == ["head.hidden.fc6.drop", "head.hidden.fc7.drop"]


def test_a_lrn_normalises_after_the_first_convolution_only(small):
    """With AlexNet's parameters (Section 2.3)."""
    network = small("vgg11_lrn")
    found = [path for path, m in network.named_modules() if isinstance(m, nn.LocalResponseNorm)]
    assert found == ["stages.block1.lrn"]
    assert [type(m) for m in network.stages.block1.children()][-1] is nn.MaxPool2d
    x = 60 * torch.randn(1, 3, 8, 8)
    conv = convolutions(network)[0]
    a = F.conv2d(x, conv.weight, conv.bias, padding=1).clamp(min=0)
    squares = F.pad(a**2, (0, 0, 0, 0, 2, 2))
    sums = sum(squares[:, i : i + 64] for i in range(5))
    torch.testing.assert_close(network.stages.block1(x), F.max_pool2d(a / (2 + 2e-5 * sums) ** 0.75, 2))


def test_glorot_initialisation(small):
    for conv in convolutions(small("vgg13")):
        fans = 9 * (conv.in_channels + conv.out_channels)
        bound = (6 / fans) ** 0.5
        assert conv.weight.abs().max().item() <= bound and not conv.bias.any()
        assert conv.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_batch_norm_adds_two_parameters_per_channel(depth):
    plain, normed = create_on_meta(f"vgg{depth}"), create_on_meta(f"vgg{depth}_bn")
    count = lambda network: sum(p.numel() for p in network.parameters())  # noqa: E731
    assert count(normed) - count(plain) == 2 * sum(c.out_channels for c in convolutions(plain))
    kinds = [type(m) for m in normed.stages.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d | nn.ReLU)]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * len(convolutions(plain))


def test_only_the_mean_colour_is_subtracted():
    """Section 2.1; pixels stay bytes."""
    network = create_on_meta("vgg16")
    assert [round(255 * m) for m in network.mean] == [123, 117, 104] and network.std == (1 / 255,) * 3
