"""What an exported file takes: images as they are read, or tensors that something else has prepared; and batches of
either to try it with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from convarium.data.preprocess import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor


class Input(NamedTuple):
    """Its name in the graph, an example to trace the graph with, and the dimensions that may differ from it."""

    name: str
    example: Tensor
    dynamic: dict[int, Any]


def image_input(preprocessing: Preprocessing) -> Input:
    """uint8 ``(batch, height, width, channels)``, of any size."""
    import torch
    from torch.export import Dim

    # Sides that differ from each other and from the crop's, so that none is taken for a constant.
    images = torch.zeros(2, preprocessing.size + 5, preprocessing.size + 9, preprocessing.channels, dtype=torch.uint8)
    return Input("image", images, {0: Dim("batch"), 1: Dim("height"), 2: Dim("width")})


def tensor_input(preprocessing: Preprocessing) -> Input:
    """float32 ``(batch, channels, size, size)``, resized, cropped and normalised."""
    import torch
    from torch.export import Dim

    tensors = torch.zeros(2, preprocessing.channels, preprocessing.size, preprocessing.size)
    return Input("tensor", tensors, {0: Dim("batch")})


def image_batches(preprocessing: Preprocessing, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """``images``, one by one, and made-up ones: smaller than the crop, equal to it, many times it, long and thin, and
    three at once."""
    size = preprocessing.size
    shapes = [
        (1, size // 4 + 1, size // 3 + 1),
        (1, size, size),
        (1, 7 * size + 3, 5 * size),
        (1, size // 2 + 1, 20 * size),
        (3, 2 * size + 1, size + 5),
    ]
    generator = np.random.default_rng(0)
    awkward = [_patches_and_noise(generator, (*shape, preprocessing.channels)) for shape in shapes]
    return [*(np.ascontiguousarray(image)[None] for image in images), *awkward]


def tensor_batches(preprocessing: Preprocessing, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The same, prepared."""
    import torch

    from convarium.data.resize import Preprocess

    prepare = Preprocess(preprocessing)
    with torch.inference_mode():
        return [prepare(torch.tensor(batch)).numpy() for batch in image_batches(preprocessing, images)]


def _patches_and_noise(generator: np.random.Generator, shape: tuple[int, int, int, int]) -> np.ndarray:
    """Noise, which shows a resize that skips pixels, on 5x5 patches, which are still seen after any resize."""
    count, height, width, channels = shape
    patches = generator.integers(0, 128, (count, 5, 5, channels))
    rows, columns = (np.arange(side) * 5 // side for side in (height, width))
    return (patches[:, rows][:, :, columns] + generator.integers(0, 128, shape)).astype(np.uint8)
