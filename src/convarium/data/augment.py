"""Augmentation, vectorised over the batch. Its random numbers are keyed on (seed, epoch, index): neither the order of
the images nor the batch they fall into changes a sample."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

DRAWS = 5  # uniform numbers per image


@dataclass(frozen=True)
class Augmentation:
    """How far an image may move.

    Attributes:
        rotation: degrees to either side.
        scale: the smallest and largest magnification.
        shift: part of the image's side, to either side.
        flip: mirror half of the images.
    """

    rotation: float = 5.0
    scale: tuple[float, float] = (0.9, 1.1)
    shift: float = 0.06
    flip: bool = False


def draw(seed: int, epoch: int, count: int) -> Tensor:
    """``(count, DRAWS)`` uniform numbers; row i belongs to image i in that epoch whatever else is drawn."""
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return torch.from_numpy(generator.random((count, DRAWS), dtype=np.float32))


def shuffle(seed: int, epoch: int, count: int) -> Tensor:
    """The order of ``count`` images in that epoch."""
    generator = np.random.Generator(np.random.Philox(key=[seed, 2**63 + epoch]))
    return torch.from_numpy(generator.permutation(count))


def augment(images: Tensor, draws: Tensor, how: Augmentation, size: int) -> Tensor:
    """Move, turn, scale and mirror a batch in one resampling.

    Args:
        images: ``(N, C, side, side)``, floating.
        draws: ``(N, DRAWS)`` in [0, 1).
        how: the limits.
        size: side of the result, the crop's part of ``images`` at magnification 1.

    Returns:
        ``(N, C, size, size)``; pixels from outside the image repeat its border.
    """
    side = images.shape[-1]
    centred = 2 * draws - 1
    angle = centred[:, 0] * math.radians(how.rotation)
    low, high = how.scale
    zoom = (size / side) / (low + (high - low) * draws[:, 1])
    shift_x, shift_y = 2 * how.shift * centred[:, 2], 2 * how.shift * centred[:, 3]
    mirror = torch.where(draws[:, 4] < 0.5, -1.0, 1.0) if how.flip else torch.ones_like(angle)
    cos, sin = zoom * torch.cos(angle), zoom * torch.sin(angle)
    theta = torch.stack([mirror * cos, -sin, shift_x, mirror * sin, cos, shift_y], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, [len(images), images.shape[1], size, size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
