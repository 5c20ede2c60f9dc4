"""From trained candidates to a result: errors on the images that judge, costs counted, latencies measured in turns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convarium.data.datasets import Dataset
from convarium.evaluation.statistics import error_interval_percent, paired_test
from convarium.facts import all_facts
from convarium.race.entrants import entered, wrong_images
from convarium.race.plan import PAGE, Plan
from convarium.race.result import Candidate, Race, advise, mark_front
from convarium.race.rounds import Leg, read_history
from convarium.runs import Run, load_run

if TYPE_CHECKING:
    from convarium.anatomy.describe import Description

NUMBER_BYTES = 4  # of a float32
NEAR_GUESSING = 0.8  # of the error of naming the commonest class always


def judge(plan: Plan, dataset: Dataset, folder: Path, rounds: Sequence[Sequence[Leg]], fallen: Sequence[str]) -> Race:
    """Judge every candidate by the weights of its last finished round, and the runs that were entered."""
    from convarium.evaluation.latency import latency_ms

    legs = [leg for round_ in rounds for leg in round_]
    last = {leg.model: leg for leg in legs}  # the later rounds come later
    last |= {path: entered(path, load_run(path), dataset, len(rounds)) for path in plan.runs}
    ranked = sorted(last.values(), key=lambda leg: (-leg.round, leg.error_percent, leg.loss))
    runs = {leg.model: load_run(leg.run) for leg in ranked}
    split = dataset.held_out
    wrong = {model: wrong_images(run, dataset, split) for model, run in runs.items()}
    timings = latency_ms({model: (run.model, run.preprocessing) for model, run in runs.items()})
    histories = {leg.model: _history([each.run for each in legs if each.model == leg.model]) for leg in ranked}
    histories = {model: rows for model, rows in histories.items() if rows}
    candidates = mark_front(
        [_candidate(leg, legs, runs[leg.model], wrong[leg.model], timings[leg.model]) for leg in ranked]
    )
    told_apart = ""
    if len(ranked) > 1:
        first, second = (leg.model for leg in ranked[:2])
        told_apart = paired_test(wrong[first], wrong[second], first=first, second=second).sentence() + "."
    return Race(
        data=plan.data,
        split="held-out" if split == "val" else split,
        images=len(dataset.splits[split]),
        budget=plan.budget,
        image_size=plan.recipe["image_size"],
        channels=plan.recipe["in_chans"],
        candidates=candidates,
        legs=legs,
        advice=advise(candidates, told_apart),
        notes=[
            *plan.notes,
            *fallen,
            *cautions(dataset, split, len(rounds), candidates[0].error_percent),
            *([f"As they came, with a training of their own: {', '.join(plan.runs)}."] if plan.runs else []),
        ],
        output=folder,
        page=folder / PAGE,
        histories=histories,
    )


def _candidate(leg: Leg, legs: Sequence[Leg], run: Run, wrong: np.ndarray, latency_ms: float) -> Candidate:
    from convarium.anatomy.describe import describe

    settings = run.preprocessing
    described = describe(run.model, input_size=(settings.channels, settings.size, settings.size))
    low, high = error_interval_percent(wrong)
    raced = [each for each in legs if each.model == leg.model]
    own = raced or [leg]
    return Candidate(
        model=leg.model,
        family=all_facts()[run.model.name].paper.name,
        run=leg.run,
        rounds=leg.round if raced else 0,
        epochs=sum(each.epochs for each in own),
        seconds=sum(each.seconds for each in own),
        chosen_by_percent=leg.error_percent,
        error_percent=100 * float(wrong.mean()),
        low_percent=low,
        high_percent=high,
        params=described.params,
        macs=described.macs,
        latency_ms=latency_ms,
        memory_mib=_memory_mib(described),
    )


def _memory_mib(described: Description) -> float:
    return described.size_mib + NUMBER_BYTES * described.peak_activations / 2**20


def _history(runs: Sequence[Path]) -> list[dict[str, Any]]:
    """The rows of several runs as of one, their epochs counted on."""
    rows = [row for run in runs for row in read_history(run)]
    return [row | {"epoch": epoch} for epoch, row in enumerate(rows, start=1)]


def cautions(dataset: Dataset, split: str, rounds: int, error_percent: float) -> list[str]:
    """What to bear in mind of a race whose winner has this error on the images of ``split``."""
    notes = []
    labels = dataset.labels[dataset.splits[split]]
    guess = 100 - 100 * float(np.bincount(labels).max()) / len(labels)
    if error_percent > NEAR_GUESSING * guess:
        notes.append(
            f"No network is far from naming the commonest class always ({guess:.1f} % error): this tells of the budget "
            "more than of the networks. Race again with a larger one."
        )
    if split == "val":
        notes.append(
            "The images that judge are those that chose, as the data has no test split: the winner's error is a little "
            "too good."
        )
    if rounds > 1:
        notes.append("Who left early had fewer epochs: its error says what it does for that much training, no more.")
    return notes
