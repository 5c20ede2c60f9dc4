"""Several networks as one: their scores averaged, and what each of them adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convarium.evaluation.metrics import softmax, top_k_error_percent
from convarium.evaluation.predictions import Average


@dataclass(frozen=True)
class Contribution:
    """Top-1 errors in per cent, on the same images: of the member ``alone``, of it ``with_those_before``, and of the
    ensemble ``without_it``; ``gain`` is by how many points the whole is better than without it."""

    alone: float
    with_those_before: float
    without_it: float
    gain: float


def combine(scores: Sequence[np.ndarray], average: Average) -> np.ndarray:
    """Probabilities ``(n, classes)`` of an ensemble from its members' probabilities, or logits."""
    mean = np.mean(scores, axis=0)
    return mean if average == "probabilities" else softmax(mean)


def contributions(scores: Sequence[np.ndarray], truth: np.ndarray, average: Average) -> list[Contribution]:
    """What each of two members or more does. They join in the order given, since a greedy order would be chosen by the
    very images that judge."""

    def error(members: Sequence[np.ndarray]) -> float:
        return top_k_error_percent(combine(members, average), truth, 1)

    whole = error(scores)
    found = []
    for i, own in enumerate(scores):
        without = error([*scores[:i], *scores[i + 1 :]])
        found.append(Contribution(error([own]), error(scores[: i + 1]), without, without - whole))
    return found
