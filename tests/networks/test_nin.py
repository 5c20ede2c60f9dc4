"""NIN against Figs. 1b and 2, Sections 3.2 and 4, and the author's files."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convarium.networks import create_model, create_on_meta

# NIN/cifar-10_def: conv1, cccp1, cccp2, ... with channels in and out and the kernel.
CIFAR_LAYERS = [
    (3, 192, 5), (192, 160, 1), (160, 96, 1), (96, 192, 5), (192, 192, 1), (192, 192, 1),
    (192, 192, 3), (192, 192, 1), (192, 10, 1),
]  # fmt: skip
IMAGENET_LAYERS = [
    (3, 96, 11), (96, 96, 1), (96, 96, 1), (96, 256, 5), (256, 256, 1), (256, 256, 1),
    (256, 384, 3), (384, 384, 1), (384, 384, 1), (384, 1024, 3), (1024, 1024, 1), (1024, 1000, 1),
]  # fmt: skip


def convolutions(network):
    return [m for m in network.modules() if isinstance(m, nn.Conv2d)]


@pytest.fixture(scope="module")
def cifar():
    torch.manual_seed(0)
    return create_model("nin_cifar").eval()


@pytest.mark.parametrize(("name", "layers"), [("nin_cifar", CIFAR_LAYERS), ("nin_imagenet", IMAGENET_LAYERS)])
def test_layers_of_the_authors_files(name, layers):
    network = create_on_meta(name)
    found = [(c.in_channels, c.out_channels, c.kernel_size[0]) for c in convolutions(network)]
    assert found == layers and all(c.bias is not None for c in convolutions(network))
    assert sum(p.numel() for p in network.parameters()) == sum(o * (i * k * k + 1) for i, o, k in layers)
    assert not any(isinstance(m, nn.Linear) for m in network.modules())


def test_every_convolution_is_rectified_the_last_one_too():
    for name in ("nin_cifar", "nin_imagenet"):
        network = create_on_meta(name)
        kinds = [type(m) for m in network.modules() if isinstance(m, nn.Conv2d | nn.ReLU)]
        assert kinds == [nn.Conv2d, nn.ReLU] * len(convolutions(network))


def test_an_mlpconv_layer_is_a_perceptron_on_every_patch(cifar):
    """Eq. 2: three layers over the patch around a place, the same weights everywhere."""
    x = torch.randn(2, 3, 32, 32)
    maps = cifar.stages.mlpconv1(x)
    conv, *others = convolutions(cifar.stages.mlpconv1)
    for row, column in ((0, 0), (7, 20), (31, 31)):
        y = F.pad(x, (2, 2, 2, 2))[:, :, row : row + 5, column : column + 5].flatten(1)
        for layer in (conv, *others):
            y = (y @ layer.weight.flatten(1).T + layer.bias).clamp(min=0)
        torch.testing.assert_close(maps[:, :, row, column], y, rtol=1e-4, atol=1e-6)


def test_a_class_is_scored_by_the_mean_of_its_map(cifar):
    """Section 3.2."""
    features = torch.randn(2, 192, 8, 8)
    maps = features
    for layer in convolutions(cifar.head):
        maps = F.conv2d(maps, layer.weight, layer.bias, padding=layer.padding).clamp(min=0)
    assert maps.shape == (2, 10, 8, 8)
    torch.testing.assert_close(cifar.forward_head(features), maps.mean((2, 3)))


@pytest.mark.parametrize(("name", "pools"), [("nin_cifar", 2), ("nin_imagenet", 3)])
def test_max_pooling_halves_after_all_but_the_last_mlpconv_layer(name, pools):
    """Section 4; windows of 3 with stride 2 that hang over the edge."""
    network = create_on_meta(name)
    found = [m for m in network.modules() if isinstance(m, nn.MaxPool2d)]
    assert [(m.kernel_size, m.stride, m.ceil_mode) for m in found] == [(3, 2, True)] * pools
    assert not any(isinstance(m, nn.AvgPool2d) for m in network.modules())


@pytest.mark.parametrize(("name", "after"), [("nin_cifar", ["pool1", "pool2"]), ("nin_imagenet", ["pool3"])])
def test_dropout_in_the_authors_files(name, after):
    network = create_on_meta(name)
    found = [(path, m.p) for path, m in network.named_modules() if isinstance(m, nn.Dropout) and m.p > 0]
    assert found == [(f"stages.{pool}.drop", 0.5) for pool in after]


def test_a_hundred_classes_cost_193_parameters_each(cifar):
    count = lambda classes: sum(p.numel() for p in create_on_meta("nin_cifar", num_classes=classes).parameters())  # noqa: E731
    assert count(100) - count(10) == 90 * 193


def test_initialisation():
    torch.manual_seed(0)
    for name, narrow in (("nin_cifar", ()), ("nin_imagenet", (0, 6, 11))):
        for i, layer in enumerate(convolutions(create_model(name))):
            deviation = 0.01 if i in narrow else 0.05
            assert layer.weight.std().item() == pytest.approx(deviation, rel=0.06) and not layer.bias.any()


def test_a_fresh_classifier_starts_as_the_first_one():
    network = create_model("nin_imagenet")
    torch.manual_seed(0)
    network.reset_classifier(50)
    assert network.get_classifier().conv.weight.std().item() == pytest.approx(0.01, rel=0.03)
    assert isinstance(network.get_classifier().act, nn.ReLU)
