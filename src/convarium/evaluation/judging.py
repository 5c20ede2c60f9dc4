"""Which images runs are judged on, and what is measured there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from convarium.data.datasets import Dataset, check_classes, open_dataset
from convarium.errors import DataError
from convarium.evaluation.calibration import calibrate
from convarium.evaluation.metrics import confusion_matrix, top_k_error_percent, top_k_wrong
from convarium.evaluation.results import ClassResult, Mistake
from convarium.evaluation.statistics import error_interval_percent

if TYPE_CHECKING:
    from convarium.runs import Run

Split = Literal["held-out", "train", "val", "test", "all"]
MISTAKES = 12


@dataclass(frozen=True)
class Images:
    """The images at ``positions`` of a data set, whose classes ``truth`` are positions in ``class_names``."""

    dataset: Dataset
    split: str
    positions: np.ndarray
    truth: np.ndarray
    class_names: list[str]


def images_for(runs: Sequence[Run], data: str, split: Split, map_by_name: bool) -> Images:
    """The images to judge all ``runs`` on, with the classes of the first.

    Raises:
        DataError: data that cannot be used, classes that the runs do not share, or runs that hold out other images.
    """
    from convarium.console import stderr

    for run in runs[1:]:
        check_same_classes(runs[0], run, map_by_name=map_by_name)
    seeds = [run.own["data"]["seed"] for run in runs]
    datasets = {seed: open_dataset(data, seed) for seed in dict.fromkeys(seeds)}
    fingerprints = {seed: dataset.fingerprint for seed, dataset in datasets.items()}
    chosen = [
        _split(run, data, split, datasets[seed], fingerprints[seed]) for run, seed in zip(runs, seeds, strict=True)
    ]
    positions = [datasets[seed].positions(own) for seed, own in zip(seeds, chosen, strict=True)]
    for run, others in zip(runs, positions, strict=True):
        if not np.array_equal(positions[0], others):
            raise DataError(
                f"{runs[0].path} and {run.path} were trained on different images of {data}, and what one did not see "
                "the other did: judge them on other images, or on --split all"
            )
    dataset = datasets[seeds[0]]
    for note in dataset.notes:
        stderr().print(note)
    labels = check_classes(dataset, runs[0].class_names, map_by_name=map_by_name)
    return Images(dataset, chosen[0], positions[0], labels[positions[0]], runs[0].class_names)


def check_same_classes(first: Run, other: Run, *, map_by_name: bool) -> None:
    """Raise a :class:`DataError` unless both runs have the same classes, in one order or matched by their names."""
    if first.class_names == other.class_names:
        return
    for one, two in ((first, other), (other, first)):
        if lacking := [name for name in one.class_names if name not in two.class_names]:
            raise DataError(
                f"{two.path} does not know {lacking[0]!r}, a class of {one.path}: only runs of the same classes can be "
                "judged together"
            )
    if not map_by_name:
        raise DataError(
            f"{other.path} has the classes of {first.path} in another order: add --map-by-name to match them"
        )


def _split(run: Run, data: str, split: Split, dataset: Dataset, fingerprint: str) -> str:
    from convarium.console import stderr

    if split != "held-out":
        return split
    trained_on = run.own["data"]
    known = fingerprint == trained_on["fingerprint"]
    if not known and Path(data).resolve() == Path(trained_on["name"]).resolve():
        stderr().print(
            f"{data} has changed since {run.path} was trained on it: it may have learnt some of these images"
        )
    return dataset.held_out if known or dataset.brings_splits else "all"


def measures(probabilities: np.ndarray, images: Images) -> dict[str, Any]:
    """The fields of an :class:`~convarium.evaluation.results.Evaluation` of ``(n, classes)`` probabilities.

    Raises:
        DataError: another number of columns than of classes.
    """
    names, truth = images.class_names, images.truth
    if probabilities.shape[1] != len(names):
        raise DataError(f"the network has {probabilities.shape[1]} outputs and {len(names)} class names")
    confusion = confusion_matrix(probabilities.argmax(axis=1), truth, len(names))
    totals = confusion.sum(axis=1)
    wrong = top_k_wrong(probabilities, truth, 1)
    per_class = [
        ClassResult(name, int(totals[i]), 100.0 * (1 - confusion[i, i] / totals[i]))
        for i, name in enumerate(names)
        if totals[i]
    ]
    return dict(
        data=images.dataset.name,
        split=images.split,
        images=len(truth),
        top1_error_percent=100.0 * float(wrong.mean()),
        top1_interval_percent=error_interval_percent(wrong),
        top5_error_percent=top_k_error_percent(probabilities, truth, 5),
        calibration=calibrate(probabilities, truth),
        class_names=list(names),
        confusion=confusion.tolist(),
        per_class=per_class,
        mistakes=_mistakes(probabilities, images),
    )


def _mistakes(probabilities: np.ndarray, images: Images) -> list[Mistake]:
    """The mistakes made with the most confidence, surest first."""
    names, truth = images.class_names, images.truth
    predicted, sureness = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != truth)
    wrong = wrong[np.argsort(-sureness[wrong], kind="stable")][:MISTAKES]
    ids = [images.dataset.ids[images.positions[i]] for i in wrong]
    return [
        Mistake(name, names[truth[i]], names[predicted[i]], round(float(sureness[i]), 6))
        for name, i in zip(ids, wrong, strict=True)
    ]
