"""From a data set's images to batches of tensors: decoded once into memory where that fits, else batch by batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from convarium.data.datasets import Dataset

MEMORY_BUDGET = 2 * 2**30  # bytes of decoded images to keep

Transform = Callable[[np.ndarray], Tensor]
Tick = Callable[[int], None]
Loaded = TypeVar("Loaded")


class ImageStore:
    """The images at ``positions`` of a data set, each through ``transform``: ``(H, W, C)`` uint8 to a tensor.

    Which image is at which place depends on ``positions`` alone, not on memory, threads or order of access.
    """

    def __init__(
        self,
        dataset: Dataset,
        positions: Sequence[int] | np.ndarray,
        channels: int,
        transform: Transform,
        *,
        budget: int = MEMORY_BUDGET,
        tick: Tick = lambda done: None,
    ) -> None:
        self.dataset, self.positions, self.channels, self.transform = dataset, positions, channels, transform
        self.labels = torch.from_numpy(dataset.labels[positions])
        self.memory: Tensor | None = None
        first = self._load(0)
        if first.nbytes * len(self) <= budget:
            self.memory = torch.empty(len(self), *first.shape, dtype=first.dtype)
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for place, image in enumerate(pool.map(self._load, range(len(self)))):
                    self.memory[place] = image
                    tick(place + 1)

    def __len__(self) -> int:
        return len(self.positions)

    def _load(self, place: int) -> Tensor:
        return self.transform(self.dataset.read(int(self.positions[place]), self.channels))

    def batches(self, order: Sequence[Tensor]) -> Iterator[Tensor]:
        """One stacked tensor per tensor of places, the next one being decoded while the last is in use."""
        if self.memory is not None:
            for places in order:
                yield self.memory[places]
            return
        yield from map(torch.stack, ahead(self._load, [places.tolist() for places in order]))


def ahead(load: Callable[[int], Loaded], order: Sequence[Sequence[int]]) -> Iterator[list[Loaded]]:
    """``load`` of every place, one list per group of places, the next one being made while the last is in use."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting = [pool.map(load, places) for places in order[:1]]
        for following in [*order[1:], None]:
            ready = waiting.pop()
            if following is not None:
                waiting.append(pool.map(load, following))
            yield list(ready)
