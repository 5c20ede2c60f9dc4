"""Gradients by hand, against the theorems of the papers, and against Captum where it is there."""

import copy

import pytest
import torch
from torch import nn

from convarium import create_model
from convarium.errors import UsageError
from convarium.explanation.gradients import gradient, guided, integrated_gradients, strongest_channel


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = create_model("resnet20_cifar").eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.bias, std=0.2)  # without biases the logits are straight along the way from 0
    return model


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


class Linear(nn.Module):
    """A linear classifier of the pixels."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2 * 3 * 3, 4)

    def forward(self, x):
        return self.layer(x.flatten(1))


class TwoLayers(nn.Module):
    """Four pixels, three ReLUs that are called as a function, two classes; weights that a reader can multiply."""

    FIRST = torch.tensor([[1.0, -2.0, 0.0, 3.0], [0.0, 1.0, 1.0, -1.0], [2.0, 0.0, -1.0, 0.0]])
    SECOND = torch.tensor([[1.0, -1.0, 2.0], [-3.0, 1.0, -1.0]])

    def forward(self, x):
        return torch.relu(x.flatten(1) @ self.FIRST.T) @ self.SECOND.T


def test_guided_backpropagation_of_two_layers_by_hand():
    """Springenberg et al., Figure 1: a ReLU passes what is positive up and down."""
    x = torch.tensor([[[[1.0, 2.0], [1.0, 1.0]]]])  # pixels 1, 2, 1, 1: hidden 0 (shut), 2, 1
    model = TwoLayers()
    # Class 0: -1 comes down to the second unit, which is open, and 2 to the third.
    assert gradient(model, x, torch.tensor([0])).flatten().tolist() == [4, -1, -3, 1]
    assert guided(model, x, torch.tensor([0])).flatten().tolist() == [4, 0, -2, 0]
    # Class 1: 1 comes down to the second, -1 to the third; the first is shut.
    assert gradient(model, x, torch.tensor([1])).flatten().tolist() == [-2, 1, 2, -1]
    assert guided(model, x, torch.tensor([1])).flatten().tolist() == [0, 1, 1, -1]


def test_integrated_gradients_of_a_linear_network_are_its_products():
    """Sundararajan et al., Section 3: of a linear model, weight times the pixel's way from the baseline."""
    torch.manual_seed(0)
    model, x, target = Linear(), torch.randn(2, 2, 3, 3), torch.tensor([1, 3])
    weights = model.layer.weight[target].view(2, 2, 3, 3).detach()
    torch.testing.assert_close(integrated_gradients(model, x, target, steps=1), weights * x)
    torch.testing.assert_close(integrated_gradients(model, x, target, baseline=-0.5), weights * (x + 0.5))


@pytest.mark.parametrize("baseline", [0.0, -1.7])
def test_integrated_gradients_add_up_to_what_the_logit_gained(network, images, baseline):
    """Sundararajan et al., Proposition 1; the network has kinks, so more steps come nearer."""
    target = torch.tensor([3, 7])
    with torch.no_grad():
        gained = network(images) - network(torch.full_like(images, baseline))
    gained = gained.gather(1, target[:, None])[:, 0]
    far = [
        (integrated_gradients(network, images, target, baseline=baseline, steps=n).sum((1, 2, 3)) - gained).abs().max()
        for n in (2, 128)
    ]
    assert far[1] < far[0] and far[1] < 0.02 * gained.abs().max()


def test_integrated_gradients_of_a_smooth_network_are_exact_in_few_steps(images):
    """The points of Gauss and Legendre are exact for polynomials of degree 2n - 1 of the way's length."""

    class Cubic(nn.Module):
        def forward(self, x):
            return torch.stack([x.pow(4).sum((1, 2, 3)), x.sum((1, 2, 3))], 1)

    given = integrated_gradients(Cubic(), images.double(), torch.tensor([0, 0]), steps=2)
    torch.testing.assert_close(given, images.double() ** 4)


def in_double(network):
    """In single precision a ReLU that is nearly shut may be open for one way of adding up and not for another."""
    return copy.deepcopy(network).double()


@pytest.mark.long
def test_it_is_captums(network, images):
    captum = pytest.importorskip("captum.attr")
    model, x, target = in_double(network), images.double(), torch.tensor([3, 7])
    theirs = captum.IntegratedGradients(model).attribute(x, 0.0, target=target, n_steps=32)
    torch.testing.assert_close(integrated_gradients(model, x, target, steps=32), theirs)
    theirs = captum.Saliency(model).attribute(x.requires_grad_(), target=target, abs=False)
    torch.testing.assert_close(gradient(model, x, target), theirs)


def test_the_plain_gradient_is_the_slope(network, images):
    """Against a difference quotient."""
    model, x, target = in_double(network), images[:1].double(), torch.tensor([3])
    direction = 1e-7 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with torch.no_grad():
        rise = model(x + direction)[0, 3] - model(x - direction)[0, 3]
    slope = (gradient(model, x, target) * direction).sum() * 2
    torch.testing.assert_close(slope, rise, atol=1e-10, rtol=1e-3)


@pytest.mark.parametrize("method", [gradient, guided, integrated_gradients])
def test_a_batch_frozen_weights_and_no_grad_change_nothing(network, images, method):
    together = method(network, images)
    network.requires_grad_(False)
    with torch.no_grad():
        alone = torch.cat([method(network, image[None]) for image in images])
    network.requires_grad_(True)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-3)
    assert all(weight.grad is None for weight in network.parameters()) and not together.requires_grad


def test_rules_are_gone_after_an_error(network, images):
    before = gradient(network, images)
    with pytest.raises(UsageError):
        guided(network, images[..., :2, :2])  # smaller than the network takes
    assert torch.equal(gradient(network, images), before)
    assert not torch.equal(guided(network, images), before)


def test_bad_input_is_refused_and_the_strongest_channel_has_no_sign(network, images):
    with pytest.raises(UsageError, match="need 1 step or more; got 0"):
        integrated_gradients(network, images, steps=0)
    assert strongest_channel(torch.tensor([[[[1.0]], [[-3.0]]]])).tolist() == [[[3.0]]]
