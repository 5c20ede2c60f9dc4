"""A budget, and how successive halving shares it out.

(K. Jamieson, A. Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016:
every round has an equal part of the budget, shared equally by the candidates that are left.)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from convarium.errors import UsageError

SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Budget:
    """Seconds of training for the whole race, or epochs for each network of the last round; the other is 0."""

    text: str
    seconds: float = 0.0
    epochs: int = 0


def parse_budget(text: str) -> Budget:
    """``90s``, ``10m``, ``1.5h``, or ``20epochs``.

    Raises:
        UsageError: anything else, nothing at all, or epochs that are not whole.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *(s|m|h|epochs?)", text.strip())
    number, unit = (float(found[1]), found[2]) if found else (0.0, "")
    if not number or (unit not in SECONDS and number != int(number)):
        raise UsageError(
            f"--budget is a time for the whole race, such as 90s, 10m or 1h, or epochs for each network of the last "
            f"round, such as 20epochs; got {text!r}"
        )
    return Budget(text.strip(), number * SECONDS[unit]) if unit in SECONDS else Budget(text.strip(), 0.0, int(number))


def field_sizes(candidates: int) -> list[int]:
    """How many run in each round: the better half goes on, until the last round is between two."""
    sizes = [candidates]
    while sizes[-1] > 2:
        sizes.append(-(-sizes[-1] // 2))
    return sizes


def epochs_by_round(epochs: int, rounds: int) -> list[int]:
    """``epochs`` in whole parts, each about twice the one before: a round has half as many to share with.

    Raises:
        UsageError: fewer epochs than rounds.
    """
    if epochs < rounds:
        raise UsageError(f"--budget {epochs}epochs is too small: {rounds} rounds need an epoch each, {rounds}epochs")
    done = [0]
    for round_ in range(1, rounds + 1):
        done.append(max(done[-1] + 1, round(epochs * (2**round_ - 1) / (2**rounds - 1))))
    return [after - before for before, after in pairwise(done)]


def share_s(left_s: float, sizes_left: list[int]) -> float:
    """Seconds for each network of the next round, where ``left_s`` are left for rounds of ``sizes_left``."""
    return left_s / len(sizes_left) / sizes_left[0]


def epochs_in(share: float, epoch_s: float) -> int:
    """Whole epochs of ``epoch_s`` seconds; one where the first round's pace was too hopeful."""
    return max(1, int(share / epoch_s))
