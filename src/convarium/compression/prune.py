"""Pruning: which units go, by a ratio or until a cost is met, and the cut.

One call is one step. Pruning in several steps with training in between is a loop around it: a network that was pruned
is a network like any other, with its own groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from convarium.compression.costs import Cost, Costs
from convarium.compression.groups import Group, Kept, cut
from convarium.compression.importance import Scores
from convarium.errors import UsageError, check_choice
from convarium.network import Network

Unit = tuple[Group, int]


@dataclass(frozen=True)
class Limits:
    """How narrow a group may become: no narrower than ``part`` of its units, and than ``units``. Without it a global
    choice can leave a stage next to nothing. Widths are rounded up to a ``multiple``."""

    part: float = 0.1
    units: int = 4
    multiple: int = 1

    def least(self, group: Group) -> int:
        return self.rounded(group, max(1, self.units, math.ceil(self.part * group.size)))

    def rounded(self, group: Group, units: int) -> int:
        return min(group.size, -(-units // self.multiple) * self.multiple)


LIMITS = Limits()


@dataclass(frozen=True)
class Pruned:
    """What a step has done: multiply-adds of one image and parameters before and after, and the units of each group."""

    macs_before: int
    macs: int
    params_before: int
    params: int
    units: dict[str, tuple[int, int]]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def prune(
    model: Network,
    scores: Scores,
    *,
    ratio: float | Mapping[str, float] | None = None,
    macs: float | None = None,
    params: float | None = None,
    scheme: str = "uniform",
    limits: Limits = LIMITS,
    input_size: Sequence[int] | None = None,
) -> Pruned:
    """Cut a network, in place, by one of ``ratio``, ``macs`` and ``params``; an optimiser made before does not know.

    Args:
        model: the network.
        scores: how much each unit of its groups matters (:mod:`convarium.compression.importance`); what has no scores
            stays whole.
        ratio: part of the units to cut, 0 to 1; or that part by stage name, where other stages stay whole.
        macs: the most multiply-adds that an image may cost afterwards.
        params: the most parameters.
        scheme: ``"uniform"`` takes from each group alike, ``"global"`` what matters least in its group's measure.
        limits: how narrow groups may become.
        input_size: ``(C, H, W)`` of the image whose multiply-adds are counted; the network's own when not given.

    Raises:
        UsageError: not one goal, a ratio or stage that cannot be, or a goal below what the limits allow.
    """
    if sum(goal is not None for goal in (ratio, macs, params)) != 1:
        raise UsageError("prune to one goal: a ratio, macs or params")
    costs = Costs(model, input_size)
    if ratio is not None:
        kept = keep_part(scores, ratio, scheme=scheme, limits=limits)
    else:
        cost, goal = (costs.macs, macs) if macs is not None else (costs.params, params)
        assert goal is not None
        kept = keep_within(scores, cost, goal, scheme=scheme, limits=limits)
    units = {group.name: (group.size, len(own)) for group, own in kept.items()}
    done = Pruned(costs.macs({}), costs.macs(kept), costs.params({}), costs.params(kept), units)
    cut(model, kept)
    return done


def keep_part(
    scores: Scores, ratio: float | Mapping[str, float], *, scheme: str = "uniform", limits: Limits = LIMITS
) -> Kept:
    """The units that stay when a part of them goes: of every group alike, of all together (``"global"``), or of every
    group of a stage as ``ratio`` says by the stage's name.

    Raises:
        UsageError: a ratio not from 0 to 1, a scheme or a stage that is not there.
    """
    for part in ratio.values() if isinstance(ratio, Mapping) else [ratio]:
        if not 0 <= part < 1:
            raise UsageError(f"a part from 0 to 1 can be cut, 1 excluded; got {part}")
    if not isinstance(ratio, Mapping):
        order = in_order(scores, scheme, limits)
        if scheme == "global":
            return keep_after(scores, order[: round(ratio * sum(group.size for group in scores))], limits)
        ratio = dict.fromkeys({group.stage for group in scores}, ratio)
    stages = {group.stage for group in scores}
    for stage in ratio:
        if stage not in stages:
            raise UsageError(f"there is nothing to cut in a stage {stage!r}; there is in {', '.join(sorted(stages))}")
    gone = [(group, unit) for group, own in scores.items() for unit in _least(own, ratio.get(group.stage, 0.0))]
    allowed = set(in_order(scores, "uniform", limits))
    return keep_after(scores, [each for each in gone if each in allowed], limits)


def _least(scores: np.ndarray, part: float) -> list[int]:
    return np.argsort(scores, kind="stable")[: round(part * len(scores))].tolist()


def keep_within(
    scores: Scores, cost: Cost, at_most: float, *, scheme: str = "uniform", limits: Limits = LIMITS, grain: int = 1
) -> Kept:
    """The units that stay when no more go than needed for a cost.

    Args:
        scores: of each group.
        cost: what a network with some units left costs: ``Costs(model).macs``, or a measured time
            (:func:`convarium.compression.costs.measured_latency_ms`).
        at_most: what it may cost.
        scheme: whose turn it is, as in :func:`prune`.
        limits: how narrow groups may become.
        grain: how many units are one step. A cost that is counted is met to a unit; one that takes time to measure is
            met in fewer measurements by larger steps.

    Raises:
        UsageError: with as little as the limits leave it still costs more.
    """
    order = in_order(scores, scheme, limits)
    few, many = 0, -(-len(order) // grain)  # in steps: the answer lies between them

    def kept(steps: int) -> Kept:
        return keep_after(scores, order[: steps * grain], limits)

    if (least := cost(kept(many))) > at_most:
        raise UsageError(f"at most {at_most:,.6g} is asked for, and the least it can come to is {least:,.6g}")
    while few < many:
        middle = (few + many) // 2
        few, many = (few, middle) if cost(kept(middle)) <= at_most else (middle + 1, many)
    return kept(many)


# -- whose turn it is -----------------------------------------------------------------------------------------------


def in_order(scores: Scores, scheme: str, limits: Limits = LIMITS) -> list[Unit]:
    """All units that may go, the first to go first.

    Raises:
        UsageError: no such scheme.
    """
    check_choice("scheme", scheme, SCHEMES)
    turns: list[tuple[float, int, Unit]] = []
    for group, own in scores.items():
        turn = SCHEMES[scheme](own)
        for unit in np.argsort(own, kind="stable")[: group.size - limits.least(group)].tolist():
            turns.append((float(turn[unit]), len(turns), (group, unit)))
    return [unit for *_, unit in sorted(turns, key=lambda each: each[:2])]


def _by_rank(scores: np.ndarray) -> np.ndarray:
    """The part of a group that goes before and with each unit: groups shrink alike."""
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return ranks / len(scores)


def _by_score(scores: np.ndarray) -> np.ndarray:
    """Scores in units of the group's mean, so that groups of other sizes and depths can be compared."""
    return scores / max(float(scores.mean()), 1e-30)


SCHEMES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"uniform": _by_rank, "global": _by_score}


def keep_after(scores: Scores, gone: Sequence[Unit], limits: Limits = LIMITS) -> Kept:
    """The units that stay when those go; the most important of a group's come back until its width is a multiple."""
    lost: dict[Group, list[int]] = {group: [] for group in scores}
    for group, unit in gone:
        lost[group].append(unit)
    kept: dict[Group, list[int]] = {}
    for group, units in lost.items():
        width = limits.rounded(group, group.size - len(units))
        still = sorted(units, key=lambda unit: scores[group][unit])[: group.size - width]
        kept[group] = sorted({*range(group.size)} - {*still})
    return kept


# -- single weights -------------------------------------------------------------------------------------------------


@torch.no_grad()
def sparsify(model: nn.Module, ratio: float) -> int:
    """Set the smallest weights of all convolutions and dense layers to zero, in place (Han et al., "Learning both
    Weights and Connections", NIPS 2015).

    Nothing becomes faster by it: torch, OpenVINO and onnxruntime multiply zeros at the same speed. A file shrinks when
    it is compressed. Training afterwards fills the zeros again, unless this is repeated.

    Args:
        model: the network.
        ratio: part of the weights, 0 to 1.

    Returns:
        How many are zero now.

    Raises:
        UsageError: another ratio.
    """
    if not 0 <= ratio <= 1:
        raise UsageError(f"a part from 0 to 1 of the weights can be zero; got {ratio}")
    weights = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    sizes = torch.cat([weight.abs().flatten() for weight in weights])
    count = round(ratio * len(sizes))
    gone = torch.zeros_like(sizes, dtype=torch.bool)
    gone[sizes.argsort(stable=True)[:count]] = True
    for weight, own in zip(weights, gone.split([weight.numel() for weight in weights]), strict=True):
        weight[own.view_as(weight)] = 0
    return sum(int((weight == 0).sum()) for weight in weights)
