"""ZFNet against Fig. 3 and Section 3: sizes, the order of pooling and normalisation, the wider model (b)."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convarium.network import Head
from convarium.networks import create_model, create_on_meta
from convarium.networks import zfnet as module


@pytest.fixture
def small(monkeypatch):
    """The network with its own convolutions and no dense layers."""
    monkeypatch.setattr(module, "dense_head", lambda channels, num_classes, act: Head(channels, num_classes))
    torch.manual_seed(0)
    return create_model("zfnet", num_classes=10).eval()


def test_sizes_of_figure_3():
    """The figure prints each layer's maps: 110, 55, 26, 13 and 6 pixels."""
    assert create_on_meta("zfnet").stage_shapes() == {
        "conv1": (96, 110, 110), "pool1": (96, 55, 55), "conv2": (256, 26, 26), "pool2": (256, 13, 13),
        "conv3": (384, 13, 13), "conv4": (384, 13, 13), "conv5": (256, 13, 13), "pool5": (256, 6, 6),
    }  # fmt: skip


def test_what_it_changes_in_alexnet():
    """Section 4.1: 7x7 with stride 2 at the start; Section 3: dense connections in layers 3, 4 and 5."""
    ours, theirs = (
        [m for m in create_on_meta(name).modules() if isinstance(m, nn.Conv2d)] for name in ("zfnet", "alexnet")
    )
    windows = lambda convs: [(c.kernel_size[0], c.stride[0]) for c in convs]  # noqa: E731
    assert windows(ours) == [(7, 2), (5, 2), (3, 1), (3, 1), (3, 1)]
    assert windows(theirs) == [(11, 4), (5, 1), (3, 1), (3, 1), (3, 1)]
    assert [c.out_channels for c in ours] == [c.out_channels for c in theirs]
    assert all(c.groups == 1 for c in ours)


def test_the_parameters_that_the_groups_save_and_the_smaller_window():
    """Over AlexNet: conv1 has 96 x 3 x (11^2 - 7^2) fewer weights, conv2, conv4 and conv5 as many again as there."""
    count = lambda name: sum(p.numel() for p in create_on_meta(name).parameters())  # noqa: E731
    again = 256 * 48 * 25 + 384 * 192 * 9 + 256 * 192 * 9
    assert count("zfnet") - count("alexnet") == again - 96 * 3 * (121 - 49)


def test_model_b_of_table_2(monkeypatch):
    """Layers 3, 4, 5 with 512, 1024, 512 maps: the network that many call ZFNet."""
    wider = {"conv3": (512, 3, 1, 1), "conv4": (1024, 3, 1, 1), "conv5": (512, 3, 1, 1)}
    monkeypatch.setattr(module, "FIGURE_3", {**module.FIGURE_3, **wider})
    assert sum(p.numel() for p in create_on_meta("zfnet").parameters()) == 107_627_624


def test_contrast_is_normalised_after_the_pooling(small):
    """Fig. 3: rectified, pooled 3x3 with stride 2, then normalised across maps; the fifth layer is only pooled."""
    x = 60 * torch.rand(1, 96, 11, 11)
    pooled = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=float("-inf")), 3, 2)[:, :, :5, :5]
    squares = F.pad(pooled**2, (0, 0, 0, 0, 2, 2))
    sums = sum(squares[:, i : i + 96] for i in range(5))
    torch.testing.assert_close(small.stages.pool1(x), pooled / (2 + 1e-4 / 5 * sums) ** 0.75)
    assert [name for name in small.stages if isinstance(small.stages[name], nn.MaxPool2d)] == ["pool5"]


def test_pools_round_up(small):
    """110 pixels make 55 and 26 make 13; the last window of each hangs over the edge."""
    x = torch.arange(26.0).expand(1, 1, 26, 26)
    assert small.stages.pool5(x)[0, 0, 0].tolist() == [*range(2, 26, 2), 25]


def test_initialisation(small):
    for layer in (m for m in small.stages.modules() if isinstance(m, nn.Conv2d)):
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.03) and not layer.bias.any()


def test_input_lies_about_zero_on_the_scale_of_bytes():
    """Section 3.1: roughly -128 to 128."""
    network = create_on_meta("zfnet")
    ends = [(value - mean) / std for value in (0, 1) for mean, std in zip(network.mean, network.std, strict=True)]
    assert all(-128 < low < -100 for low in ends[:3]) and all(128 < high < 155 for high in ends[3:])
