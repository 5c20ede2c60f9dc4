"""How long an epoch takes: a few steps of the true training loop on a throwaway network, at a learning rate of zero."""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convarium.data.datasets import Dataset

if TYPE_CHECKING:
    from convarium.recipe import Recipe
    from convarium.training.loop import Totals

STEPS = 6  # the first is not counted


@dataclass(frozen=True)
class Pace:
    """Seconds that an epoch of training takes, on so many ``threads``."""

    epoch_s: float
    threads: int


@dataclass
class Stopwatch:
    """What the loop reports to: keeps the seconds after every step, as the loop counts them."""

    seconds: list[float] = field(default_factory=lambda: [0.0])
    steps: int = 0

    def on_step(self, epoch: int, step: int, steps: int, totals: Totals) -> None:
        self.seconds.append(totals.seconds)
        self.steps = steps

    def on_epoch(self, row: dict[str, Any]) -> None: ...

    def say(self, line: str) -> None: ...

    @property
    def step_s(self) -> float:
        """The median of all steps but the first, which warms up."""
        each = [after - before for before, after in pairwise(self.seconds)]
        return statistics.median(each[1:] or each)


def measure_pace(dataset: Dataset, recipe: Recipe) -> Pace:
    """Time a few steps of ``recipe``; where it has no number of threads, the quickest is found first.

    Decoding images counts where it would in training: where they do not fit into memory it does not show in so few.
    """
    import torch

    from convarium.evaluation.latency import on_threads
    from convarium.networks import create_model
    from convarium.training.loop import fit
    from convarium.training.prepare import choose_threads, image_stores

    train, val = dataset.splits["train"], dataset.splits["val"]
    few = replace(dataset, splits={"train": train[: STEPS * recipe.batch_size], "val": val[:2]})
    recipe = replace(recipe, epochs=1, warmup_epochs=0.5, learning_rate=0.0)
    network = create_model(recipe.model, num_classes=len(dataset.class_names), in_chans=recipe.in_chans)
    train_store, val_store, preprocessing = image_stores(few, recipe, network)
    threads = recipe.threads or choose_threads(network, train_store, recipe)
    device, watch = "cuda" if torch.cuda.is_available() else "cpu", Stopwatch()
    with tempfile.TemporaryDirectory() as folder, on_threads(threads):
        fit(network, recipe, preprocessing, train_store, val_store, Path(folder), watch, "", device)
    return Pace(watch.step_s * watch.steps * len(train) / len(train_store), threads)
