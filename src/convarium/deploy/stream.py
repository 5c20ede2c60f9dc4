"""Images of any number in bounded memory: some are read while others are in the network."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from convarium.data.images import as_channels, read_image
from convarium.errors import DataError

AHEAD = 4  # images read before they are asked for
BATCH, BATCH_BYTES = 16, 2**25  # of one size that go through the network together, and what they may weigh

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Read:
    """An image ``(H, W, C)`` uint8, or why there is none; ``path`` is ``None`` for one that came as an array."""

    path: str | None
    pixels: np.ndarray | None
    error: str | None = None

    @property
    def shape(self) -> tuple[int, ...] | None:
        return None if self.pixels is None else self.pixels.shape


def batches(images: Iterable[str | Path | np.ndarray], channels: int) -> Iterator[list[Read]]:
    """Images in their order; those of one size that follow each other are together, and so are those without pixels.

    Raises:
        DataError: an array that is no image.
    """
    batch: list[Read] = []
    for image in _ahead(lambda image: _read(image, channels), images):
        weight = 0 if image.pixels is None else image.pixels.nbytes
        if batch and (image.shape != batch[0].shape or len(batch) == BATCH or (len(batch) + 1) * weight > BATCH_BYTES):
            yield batch
            batch = []
        batch.append(image)
    if batch:
        yield batch


def _ahead(load: Callable[[Item], Loaded], items: Iterable[Item]) -> Iterator[Loaded]:
    """``load`` of every item in their order, the next few being made while the last is in use."""
    left = iter(items)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting = deque(pool.submit(load, item) for item in islice(left, AHEAD))
        while waiting:
            ready = waiting.popleft().result()
            waiting.extend(pool.submit(load, item) for item in islice(left, 1))
            yield ready


def _read(image: str | Path | np.ndarray, channels: int) -> Read:
    if isinstance(image, np.ndarray):
        return Read(None, as_channels(_checked(image), channels))
    try:
        return Read(str(image), read_image(image, channels))
    except (DataError, OSError) as error:  # such as a name that is too long for the file system
        return Read(str(image), None, str(error))


def _checked(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3) or not image.size:
        raise DataError(f"an image is uint8 (height, width, 1 or 3); got {image.dtype} {image.shape}")
    return image
