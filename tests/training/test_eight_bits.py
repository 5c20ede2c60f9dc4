"""Training for int8: products by hand, gradients as if nothing were rounded, the same bits after an interruption."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convarium import create_model, train
from convarium.errors import Interrupted
from convarium.tensors import WEIGHTS, load_tensors
from convarium.training.eight_bits import EightBits, rounded_map, rounded_weight


def by_hand(values, scale, low, high, zero=0):
    """Numpy's rounding to whole numbers between ``low`` and ``high`` times a scale."""
    return (np.clip(np.rint(values / scale) + zero, low, high) - zero) * scale


def test_weights_are_rounded_by_channel():
    weight = torch.randn(5, 3, 3, 3) * torch.tensor([1e-3, 1, 10, 0, 0.5]).view(-1, 1, 1, 1)
    found = rounded_weight(weight).numpy()
    for own, expected in zip(found, weight.numpy(), strict=True):
        scale = max(np.abs(expected).max() / 127, 1e-12)
        np.testing.assert_allclose(own, by_hand(expected, scale, -127, 127), rtol=1e-5, atol=1e-9)
        assert len(np.unique(own)) <= 255


@pytest.mark.parametrize("shift", [-5.0, 0.0, 5.0])
def test_maps_have_256_levels_and_keep_zero(shift):
    x = torch.randn(2, 4, 6, 6) + shift
    x[0, 0] = 0
    found, values = rounded_map(x).numpy(), x.numpy()
    low, high = min(values.min(), 0), max(values.max(), 0)
    scale = np.float32((high - low) / 255)
    np.testing.assert_allclose(found, by_hand(values, scale, 0, 255, np.rint(-low / scale)), atol=scale * 1.01)
    assert (found[0, 0] == 0).all() and len(np.unique(found)) <= 256
    assert np.abs(found - values).max() <= 0.51 * scale


def test_within_the_mode_layers_multiply_rounded_numbers_and_outside_they_do_not():
    conv, dense = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Linear(4, 2)
    x = torch.randn(2, 3, 8, 8)
    network = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), dense)
    plain = network(x)
    hidden = F.conv2d(rounded_map(x), rounded_weight(conv.weight), conv.bias, stride=2, padding=1).relu().mean((2, 3))
    expected = F.linear(rounded_map(hidden), rounded_weight(dense.weight), dense.bias)
    with EightBits():
        found = network(x)
    torch.testing.assert_close(found, expected)
    assert not torch.equal(found, plain) and torch.equal(network(x), plain)


def test_gradients_pass_the_rounding():
    weight, x = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    with EightBits():
        F.linear(x, weight).sum().backward()
    # Of a sum of products: what the other side was multiplied as.
    torch.testing.assert_close(weight.grad, rounded_map(x).detach().sum(0).expand(4, 3))
    torch.testing.assert_close(x.grad, rounded_weight(weight).detach().sum(0).expand(5, 3))


@pytest.mark.long
def test_it_learns_what_rounding_costs():
    """A network whose rounded weights were made wrong learns to be right in eight bits, where the loss is counted."""
    network = create_model("resnet20_cifar", num_classes=4).train()
    x, labels = torch.randn(16, 3, 16, 16), torch.arange(16) % 4
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(25):
        with EightBits():
            loss = F.cross_entropy(network(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.long
def test_a_training_for_int8_goes_on_to_the_same_bits(run, images, tmp_path, interrupt_at, monkeypatch):
    options = dict(weights=str(run), epochs=2, batch_size=8, threads=1)
    train(str(images), output=tmp_path / "whole", int8=True, **options)
    train(str(images), output=tmp_path / "plain", **options)
    interrupt_at(3)
    with pytest.raises(Interrupted, match="a checkpoint is written"):
        train(str(images), output=tmp_path / "stopped", int8=True, **options)
    monkeypatch.undo()
    train(str(images), output=tmp_path / "stopped", model="resnet20_cifar", resume=True)
    whole, plain, stopped = (load_tensors(tmp_path / name / WEIGHTS)[0] for name in ("whole", "plain", "stopped"))
    assert all(torch.equal(whole[key], stopped[key]) for key in whole)
    assert not all(torch.equal(whole[key], plain[key]) for key in whole)
