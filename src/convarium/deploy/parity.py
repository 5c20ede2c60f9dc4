"""Whether an exported file gives what torch gives: on real images, and on made-up ones of awkward sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from convarium.data.preprocess import Preprocessing
from convarium.errors import GateError

if TYPE_CHECKING:
    from torch import nn

TOLERANCE = 1e-4

Logits = Callable[[np.ndarray], np.ndarray]  # uint8 (N, H, W, C) to float32 (N, classes)


@dataclass(frozen=True)
class Reference:
    """Batches ``(N, H, W, C)`` uint8, and the logits torch gives for each."""

    batches: list[np.ndarray]
    logits: list[np.ndarray]

    @property
    def images(self) -> int:
        return sum(map(len, self.batches))

    @property
    def classes(self) -> int:
        return self.logits[0].shape[1]


def torch_reference(graph: nn.Module, preprocessing: Preprocessing, images: Sequence[np.ndarray]) -> Reference:
    """What ``graph``, preprocessing and network, gives for ``images`` and for awkward ones."""
    import torch

    batches = [*(np.ascontiguousarray(image)[None] for image in images), *_awkward_batches(preprocessing)]
    with torch.inference_mode():
        return Reference(batches, [graph(torch.tensor(batch)).numpy() for batch in batches])


def largest_difference(network: Logits, reference: Reference) -> float:
    """Of all logits from torch's, relative to the largest logit of the image, or to 1 if that is less.

    Raises:
        GateError: more than :data:`TOLERANCE`, or another best class.
    """
    pairs = zip(reference.batches, reference.logits, strict=True)
    return max(compare(network(batch), expected, batch.shape) for batch, expected in pairs)


def compare(received: np.ndarray, expected: np.ndarray, shape: tuple[int, ...]) -> float:
    """As :func:`largest_difference`, for one batch of images of ``shape``."""
    scale = np.maximum(1, np.abs(expected).max(axis=1))
    difference = float((np.abs(received - expected).max(axis=1) / scale).max())
    best_two = np.sort(expected, axis=1)[:, -2:]
    decided = (best_two[:, -1] - best_two[:, 0]) / scale > TOLERANCE
    flipped = int((decided & (received.argmax(axis=1) != expected.argmax(axis=1))).sum())
    if flipped or not difference <= TOLERANCE:  # not ">": NaN fails too
        count, height, width, _ = shape
        raise GateError(
            f"the exported file does not agree with torch, and is not kept: on {count} images of {height}x{width} its "
            f"logits differ by {difference:.1e} of the largest (at most {TOLERANCE:.0e} is allowed) and {flipped} "
            "have another best class"
        )
    return difference


def _awkward_batches(preprocessing: Preprocessing) -> list[np.ndarray]:
    """Images smaller than the crop, equal to it, many times it, long and thin, and three at once."""
    size = preprocessing.size
    shapes = [
        (1, size // 4 + 1, size // 3 + 1),
        (1, size, size),
        (1, 7 * size + 3, 5 * size),
        (1, size // 2 + 1, 20 * size),
        (3, 2 * size + 1, size + 5),
    ]
    generator = np.random.default_rng(0)
    return [_patches_and_noise(generator, (*shape, preprocessing.channels)) for shape in shapes]


def _patches_and_noise(generator: np.random.Generator, shape: tuple[int, int, int, int]) -> np.ndarray:
    """Noise, which shows a resize that skips pixels, on 5x5 patches, which are still seen after any resize."""
    count, height, width, channels = shape
    patches = generator.integers(0, 128, (count, 5, 5, channels))
    rows, columns = (np.arange(side) * 5 // side for side in (height, width))
    return (patches[:, rows][:, :, columns] + generator.integers(0, 128, shape)).astype(np.uint8)
