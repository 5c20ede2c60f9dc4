"""The gradient by depth: against a hand computation, the laws of the chain rule, and what sigmoids do to it."""

import json
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convarium import create_model
from convarium.blocks import conv_bn
from convarium.cli import main
from convarium.explanation.gradient_flow import fall, gradient_flow
from convarium.network import Head, Network


def two_layers() -> Network:
    """A 1x1 convolution without activation on one pixel, then a dense layer: logits = V W x."""
    stages = {"first": nn.Conv2d(2, 3, 1, bias=False)}
    network = Network(stages, Head(3, 2), input_size=(2, 1, 1), min_input_size=1)
    nn.init.zeros_(network.head.classifier.bias)
    return network.double()


def norms(rows, of="weights") -> list[float]:
    return [row.norm for row in rows if row.of == of]


def test_two_layers_by_hand():
    torch.manual_seed(0)
    network, x = two_layers(), torch.randn(2, dtype=torch.float64)
    w, v = network.stages["first"].weight.detach()[:, :, 0, 0], network.head.classifier.weight.detach()
    hidden = w @ x
    error = (v @ hidden).softmax(0) - torch.tensor([0.0, 1.0])  # of the cross entropy for class 1
    rows = gradient_flow(network, x.view(1, 2, 1, 1), torch.tensor([1]))
    assert [(row.name, row.of, row.depth) for row in rows] == [
        ("first", "weights", 1), ("first", "map", 1), ("head.classifier", "weights", 2),
    ]  # fmt: skip
    back = v.T @ error
    by_hand = [torch.outer(back, x).norm(), back.norm(), torch.outer(error, hidden).norm()]
    assert [row.norm for row in rows] == pytest.approx([value.item() for value in by_hand], rel=1e-12)


def test_twice_the_loss_is_twice_the_gradient_everywhere():
    torch.manual_seed(0)
    network = create_model("resnet20_cifar").double()
    x, y = torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.arange(4)
    once = gradient_flow(network, x, y)
    twice = gradient_flow(network, x, y, loss=lambda logits, labels: 2 * F.cross_entropy(logits, labels))
    assert [row.norm for row in twice] == pytest.approx([2 * row.norm for row in once], rel=1e-9)
    assert [row.name for row in once if row.of == "map"] == list(network.stages)
    assert once[-1].depth == 20 and min(row.norm for row in once) > 0


def test_the_network_is_left_as_it_was():
    """Frozen weights, running statistics, mode and hooks; after an error too."""
    network = create_model("resnet20_cifar").requires_grad_(False).eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    x, y = torch.randn(4, 3, 8, 8), torch.arange(4)
    with torch.no_grad():
        assert min(row.norm for row in gradient_flow(network, x, y)) > 0
    with pytest.raises(IndexError):
        gradient_flow(network, x, y + 10)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    modules = list(network.modules())
    assert not any(module.training or module._forward_hooks for module in modules)
    assert not any(p.requires_grad or p.grad is not None for p in network.parameters())


def test_it_is_the_gradient_of_a_training_step():
    """Batch norm by the batch's statistics, not by those that a network at its start does not have yet."""
    torch.manual_seed(0)
    network = create_model("resnet20_cifar")
    x, y = torch.randn(4, 3, 8, 8), torch.arange(4)
    rows = gradient_flow(network, x, y)
    F.cross_entropy(network.train()(x), y).backward()
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert norms(rows) == pytest.approx([m.weight.grad.double().norm().item() for m in layers], rel=1e-5)


def test_sigmoids_lose_it_by_depth_and_batch_norm_or_a_shortcut_keep_more_of_it():
    """The derivative of a sigmoid is a quarter at most, and each layer multiplies by another (Glorot and Bengio 2010);
    with batch norm and rectifiers even plain nets lose nothing (He et al. 2016, Section 4.1)."""

    def lost(name, **arguments):
        torch.manual_seed(0)
        return fall(gradient_flow(create_model(name, **arguments).double(), x, y))

    x, y = torch.randn(8, 3, 8, 8, dtype=torch.float64), torch.arange(8)
    bare = dict(conv=partial(conv_bn, norm=None), act=nn.Sigmoid)
    assert lost("plain20_cifar", **bare) < 1e-6
    assert lost("plain20_cifar", **bare) < 1e-2 * lost("resnet20_cifar", **bare)
    assert lost("plain20_cifar") > 0.1


def test_a_run_with_snapshots_shows_each_moment(snapshot_run, images, tmp_path, capsys):
    flags = ["--data", str(images), "--limit", "30", "--count", "1", "--method", "gradient-flow", "--json"]
    assert main(["explain", str(snapshot_run), *flags, "--output", str(tmp_path)]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert list(row["numbers"]) == ["before training", "after epoch 1", "after epoch 2"]
    depths = [entry["depth"] for entry in row["numbers"]["before training"]]
    assert depths == sorted(depths) and (tmp_path / "by-depth-gradient-flow.png").stat().st_size > 10_000
    assert all(math.isfinite(entry["norm"]) for rows in row["numbers"].values() for entry in rows)


def test_it_needs_a_data_set(snapshot_run, capsys):
    assert main(["explain", str(snapshot_run), "--method", "gradient-flow"]) == 2
    assert "gradient-flow needs a data set: add --data DATA" in capsys.readouterr().err
