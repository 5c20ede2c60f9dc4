"""Finished runs that are judged beside the candidates of a race, as they came."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from convarium.data.datasets import Dataset
from convarium.errors import DataError, UsageError
from convarium.evaluation.predictions import predictions
from convarium.race.rounds import Leg, read_history
from convarium.runs import METRICS, Run, load_run


def check_entrants(paths: Sequence[str], dataset: Dataset, seed: int) -> None:
    """See that runs can be judged fairly on a race's images, before anything is trained.

    Raises:
        UsageError: one that is named twice, or that was trained under another split of the same images.
        DataError: a folder that is no run, or a run of other classes.
    """
    if len(set(paths)) < len(paths):
        raise UsageError("--runs names a run twice")
    for path in paths:
        run = load_run(path)
        if run.class_names != dataset.class_names:
            raise DataError(f"{path} has other classes than {dataset.name}, or in another order")
        data = run.own["data"]
        if data["fingerprint"] == dataset.fingerprint and data["seed"] != seed:
            raise UsageError(
                f"{path} was trained on other images of {dataset.name} than those that the race trains on, its split "
                f"having seed {data['seed']}: race with --seed {data['seed']}"
            )


def entered(path: str, run: Run, dataset: Dataset, rounds: int) -> Leg:
    """A run as if it had come to the end of a race of so many rounds; its own training, if it says so, is what counts
    as its epochs and seconds."""
    history = read_history(run.path) if (run.path / METRICS).is_file() else []
    wrong = wrong_images(run, dataset, "val")
    return Leg(
        rounds, path, Path(path), len(history), sum(row["seconds"] for row in history), 100 * float(wrong.mean()), 0.0
    )


def wrong_images(run: Run, dataset: Dataset, split: str) -> np.ndarray:
    """``(n,)``, true for each image of ``split`` that the run takes for another class."""
    positions = dataset.splits[split]
    return predictions(run, dataset, positions).argmax(axis=1) != dataset.labels[positions]
