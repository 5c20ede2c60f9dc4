"""Which pixels a unit of a stage can see, and those pixels of an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convarium.anatomy.trace import Field, trace
from convarium.network import Network


@dataclass(frozen=True)
class Region:
    """Pixels from row ``top`` to row ``bottom`` and from ``left`` to ``right``, the last ones too; what lies outside
    the image is padding."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        return self.bottom - self.top + 1, self.right - self.left + 1

    @property
    def middle(self) -> tuple[float, float]:
        """Row and column; between two pixels where a side is even."""
        return (self.top + self.bottom) / 2, (self.left + self.right) / 2

    def shrunk(self, reach: float) -> Region:
        """A square about its middle, to ``reach`` pixels from there, and no part of it outside this region."""
        row, column = self.middle
        top, left = max(self.top, math.ceil(row - reach)), max(self.left, math.ceil(column - reach))
        return Region(top, min(self.bottom, int(row + reach)), left, min(self.right, int(column + reach)))

    def inside(self, sides: Sequence[int]) -> Region:
        """The part of it that lies in an image of this height and width."""
        return Region(
            max(self.top, 0), min(self.bottom, sides[0] - 1), max(self.left, 0), min(self.right, sides[1] - 1)
        )

    def cut(self, image: np.ndarray) -> np.ndarray:
        """These pixels of ``(H, W)`` or ``(H, W, C)``: padding is NaN, and no side is longer than the image's."""
        height, width = image.shape[:2]
        whole = Region(*_within(self.top, self.bottom, height), *_within(self.left, self.right, width))
        seen = whole.inside((height, width))
        part = np.full((*whole.sides, *image.shape[2:]), np.nan)
        rows = slice(seen.top - whole.top, seen.bottom - whole.top + 1)
        columns = slice(seen.left - whole.left, seen.right - whole.left + 1)
        part[rows, columns] = image[seen.top : seen.bottom + 1, seen.left : seen.right + 1]
        return part


def reach_of(weight: np.ndarray, field: Region, share: float) -> float:
    """How far from the middle of ``field`` the smallest square goes that holds a ``share`` of ``weight`` ``(H, W)``, in
    pixels; 0 where there is no weight."""
    row, column = field.middle
    rows, columns = np.indices(weight.shape)
    distance = np.maximum(abs(rows - row), abs(columns - column)).ravel()
    order = np.argsort(distance, kind="stable")
    held = np.cumsum(weight.ravel()[order])
    return float(distance[order][np.searchsorted(held, share * held[-1])]) if held[-1] > 0 else 0.0


def _within(low: int, high: int, side: int) -> tuple[int, int]:
    return (low, high) if high - low < side else (0, side - 1)


class ReceptiveFields:
    """Of all stages of a network.

    Args:
        model: the network.
        size: ``(channels, height, width)`` of the images.
    """

    def __init__(self, model: Network, size: tuple[int, int, int]) -> None:
        self.sides = size[1:]
        self.fields: dict[str, tuple[Field, Field] | None] = dict.fromkeys(model.stages)
        for row in trace(model, size).rows:
            part, _, path = row.path.partition(".")
            if part == "stages":
                self.fields[path.partition(".")[0]] = row.fields  # the last row of a stage is the one that stays

    def of(self, stage: str, row: int, column: int) -> Region:
        """What a unit of the stage's map sees."""
        fields = self.fields[stage]
        if fields is None:
            return Region(0, self.sides[0] - 1, 0, self.sides[1] - 1)
        return Region(*fields[0].at(row), *fields[1].at(column))

    def side(self, stage: str) -> int:
        """Of the units that see most, in pixels, along the longer side."""
        fields = self.fields[stage]
        return max(self.sides) if fields is None else max(field.size for field in fields)

    def telling(self) -> str:
        """The last stage whose units see three quarters of the image's side at most; the first where all see more."""
        most = 0.75 * min(self.sides)
        within = [name for name, fields in self.fields.items() if fields and self.side(name) <= most]
        return within[-1] if within else next(iter(self.fields))
