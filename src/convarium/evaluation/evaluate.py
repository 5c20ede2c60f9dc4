"""``evaluate``: trained runs on a data set, under one of the papers' protocols, alone, side by side or as one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, overload

import numpy as np

from convarium.data.datasets import Dataset
from convarium.errors import DataError, UsageError, check_choice
from convarium.evaluation.crops import SINGLE, Crops, Protocol, read_protocol
from convarium.evaluation.ensemble import combine, contributions
from convarium.evaluation.judging import Images, Split, images_for, measures
from convarium.evaluation.metrics import top_k_error_percent, top_k_wrong
from convarium.evaluation.predictions import Average, Predictions, predict
from convarium.evaluation.results import ByCrops, Ensemble, Evaluation, Member, Row, SideBySide
from convarium.evaluation.statistics import Paired, paired_test

if TYPE_CHECKING:
    from torch import nn

    from convarium.data.preprocess import Preprocessing
    from convarium.runs import Run


@overload
def evaluate(
    runs: Path,
    /,
    *,
    data: str,
    split: Split = ...,
    crops: Crops = ...,
    scales: str | None = ...,
    ensemble: bool = ...,
    average: Average = ...,
    map_by_name: bool = ...,
) -> Evaluation: ...


@overload
def evaluate(
    runs: list[Path],
    /,
    *,
    data: str,
    split: Split = ...,
    crops: Crops = ...,
    scales: str | None = ...,
    ensemble: bool = ...,
    average: Average = ...,
    map_by_name: bool = ...,
) -> Evaluation | SideBySide: ...


def evaluate(
    runs: Path | list[Path],
    /,
    *,
    data: str,
    split: Split = "held-out",
    crops: Crops = "1",
    scales: str | None = None,
    ensemble: bool = False,
    average: Average = "probabilities",
    map_by_name: bool = False,
) -> Evaluation | SideBySide:
    """Judge trained runs on a data set.

    Several runs are judged on the same images, side by side, or as one: an ensemble. The more runs and views of an
    image are averaged, the dearer; the table says what each costs and brings.

    Args:
        runs: run folders.
        data: "digits", "glyphs", a folder, or "imagenet:FOLDER" (ImageNet's validation images as they come).
        split: held-out means the test or val images; for the folder the run was trained on, those it did not see; for
            a folder that brings no splits and that the run was not trained on, all images.
        crops: views of an image that are averaged: 1 (centre), 10 (AlexNet), 12 (Inception-v4), 144 (GoogLeNet), or
            dense (VGG: the whole image, larger than in training, and mirrored).
        scales: short sides in pixels for dense evaluation, such as 256,384; 8/7 of the run's size when not given.
        ensemble: judge the average of all runs, and what each of them adds.
        average: of views and runs: their probabilities or their logits.
        map_by_name: accept a data set that lacks some of the weights' classes, and runs whose classes are in another
            order.

    Raises:
        DataError: a run, folder or image that cannot be read, no images, or classes that are not the weights', or not
            those of the other runs.
        UsageError: an option that cannot be met, or views smaller than the network takes.
    """
    from convarium.runs import load_run

    check_choice("--split", split, get_args(Split))
    check_choice("--average", average, get_args(Average))
    protocol = read_protocol(crops, scales)
    paths = [Path(path) for path in (runs if isinstance(runs, list | tuple) else [runs])]
    if not paths:
        raise UsageError("no run to evaluate: convarium evaluate RUN... --data DATA")
    if ensemble and len(paths) == 1:
        raise UsageError("an ensemble has two runs or more: name another, or leave out --ensemble")
    loaded = [load_run(path) for path in paths]
    for run in loaded:
        protocol.shorts(run.preprocessing.size)
    images = images_for(loaded, data, split, map_by_name)
    if ensemble:
        return _as_one(loaded, images, protocol, average)
    if len(loaded) > 1:
        return _side_by_side(loaded, images, protocol, average)
    return _alone(loaded[0], images, protocol, average)


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
    positions = dataset.positions(split)
    truth = (dataset.labels if labels is None else labels)[positions]
    images = Images(dataset, split, positions, truth, list(names))
    return Evaluation(**measures(predict(model, preprocessing, dataset, positions).probabilities, images))


def _alone(run: Run, images: Images, protocol: Protocol, average: Average) -> Evaluation:
    single, several = _views(run, images, protocol, average)
    if several is None:
        return Evaluation(**measures(single.probabilities, images))
    return ByCrops(
        **measures(several.probabilities, images),
        average=average,
        rows=_rows(run, images, protocol, single, several),
        notes=[protocol.says(run.preprocessing), *_notes([run], protocol, [several])],
    )


def _side_by_side(runs: list[Run], images: Images, protocol: Protocol, average: Average) -> SideBySide:
    rows: list[Row] = []
    found: list[Predictions] = []
    for run in runs:
        single, several = _views(run, images, protocol, average)
        rows += _rows(run, images, protocol, single, several)
        found.append(several or single)
    return SideBySide(
        data=images.dataset.name,
        split=images.split,
        images=len(images.positions),
        runs=[str(run.path) for run in runs],
        average=average,
        rows=rows,
        evaluations=[Evaluation(**measures(each.probabilities, images)) for each in found],
        paired=_paired(runs, found, images),
        notes=_notes(runs, protocol, found),
    )


def _paired(runs: list[Run], found: list[Predictions], images: Images) -> list[Paired]:
    """Each run but the first beside the first."""
    first, *others = (top_k_wrong(each.probabilities, images.truth, 1) for each in found)
    names = [str(run.path) for run in runs]
    return [
        paired_test(first, wrong, first=names[0], second=name) for name, wrong in zip(names[1:], others, strict=True)
    ]


def _as_one(runs: list[Run], images: Images, protocol: Protocol, average: Average) -> Ensemble:
    found = [_predict(run, images, protocol, average) for run in runs]
    scores = [each.scores for each in found]
    return Ensemble(
        **measures(combine(scores, average), images),
        crops=str(protocol),
        average=average,
        macs_per_image=sum(each.macs_per_image for each in found),
        members=[
            Member(str(run.path), each.views_per_image, each.macs_per_image, added)
            for run, each, added in zip(runs, found, contributions(scores, images.truth, average), strict=True)
        ],
        notes=_notes(runs, protocol, found),
    )


def _views(run: Run, images: Images, protocol: Protocol, average: Average) -> tuple[Predictions, Predictions | None]:
    """What a run says of its single crop, and of the protocol's views where they are others."""
    single = _predict(run, images, SINGLE, average)
    return single, None if protocol == SINGLE else _predict(run, images, protocol, average)


def _predict(run: Run, images: Images, protocol: Protocol, average: Average) -> Predictions:
    """With one column per class of ``images``."""
    found = predict(
        run.model, run.preprocessing, images.dataset, images.positions, protocol, average, f"evaluating {run.path.name}"
    )
    if run.class_names == images.class_names:
        return found
    return replace(found, scores=found.scores[:, [run.class_names.index(name) for name in images.class_names]])


def _rows(run: Run, images: Images, protocol: Protocol, single: Predictions, several: Predictions | None) -> list[Row]:
    def row(shown: Protocol, found: Predictions, **gain: Any) -> Row:
        top1, top5 = (top_k_error_percent(found.probabilities, images.truth, k) for k in (1, 5))
        return Row(str(run.path), str(shown), found.views_per_image, found.macs_per_image, top1, top5, **gain)

    first = row(SINGLE, single)
    if several is None:
        return [first]
    before, now = (top_k_wrong(found.probabilities, images.truth, 1) for found in (single, several))
    mended, spoilt = int(np.sum(before & ~now)), int(np.sum(now & ~before))
    gain = 100.0 * (mended - spoilt) / len(before)
    return [first, row(protocol, several, gain=gain, mended=mended, spoilt=spoilt)]


def _notes(runs: list[Run], protocol: Protocol, found: list[Predictions]) -> list[str]:
    """What a reader of the table should know of the views."""
    notes = []
    if any(each.views_per_image < each.views for each in found):
        notes.append(f"Of {found[0].views} views of a square image some are the same: they were calculated once.")
    if protocol != SINGLE and (never := [str(run.path) for run in runs if not _saw_mirrored(run)]):
        notes.append(f"Trained without mirrored images, which these views show: {', '.join(never)}.")
    return notes


def _saw_mirrored(run: Run) -> bool:
    """Whether its recipe mirrors images; so it is taken where none is known."""
    from convarium.recipe import read_recipe
    from convarium.runs import RECIPE

    try:
        return read_recipe(run.path / RECIPE)[0].flip
    except DataError:
        return True
