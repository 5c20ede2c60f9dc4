"""A run cut until it costs no more than so much, with the least important channels gone first."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from convarium.compression.search_plan import SearchPlan
from convarium.errors import UsageError
from convarium.explanation.gates import gate_statistics, gates_of
from convarium.runs import Run

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from convarium.compression.importance import Scores
    from convarium.data.datasets import Dataset

FEW_BATCHES, BATCH = 16, 32


def reachable_steps(run: Run, plan: SearchPlan) -> int:
    """How many of a plan's steps can be made one after the other: tried on a copy, untrained.

    Raises:
        UsageError: not even the first, or an importance, gates or dense layers that this network does not have.
    """
    smaller, whole = replace(run, model=copy.deepcopy(run.model)), cost_of(run, plan.goal)
    take_out(smaller, plan.without_gates, plan.low_rank)
    if plan.importance == "gates" and not gates_of(smaller.model):
        raise UsageError(f"{run.path} has no gates to go by: choose another importance, such as l1")
    importance = "l1" if plan.importance in FROM_IMAGES else plan.importance
    for done, part in enumerate(plan.steps):
        try:
            prune_run(smaller, plan.goal, part * whole, plan.scheme, importance)
        except UsageError as error:
            if not done:
                raise UsageError(f"{part:g} of the network's {plan.goal} cannot be reached: {error}") from None
            return done
    return len(plan.steps)


def cost_of(run: Run, goal: str) -> int:
    """``macs`` of one image, or ``params``."""
    from convarium.compression.costs import Costs

    return getattr(Costs(run.model, _input_size(run)), goal)({})


def _input_size(run: Run) -> tuple[int, int, int]:
    return run.preprocessing.channels, run.preprocessing.size, run.preprocessing.size


def take_out(run: Run, without_gates: str, low_rank: float) -> None:
    """What goes before any channel does, in place.

    Args:
        run: the network.
        without_gates: the stages whose gates go, with commas, or ``"all"``; none where it is empty.
        low_rank: the part of their energy that the dense layers of the head keep as two of low rank; 0 leaves them.

    Raises:
        UsageError: a stage, gates or dense layers that are not there.
    """
    from convarium.compression.groups import remove_gates
    from convarium.compression.low_rank import factorise

    if without_gates:
        remove_gates(run.model, None if without_gates == "all" else [name.strip() for name in without_gates.split(",")])
    if low_rank:
        factorise(run.model, energy=low_rank)


def prune_run(
    run: Run, goal: str, at_most: float, scheme: str, importance: str, dataset: Dataset | None = None
) -> None:
    """Cut the network of a run, in place.

    Args:
        run: its weights say what is important.
        goal: ``macs`` or ``params``.
        at_most: what it may cost.
        scheme: as in :func:`convarium.compression.prune.prune`.
        importance: a key of :data:`convarium.compression.importance.IMPORTANCES`.
        dataset: its training images give taylor's gradients and the gates' factors.

    Raises:
        UsageError: it cannot cost as little.
    """
    from convarium.compression.groups import find_groups
    from convarium.compression.importance import IMPORTANCES
    from convarium.compression.prune import prune

    groups = find_groups(run.model, _input_size(run))
    more = [FROM_IMAGES[importance](run, dataset)] if importance in FROM_IMAGES and dataset else []
    scores: Scores = IMPORTANCES[importance](run.model, groups, *more)
    limit: dict[str, Any] = {goal: at_most}
    prune(run.model, scores, scheme=scheme, input_size=_input_size(run), **limit)


def _some_batches(run: Run, dataset: Dataset) -> Iterator[tuple[Tensor, Tensor]]:
    return islice(training_batches(run, dataset), FEW_BATCHES)


def _mean_factors(run: Run, dataset: Dataset) -> dict[str, np.ndarray]:
    """Path of every gate to its mean factor for each channel."""
    import numpy as np
    import torch

    batches = list(_some_batches(run, dataset))
    labels = torch.cat([own for _, own in batches]).numpy()
    ends = np.cumsum([len(own) for _, own in batches])
    placed = [(np.arange(end - len(images), end), images) for end, (images, _) in zip(ends, batches, strict=True)]
    with torch.no_grad():
        return {gate.path: gate.means for gate in gate_statistics(run.model.eval(), placed, labels)}


# Importances that images are needed for, and what those give.
FROM_IMAGES: dict[str, Callable[[Run, Dataset], Any]] = {"taylor": _some_batches, "gates": _mean_factors}


def training_batches(run: Run, dataset: Dataset) -> Iterator[tuple[Tensor, Tensor]]:
    """Preprocessed training images and their classes, in an order drawn once."""
    import numpy as np
    import torch

    from convarium.data.resize import Preprocess

    preprocess = Preprocess(run.preprocessing)
    positions = np.random.default_rng(0).permutation(dataset.splits["train"])
    for start in range(0, len(positions), BATCH):
        chosen = positions[start : start + BATCH]
        images = [dataset.read(int(position), run.preprocessing.channels) for position in chosen]
        x = torch.cat([preprocess(torch.from_numpy(np.ascontiguousarray(image))[None]) for image in images])
        yield x, torch.from_numpy(dataset.labels[chosen])
