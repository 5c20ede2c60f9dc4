"""Images for quantisation: those that ranges of numbers are taken from, and those that judge the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from convarium.data.datasets import Dataset, check_classes
from convarium.data.loading import ahead
from convarium.errors import DataError
from convarium.runs import Run

BATCH = 32  # images read at once, and judged at once where their sizes are the same

Logits = Callable[[np.ndarray], np.ndarray]  # uint8 (N, H, W, C) to float32 (N, classes)


@dataclass(frozen=True)
class Samples:
    """Images at ``positions`` of a data set, read anew each time, so that any number fits into memory.

    ``labels`` are positions in the network's class names.
    """

    dataset: Dataset
    positions: np.ndarray
    labels: np.ndarray
    channels: int

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[np.ndarray]:
        """One batch ``(1, H, W, C)`` uint8 per image."""
        for position in self.positions:
            yield np.ascontiguousarray(self.dataset.read(int(position), self.channels)[None])

    def first(self, count: int) -> Samples:
        return Samples(self.dataset, self.positions[:count], self.labels[:count], self.channels)

    def logits(self, network: Logits, tick: Callable[[int], None] = lambda done: None) -> np.ndarray:
        """``(n, classes)``; images of one size go through the network together."""
        found: list[np.ndarray] = [np.empty(0)] * len(self)
        groups = [range(start, min(start + BATCH, len(self))) for start in range(0, len(self), BATCH)]

        def read(place: int) -> np.ndarray:
            return self.dataset.read(int(self.positions[place]), self.channels)

        for places, images in zip(groups, ahead(read, groups), strict=True):
            for shape in dict.fromkeys(image.shape for image in images):
                same = [i for i, image in enumerate(images) if image.shape == shape]
                for i, row in zip(same, network(np.stack([images[i] for i in same])), strict=True):
                    found[places[i]] = row
            tick(places[-1] + 1)
        return np.stack(found)


def choose_samples(run: Run, dataset: Dataset, count: int) -> tuple[Samples, Samples]:
    """Training images to calibrate on, as many of each class as there are, and held-out images to judge on.

    Where the data has held-out images alone, ``count`` of them calibrate and the others judge.

    Raises:
        DataError: classes that are not the network's, or no images for one of the two.
    """
    labels = check_classes(dataset, run.class_names)
    held_out = dataset.positions(dataset.held_out)
    source = dataset.splits.get("train", held_out)
    chosen = _evenly(source, labels[source], count)
    judges = np.setdiff1d(held_out, chosen)
    for what, positions in (("calibrate", chosen), ("judge", judges)):
        if not len(positions):
            raise DataError(f"{dataset.name} has no images to {what} on: quantisation takes some of each kind")
    channels = run.preprocessing.channels
    return Samples(dataset, chosen, labels[chosen], channels), Samples(dataset, judges, labels[judges], channels)


def _evenly(positions: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """``count`` positions: one drawn of each class in turn, as long as there are."""
    order = np.random.default_rng(0).permutation(len(positions))
    rank = np.zeros(len(positions), dtype=np.int64)  # how many of its class were drawn before it
    for label in np.unique(labels):
        own = order[labels[order] == label]
        rank[own] = np.arange(len(own))
    return positions[np.lexsort((labels, rank))[:count]]
