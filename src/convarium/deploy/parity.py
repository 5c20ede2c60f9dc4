"""Whether an exported file gives what torch gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from convarium.errors import GateError

if TYPE_CHECKING:
    from torch import nn

TOLERANCE = 1e-4

Logits = Callable[[np.ndarray], np.ndarray]  # uint8 (N, H, W, C) to float32 (N, classes)


@dataclass(frozen=True)
class Reference:
    """Batches as the file takes them, and the logits torch gives for each."""

    batches: list[np.ndarray]
    logits: list[np.ndarray]

    @property
    def images(self) -> int:
        return sum(map(len, self.batches))

    @property
    def classes(self) -> int:
        return self.logits[0].shape[1]


def torch_reference(graph: nn.Module, batches: list[np.ndarray]) -> Reference:
    import torch

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
    """As :func:`largest_difference`, for one batch of ``shape``."""
    scale = np.maximum(1, np.abs(expected).max(axis=1))
    difference = float((np.abs(received - expected).max(axis=1) / scale).max())
    best_two = np.sort(expected, axis=1)[:, -2:]
    decided = (best_two[:, -1] - best_two[:, 0]) / scale > TOLERANCE
    flipped = int((decided & (received.argmax(axis=1) != expected.argmax(axis=1))).sum())
    if flipped or not difference <= TOLERANCE:  # not ">": NaN fails too
        raise GateError(
            f"the exported file does not agree with torch, and is not kept: on {'x'.join(map(str, shape))} values its "
            f"logits differ by {difference:.1e} of the largest (at most {TOLERANCE:.0e} is allowed) and {flipped} "
            "have another best class"
        )
    return difference
