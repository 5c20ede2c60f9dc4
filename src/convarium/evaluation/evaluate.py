"""``evaluate``: a run on a data set, single centre crop."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from convarium.data.datasets import Dataset, check_classes, open_dataset
from convarium.errors import DataError, check_choice
from convarium.evaluation.metrics import confusion_matrix, softmax, top_k_error_percent

if TYPE_CHECKING:
    from rich.console import RenderableType
    from torch import nn

    from convarium.data.preprocess import Preprocessing

Split = Literal["held-out", "train", "val", "test", "all"]
MISTAKES = 12
BATCH = 64


@dataclass(frozen=True)
class ClassResult:
    """One class: how many images, and what part of them was taken for another class."""

    name: str
    images: int
    error_percent: float


@dataclass(frozen=True)
class Mistake:
    """An image taken for another class, and with what probability."""

    image: str
    true: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class Evaluation:
    """Errors in per cent over ``images`` images; ``confusion[i][j]`` counts images of class i taken for class j."""

    data: str
    split: str
    images: int
    top1_error_percent: float
    top5_error_percent: float
    class_names: list[str]
    confusion: list[list[int]]
    per_class: list[ClassResult]
    mistakes: list[Mistake]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def summary(self) -> dict[str, Any]:
        """The numbers that are kept with the weights."""
        kept = ("data", "split", "images", "top1_error_percent", "top5_error_percent")
        return {key: value for key, value in asdict(self).items() if key in kept}

    def render(self) -> RenderableType:
        from convarium.console import evaluation_tables

        return evaluation_tables(self)


def evaluate(run: Path, /, *, data: str, split: Split = "held-out", map_by_name: bool = False) -> Evaluation:
    """Judge a trained run on a data set.

    Args:
        run: a run folder.
        data: "digits", "glyphs", or a folder.
        split: held-out means the test or val images; for the folder the run was trained on, those it did not see; for
            a folder that brings no splits and that the run was not trained on, all images.
        map_by_name: accept a data set that lacks some of the weights' classes.

    Raises:
        DataError: a run, folder or image that cannot be read, or classes that are not the weights'.
    """
    from convarium.console import stderr
    from convarium.runs import load_run

    check_choice("--split", split, get_args(Split))
    loaded = load_run(run)
    trained_on = loaded.own["data"]
    dataset = open_dataset(data, trained_on["seed"])
    chosen = split
    if split == "held-out":
        known = dataset.fingerprint == trained_on["fingerprint"]
        chosen = dataset.held_out if known or dataset.brings_splits else "all"  # type: ignore[assignment]
        if not known and Path(data).resolve() == Path(trained_on["name"]).resolve():
            stderr().print(f"{data} has changed since {run} was trained on it: it may have learnt some of these images")
    labels = check_classes(dataset, loaded.class_names, map_by_name=map_by_name)
    return evaluate_model(loaded.model, loaded.preprocessing, dataset, chosen, loaded.class_names, labels)


def evaluate_model(
    model: nn.Module,
    preprocessing: Preprocessing,
    dataset: Dataset,
    split: str,
    class_names: list[str] | None = None,
    labels: np.ndarray | None = None,
) -> Evaluation:
    """Judge a network in memory. ``labels`` are positions in ``class_names``; the data set's own when not given."""
    names = dataset.class_names if class_names is None else class_names
    positions = _positions(dataset, split)
    truth = (dataset.labels if labels is None else labels)[positions]
    probabilities = softmax(_logits(model, preprocessing, dataset, positions))
    if probabilities.shape[1] != len(names):
        raise DataError(f"the network has {probabilities.shape[1]} outputs and {len(names)} class names")
    predicted = probabilities.argmax(axis=1)
    confusion = confusion_matrix(predicted, truth, len(names))
    totals = confusion.sum(axis=1)
    per_class = [
        ClassResult(name, int(totals[i]), 100.0 * (1 - confusion[i, i] / totals[i]))
        for i, name in enumerate(names)
        if totals[i]
    ]
    return Evaluation(
        data=dataset.name,
        split=split,
        images=len(positions),
        top1_error_percent=top_k_error_percent(probabilities, truth, 1),
        top5_error_percent=top_k_error_percent(probabilities, truth, 5),
        class_names=list(names),
        confusion=confusion.tolist(),
        per_class=per_class,
        mistakes=_mistakes(dataset, positions, probabilities, truth, names),
    )


def _positions(dataset: Dataset, split: str) -> np.ndarray:
    if split == "all":
        return np.arange(len(dataset.labels))
    if split not in dataset.splits:
        raise DataError(f"{dataset.name} has no {split} images; splits: {', '.join(dataset.splits)}, all")
    return dataset.splits[split]


def _logits(model: nn.Module, preprocessing: Preprocessing, dataset: Dataset, positions: np.ndarray) -> np.ndarray:
    import torch

    from convarium.console import counting
    from convarium.data.loading import ImageStore
    from convarium.data.resize import Preprocess

    preprocess = Preprocess(preprocessing)
    store = ImageStore(
        dataset, positions, preprocessing.channels, lambda image: preprocess(torch.from_numpy(image)[None])[0], budget=0
    )
    collected = []
    model.eval()
    with torch.inference_mode(), counting("evaluating", len(positions)) as tick:
        for images in store.batches(torch.arange(len(store)).split(BATCH)):
            collected.append(model(images).numpy())
            tick(sum(map(len, collected)))
    return np.concatenate(collected)


def _mistakes(
    dataset: Dataset, positions: np.ndarray, probabilities: np.ndarray, truth: np.ndarray, names: list[str]
) -> list[Mistake]:
    """The mistakes made with the most confidence, surest first."""
    predicted, sureness = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != truth)
    wrong = wrong[np.argsort(-sureness[wrong], kind="stable")][:MISTAKES]
    return [
        Mistake(dataset.ids[positions[i]], names[truth[i]], names[predicted[i]], round(float(sureness[i]), 6))
        for i in wrong
    ]
