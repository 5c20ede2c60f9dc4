"""How far an explanation moved from one network to another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

STRONGEST = 0.1  # of the pixels


@dataclass(frozen=True)
class HeatMoved:
    """Of two maps of heat: their ``rank_correlation`` (-1..1; none where one map is the same everywhere), and what part
    of the strongest tenth of one is in the strongest tenth of the other (1: all; about 0.1 by chance)."""

    rank_correlation: float | None
    overlap: float


@dataclass(frozen=True)
class NumbersMoved:
    """Of the numbers that two explanations share: how many, the mean size of their differences, and the largest one,
    by its path, as ``before`` and ``after``."""

    shared: int
    mean_difference: float
    largest: str
    before: float
    after: float


def heat_moved(before: np.ndarray, after: np.ndarray) -> HeatMoved:
    """Compare maps ``(H, W)``; one of another size is resized to that of ``before``."""
    after = _resized(after, before.shape)
    correlation = rank_correlation(before, after)
    return HeatMoved(None if math.isnan(correlation) else correlation, overlap(before, after))


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's: the correlation of the ranks, equal values sharing the mean of theirs; NaN where all are equal."""
    x, y = (ranks(each.ravel()) for each in (a, b))
    x, y = x - x.mean(), y - y.mean()
    size = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / size if size else math.nan


def ranks(values: np.ndarray) -> np.ndarray:
    """From 1; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place]


def overlap(a: np.ndarray, b: np.ndarray, part: float = STRONGEST) -> float:
    """What part of the places of the largest values of ``a`` has the largest of ``b``, too; of equal values the first
    ones count."""
    count = max(1, round(part * a.size))
    strongest = [set(np.argsort(-each.ravel(), kind="stable")[:count].tolist()) for each in (a, b)]
    return len(strongest[0] & strongest[1]) / count


def numbers_moved(before: dict[str, Any], after: dict[str, Any]) -> NumbersMoved | None:
    """Compare the numbers that stand under the same path in both; ``None`` where there are none."""
    first, second = dict(_leaves(before)), dict(_leaves(after))
    shared = [path for path in first if path in second]
    if not shared:
        return None
    sizes = {path: abs(second[path] - first[path]) for path in shared}
    largest = max(shared, key=lambda path: sizes[path])
    return NumbersMoved(len(shared), sum(sizes.values()) / len(shared), largest, first[largest], second[largest])


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Finite numbers in nested dicts and lists, each with its path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{i}]")
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield path, float(value)


def _resized(heat: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if heat.shape == shape:
        return heat
    import torch
    from torch.nn import functional as F

    given = torch.from_numpy(np.ascontiguousarray(heat))[None, None]
    return F.interpolate(given, shape, mode="bilinear", align_corners=False, antialias=True)[0, 0].numpy()
