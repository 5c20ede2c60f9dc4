"""Rules for the way down: however an operation is called, the values stay, and nothing of a rule is left behind."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convarium import create_model
from convarium.attention import HardMask, SpatialMask
from convarium.explanation.backward_rules import backward_rules, constant, deconvnet, guided, plain, unchanged
from convarium.networks.residual_attention import (
    channel_attention,
    mixed_attention,
    naive_learning,
    residual_learning,
    spatial_attention,
)
from convarium.networks.senet import SqueezeExcite

X = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
SIGNAL = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(1))


def in_place(x):
    y = x * 1
    F.relu_(y.flatten(1))
    return y


RELUS = {
    "function": F.relu,
    "torch": torch.relu,
    "method": torch.Tensor.relu,
    "module": nn.ReLU(),
    "by keyword": lambda x: F.relu(input=x),
    "module in place": lambda x: nn.ReLU(inplace=True)(x * 1),
    "function in place": lambda x: F.relu(x * 1, True),
    "on a view in place": in_place,
    "clamp": lambda x: x.clamp(min=0),
    "clamp_min": lambda x: torch.clamp_min(x, 0),
    "relu6": F.relu6,
    "module of relu6": nn.ReLU6(),
}


def down(function, **rules):
    x = X.clone().requires_grad_()
    with backward_rules(**rules):
        y = function(x)
    torch.testing.assert_close(y.detach(), function(X.clone()), atol=0, rtol=0)
    return torch.autograd.grad(y, x, SIGNAL)[0]


@pytest.mark.parametrize("relu", RELUS.values(), ids=RELUS)
def test_a_relu_has_its_rule_however_it_is_called(relu):
    open_ = X > 0
    torch.testing.assert_close(down(relu, relu=plain), SIGNAL * open_, atol=0, rtol=0)
    torch.testing.assert_close(down(relu, relu=deconvnet), SIGNAL.clamp(min=0), atol=0, rtol=0)
    torch.testing.assert_close(down(relu, relu=guided), SIGNAL.clamp(min=0) * open_, atol=0, rtol=0)


def test_what_a_relu_works_on_in_place_is_changed():
    x = X.clone().requires_grad_()
    with backward_rules(relu=deconvnet):
        y = x * 2
        nn.ReLU(inplace=True)(y)
    assert torch.equal(y, F.relu(2 * X))
    assert torch.equal(torch.autograd.grad(y, x, SIGNAL)[0], 2 * SIGNAL.clamp(min=0))


@pytest.mark.parametrize("act", [F.leaky_relu, F.elu, F.gelu, F.silu, nn.PReLU(), F.softplus])
def test_soft_relatives_are_rectified_too(act):
    assert torch.equal(down(act, relu=deconvnet), SIGNAL.clamp(min=0))
    assert not torch.equal(down(act), SIGNAL.clamp(min=0))


@pytest.mark.parametrize("act", [torch.tanh, torch.sigmoid, nn.Tanh(), nn.Sigmoid(), F.hardtanh, F.softsign])
def test_squashes_let_the_signal_through(act):
    assert torch.equal(down(act, squash=unchanged, relu=deconvnet), SIGNAL)


def test_response_normalisation_lets_the_signal_through():
    for norm in (nn.LocalResponseNorm(5), lambda x: F.local_response_norm(x, 3)):
        assert torch.equal(down(norm, response_norm=unchanged), SIGNAL)


GATES = {
    "squeeze and excite": partial(SqueezeExcite, 4, reduction=1),
    "spatial": partial(SpatialMask, 4),
    "hard": partial(HardMask, 4),
    "after an operator": lambda: lambda x: torch.sigmoid(x.mean((2, 3)))[:, :, None, None] * x,
    "in place": lambda: lambda x: (x * 1).mul_(x.mean((2, 3), keepdim=True)),
    "divided": lambda: lambda x: x / x.norm(dim=1, keepdim=True),
}


@pytest.mark.parametrize("make", GATES.values(), ids=GATES)
def test_a_gate_is_a_constant(make):
    """The map that it multiplies comes back times what the gate was, and no more."""
    torch.manual_seed(0)
    gate = make()
    torch.testing.assert_close(down(gate, gate=constant), SIGNAL * gate(X.clone()).detach() / X, atol=1e-6, rtol=1e-5)
    assert (down(gate) - down(gate, gate=constant)).abs().max() > 1e-3


@pytest.mark.parametrize("normalise", [mixed_attention, channel_attention, spatial_attention])
@pytest.mark.parametrize("learning", [residual_learning, naive_learning])
def test_the_soft_mask_of_residual_attention_is_a_constant(normalise, learning):
    """It is as large as the trunk's map: what tells it apart is that it has been bounded."""
    conv = nn.Conv2d(4, 4, 1).requires_grad_(False)
    mask = normalise(conv(X))

    def module(x):
        return learning(normalise(conv(x)), 3 * x)

    torch.testing.assert_close(down(module, gate=constant), SIGNAL * learning(mask, 3 * torch.ones_like(X)))


def test_two_maps_alike_are_no_gate():
    assert torch.equal(down(lambda x: x * (2 * x), gate=constant), 4 * X * SIGNAL)
    assert torch.equal(down(lambda x: x * x, gate=constant), 2 * X * SIGNAL)


def test_the_rules_belong_to_the_block():
    """Before, after, and after an error inside; and no hook is left on any module."""
    model = create_model("lenet5_modern").eval()
    x = torch.randn(1, 1, 32, 32).requires_grad_()

    def gradient():
        return torch.autograd.grad(model(x).sum(), x)[0]

    before = gradient()
    with pytest.raises(RuntimeError, match="type"), backward_rules(relu=deconvnet):
        model.forward_features(x.double())
    assert torch.equal(gradient(), before)
    with backward_rules(relu=deconvnet):
        changed = gradient()
    assert not torch.equal(changed, before) and torch.equal(gradient(), before)
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    assert not torch.overrides._get_current_function_mode_stack()


def test_nothing_is_kept_where_no_gradient_is_asked():
    with torch.no_grad(), backward_rules(relu=deconvnet, gate=constant):
        assert torch.equal(F.relu(X), X.clamp(min=0)) and F.relu(X).grad_fn is None
