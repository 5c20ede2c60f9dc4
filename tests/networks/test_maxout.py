"""The maxout unit of Section 2, and the CIFAR network against the authors' cifar10.yaml."""

import pytest
import torch
from torch import nn

from convarium.networks import create_model, create_on_meta
from convarium.networks.maxout import Maxout
from convarium.surgery import to_fully_convolutional


@pytest.fixture(scope="module")
def built():
    torch.manual_seed(0)
    return create_model("maxout_cifar").eval()


def test_the_unit_by_hand():
    rows = torch.tensor([[1.0, 3.0, 2.0, -1.0, -5.0, -4.0]])
    assert Maxout(2)(rows).tolist() == [[3.0, 2.0, -4.0]]
    assert Maxout(3)(rows).tolist() == [[3.0, -1.0]]


def test_the_unit_is_the_same_at_every_place_of_a_map():
    x = torch.randn(2, 12, 3, 4)
    y = Maxout(4)(x)
    assert y.shape == (2, 3, 3, 4)
    for i in range(3):
        for j in range(4):
            assert torch.equal(y[:, :, i, j], Maxout(4)(x[:, :, i, j]))


def test_only_the_largest_piece_learns():
    x = torch.tensor([[1.0, 3.0, 2.0, -1.0]], requires_grad=True)
    Maxout(2)(x).sum().backward()
    assert x.grad.tolist() == [[0.0, 1.0, 1.0, 0.0]]


def test_two_pieces_make_a_rectifier_and_an_absolute_value():
    """Fig. 1: with pieces (x, 0) and (x, -x)."""
    x = torch.linspace(-2, 2, 9)[:, None]
    assert torch.equal(Maxout(2)(torch.cat([x, 0 * x], 1)), x.clamp(min=0))
    assert torch.equal(Maxout(2)(torch.cat([x, -x], 1)), x.abs())


def test_parameters_and_maps_of_the_authors_file():
    """Maps of 33 and 15 pixels are that file's ``partial_sum``; 15 follows from 16, so the pools round up."""
    network = create_on_meta("maxout_cifar")
    layers = {
        "h0": network.stages.h0_detector, "h1": network.stages.h1_detector, "h2": network.stages.h2_detector,
        "h3": network.head.hidden.h3, "y": network.head.classifier,
    }  # fmt: skip
    assert {name: sum(p.numel() for p in layer.parameters()) for name, layer in layers.items()} == {
        "h0": 2 * 96 * (3 * 64 + 1), "h1": 2 * 192 * (96 * 64 + 1), "h2": 2 * 192 * (192 * 25 + 1),
        "h3": 5 * 500 * (192 * 25 + 1), "y": 10 * 501,
    }  # fmt: skip
    sides = [shape[1] for shape in network.stage_shapes().values()]
    assert sides == [33, 16, 15, 7, 9, 5]


def test_a_detector_layer_by_hand(built):
    """Each of the 96 maps of h0 is the larger of two linear maps, pooled 4x4 with stride 2."""
    x = torch.randn(2, 3, 32, 32)
    pieces = built.stages.h0_detector.pieces.conv
    linear = torch.nn.functional.conv2d(x, pieces.weight, pieces.bias, padding=4)
    expected = torch.maximum(linear[:, 0::2], linear[:, 1::2])
    detected = built.stages.h0_detector(x)
    assert torch.equal(detected, expected)
    pooled = built.stages.h0_pool(detected)
    assert torch.equal(pooled[:, :, 3, 5], expected[:, :, 6:10, 10:14].amax((2, 3)))
    assert torch.equal(pooled[:, :, 15, 15], expected[:, :, 30:33, 30:33].amax((2, 3)))


def test_there_is_no_other_activation():
    kinds = {type(m) for m in create_on_meta("maxout_cifar").modules()}
    assert not kinds & {nn.ReLU, nn.Tanh, nn.Sigmoid} and Maxout in kinds


def test_a_rising_activation_on_the_pieces_is_the_same_on_their_maximum():
    torch.manual_seed(0)
    plain = create_model("maxout_cifar").eval()
    squashed = create_model("maxout_cifar", act=nn.Tanh).eval()
    squashed.load_state_dict(plain.state_dict())
    x = 50 * torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(squashed.stages.h0_detector(x), plain.stages.h0_detector(x).tanh())


def test_dropout_stands_before_every_layer():
    network = create_on_meta("maxout_cifar")
    found = [(path, m.p) for path, m in network.named_modules() if isinstance(m, nn.Dropout)]
    assert found == [
        ("stages.h0_detector.drop", 0.2), ("stages.h1_detector.drop", 0.5), ("stages.h2_detector.drop", 0.5),
        ("head.hidden.h3.drop", 0.5), ("head.drop", 0.5),
    ]  # fmt: skip
    for layer in (network.stages.h0_detector, network.stages.h1_detector, network.stages.h2_detector):
        assert next(iter(dict(layer.named_children()))) == "drop"


def test_initialisation(built):
    for layer in (m for m in built.modules() if isinstance(m, nn.Conv2d | nn.Linear)):
        bound = layer.weight.abs().max().item()
        assert 0.99 * 0.005 < bound <= 0.005 and not layer.bias.any()


def test_the_dense_maxout_slides_over_larger_images(built):
    sliding = to_fully_convolutional(built)
    x = 100 * torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(sliding(x), built(x))
        assert sliding(torch.randn(1, 3, 40, 56)).shape == (1, 10)
