"""Curves by hand on a network that says itself which pixels it reads."""

import numpy as np
import pytest
import torch
from torch import nn

from convarium.explanation.faithfulness import area, blurred, deletion, insertion


class Reads(nn.Module):
    """Two classes: the logit of the first is the mean over the pixels of ``where``, times ten, less five."""

    def __init__(self, where):
        super().__init__()
        self.where = where

    def forward(self, x):
        logit = 10 * (x[:, 0] * self.where).sum((1, 2)) / self.where.sum() - 5
        return torch.stack([logit, torch.zeros_like(logit)], 1)


@pytest.fixture
def where():
    where = torch.zeros(8, 8)
    where[2:4, 4:6] = 1
    return where


def test_the_curves_of_the_true_map_by_hand(where):
    """Four of 64 pixels are read: with 16 steps of four the first step takes all of them."""
    image = torch.ones(1, 1, 8, 8)
    curve = deletion(Reads(where), image, 0, where.numpy(), steps=16)
    high, low = (1 / (1 + np.exp(-logit)) for logit in (5, -5))
    np.testing.assert_allclose(curve, [high, *[low] * 16], rtol=1e-5)
    assert area(curve) == pytest.approx(low + (high - low) / 32, rel=1e-4)


def test_a_true_map_beats_noise_and_noise_beats_its_opposite(where):
    image = where[None, None] * 2 - 1  # bright where it is read, so that blurring hides it
    heats = [where.numpy(), np.random.default_rng(1).random((8, 8)), -where.numpy()]
    out = [area(deletion(Reads(where), image + 0.5, 0, heat)) for heat in heats]
    into = [area(insertion(Reads(where), image, 0, heat)) for heat in heats]
    assert out[0] < out[1] < out[2] and into[0] > into[1] > into[2]


def test_curves_begin_and_end_with_whole_images_and_are_the_same_each_time(where):
    image, model = torch.rand(1, 1, 8, 8), Reads(where)
    flat = np.zeros((8, 8))
    out, into = deletion(model, image, 0, flat, steps=7), insertion(model, image, 0, flat, steps=7)
    ends = [model(x).softmax(1)[0, 0] for x in (image, torch.zeros_like(image), blurred(image))]
    np.testing.assert_allclose([out[0], out[-1], into[0], into[-1]], [*ends, ends[0]], rtol=1e-5)
    assert np.array_equal(out, deletion(model, image, 0, flat, steps=7)) and len(out) == 8


def test_area_is_the_mean_height():
    assert area(np.array([1.0, 1.0, 1.0])) == 1
    assert area(np.array([1.0, 0.0])) == 0.5


def test_blurring_keeps_what_is_flat_and_the_sum_of_the_weights():
    torch.testing.assert_close(blurred(torch.full((1, 3, 16, 16), 0.7)), torch.full((1, 3, 16, 16), 0.7))
    point = torch.zeros(1, 1, 33, 33)
    point[..., 16, 16] = 1
    spot = blurred(point)[0, 0]
    assert spot.sum() == pytest.approx(1, abs=1e-5) and spot[16, 16] == spot.max() < 0.1
    torch.testing.assert_close(spot, spot.T)
