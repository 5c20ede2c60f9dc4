"""How much eight bits in a layer disturb the logits, and how few layers in float keep the accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

MOST_DB = 100.0  # what a layer gets that changes nothing

Tried = TypeVar("Tried")


def sqnr_db(exact: np.ndarray, changed: np.ndarray) -> float:
    """``10 log10 (sum of squares / sum of squared changes)`` of ``(n, classes)`` logits, within +-:data:`MOST_DB`.

    Each row is taken less its mean, which no prediction depends on.
    """
    signal, noise = (np.sum((x - x.mean(axis=1, keepdims=True)) ** 2) for x in (exact, changed - exact))
    if not np.isfinite(noise):
        return -MOST_DB
    least = 10 ** (-MOST_DB / 10)
    return float(10 * np.log10(np.clip(signal / max(noise, 1e-30), least, 1 / least)))


def fewest(
    order: Sequence[str],
    attempt: Callable[[Sequence[str]], Tried],
    *,
    fits: Callable[[Tried], bool],
    worth: Callable[[Tried], bool],
) -> Tried | None:
    """The attempt that fits with the fewest of the first of ``order``, or ``None``.

    Their number is doubled until an attempt fits, then halved towards the last that did not. The search ends where an
    attempt is not worth it; one of ``order`` is never given away.
    """
    failed, count, most = 0, 1, len(order) - 1
    found = None
    while found is None:
        count = min(count, most)
        if count == failed or not worth(tried := attempt(order[:count])):
            return None
        if fits(tried):
            found = tried
        else:
            failed, count = count, 2 * count
    while count - failed > 1:
        middle = (failed + count) // 2
        tried = attempt(order[:middle])
        if fits(tried) and worth(tried):
            found, count = tried, middle
        else:
            failed = middle
    return found
