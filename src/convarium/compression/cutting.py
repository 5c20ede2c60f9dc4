"""A run cut until it costs no more than so much, with the least important channels gone first."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from convarium.errors import UsageError
from convarium.runs import Run

if TYPE_CHECKING:
    from torch import Tensor

    from convarium.compression.importance import Scores
    from convarium.data.datasets import Dataset

TAYLOR_BATCHES, TAYLOR_BATCH = 16, 32


def reachable_steps(run: Run, steps: Sequence[float], goal: str, scheme: str, importance: str) -> int:
    """How many of ``steps``, parts of what the run costs, can be made one after the other: tried on a copy, untrained.

    Raises:
        UsageError: not even the first, or an importance that this network does not have.
    """
    smaller, whole = replace(run, model=copy.deepcopy(run.model)), cost_of(run, goal)
    for done, part in enumerate(steps):
        try:
            prune_run(smaller, goal, part * whole, scheme, "l1" if importance == "taylor" else importance)
        except UsageError as error:
            if not done:
                raise UsageError(f"{part:g} of the network's {goal} cannot be reached: {error}") from None
            return done
    return len(steps)


def cost_of(run: Run, goal: str) -> int:
    """``macs`` of one image, or ``params``."""
    from convarium.compression.costs import Costs

    return getattr(Costs(run.model, _input_size(run)), goal)({})


def _input_size(run: Run) -> tuple[int, int, int]:
    return run.preprocessing.channels, run.preprocessing.size, run.preprocessing.size


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
        dataset: its training images give taylor's gradients.

    Raises:
        UsageError: it cannot cost as little.
    """
    from convarium.compression.groups import find_groups
    from convarium.compression.importance import IMPORTANCES
    from convarium.compression.prune import prune

    groups = find_groups(run.model, _input_size(run))
    more = [islice(training_batches(run, dataset), TAYLOR_BATCHES)] if importance == "taylor" and dataset else []
    scores: Scores = IMPORTANCES[importance](run.model, groups, *more)
    limit: dict[str, Any] = {goal: at_most}
    prune(run.model, scores, scheme=scheme, input_size=_input_size(run), **limit)


def training_batches(run: Run, dataset: Dataset) -> Iterator[tuple[Tensor, Tensor]]:
    """Preprocessed training images and their classes, in an order drawn once."""
    import numpy as np
    import torch

    from convarium.data.resize import Preprocess

    preprocess = Preprocess(run.preprocessing)
    positions = np.random.default_rng(0).permutation(dataset.splits["train"])
    for start in range(0, len(positions), TAYLOR_BATCH):
        chosen = positions[start : start + TAYLOR_BATCH]
        images = [dataset.read(int(position), run.preprocessing.channels) for position in chosen]
        x = torch.cat([preprocess(torch.from_numpy(np.ascontiguousarray(image))[None]) for image in images])
        yield x, torch.from_numpy(dataset.labels[chosen])
