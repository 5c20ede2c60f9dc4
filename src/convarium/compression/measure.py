"""From the files of a search to its points: errors on held-out images, times in turns, memory, sizes."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from convarium.compression.cutting import cost_of
from convarium.compression.memory import peak_memory_mib
from convarium.compression.result import Point
from convarium.compression.samples import Logits, Samples
from convarium.compression.search import File, Step
from convarium.compression.search_plan import SearchPlan
from convarium.compression.trials import BACKENDS, parts
from convarium.console import counting, stderr
from convarium.data.datasets import Dataset
from convarium.deploy.runtimes import run_logits
from convarium.evaluation.latency import Work, in_turns, one_by_one
from convarium.evaluation.statistics import error_interval_percent, paired_test
from convarium.runs import WEIGHTS, load_run

SINGLES, SINGLES_S = 60, 30.0  # rounds with one image, and seconds for all
BATCHES, BATCHES_S = 25, 20.0
SHORTEST_S = 0.02  # of a measurement of a batch


class Subject(NamedTuple):
    """What is measured: a step in a form, where it lies, and the runtime that opens it."""

    step: Step
    form: str
    runtime: str
    source: Path
    in_float: list[str]

    @property
    def label(self) -> str:
        return f"{self.step.name} {self.form}"


class Times(NamedTuple):
    p50_ms: float
    p99_ms: float
    images_per_second: float


def open_source(runtime: str, source: Path) -> Logits:
    """A file for a runtime, or a run folder for ``torch``; preprocessing included."""
    return open_run(source) if runtime == "torch" else BACKENDS[runtime].open(source)


def open_run(path: Path) -> Logits:
    """A run folder in torch, on as many threads as there are."""
    return run_logits(load_run(path))


def wrong_images(network: Logits, dataset: Dataset, split: str, channels: int, label: str) -> np.ndarray:
    """``(n,)``, true for each image of ``split`` that is taken for another class."""
    positions = dataset.positions(split)
    samples = Samples(dataset, positions, dataset.labels[positions], channels)
    with counting(f"judging {label}", len(samples)) as tick:
        return samples.logits(network, tick).argmax(axis=1) != samples.labels


def measure(plan: SearchPlan, dataset: Dataset, dense: Step, files: Sequence[File]) -> list[Point]:
    """Every file beside the dense run in torch, which comes first."""
    subjects = [
        Subject(dense, "torch", "torch", dense.run, []),
        *(Subject(each.step, each.form, plan.runtime, each.path, each.in_float) for each in files),
    ]
    runs = {step.name: load_run(step.run) for step in dict.fromkeys(subject.step for subject in subjects)}
    settings = runs[dense.name].preprocessing
    networks = {subject.label: open_source(subject.runtime, subject.source) for subject in subjects}
    wrong = {
        split: {
            label: wrong_images(network, dataset, split, settings.channels, label)
            for label, network in networks.items()
        }
        for split in dict.fromkeys(("val", dataset.held_out))
    }
    shape = plan.batch, settings.size, settings.size, settings.channels
    times = measure_times(networks, np.zeros(shape, np.uint8))
    points = []
    with stderr().status("measuring memory"):
        for subject in subjects:
            run, own = runs[subject.step.name], wrong[dataset.held_out][subject.label]
            low, high = error_interval_percent(own)
            differences = {
                split: paired_test(each[subjects[0].label], each[subject.label], first="dense", second=subject.label)
                for split, each in wrong.items()
            }
            points.append(
                Point(
                    name=subject.step.name,
                    form=subject.form,
                    run=str(subject.step.run),
                    file=str(subject.source),
                    macs=cost_of(run, "macs"),
                    params=cost_of(run, "params"),
                    bytes=_bytes(subject),
                    error_percent=100 * float(own.mean()),
                    low_percent=low,
                    high_percent=high,
                    difference=differences[dataset.held_out],
                    chosen_by=differences["val"],
                    memory_mib=peak_memory_mib(subject.runtime, subject.source, shape),
                    in_float=subject.in_float,
                    **times[subject.label]._asdict(),
                )
            )
    return points


def measure_times(networks: dict[str, Logits], images: np.ndarray) -> dict[str, Times]:
    """One image of ``images`` at a time, then all of them at once, all networks in turns."""
    singles_of, batches_of = (_works(networks, each) for each in (images[:1], images))
    with counting("measuring latency", (SINGLES + 1) * len(networks)) as tick:
        singles = one_by_one(singles_of, rounds=SINGLES, seconds=SINGLES_S, tick=tick)
    with counting("measuring throughput", (BATCHES + 1) * len(networks)) as tick:
        batches = in_turns(batches_of, rounds=BATCHES, seconds=BATCHES_S, shortest_s=SHORTEST_S, tick=tick)
    return {
        label: Times(
            1000 * statistics.median(taken),
            1000 * float(np.quantile(taken, 0.99)),
            len(images) / statistics.median(batches[label]),
        )
        for label, taken in singles.items()
    }


def _works(networks: dict[str, Logits], images: np.ndarray) -> dict[str, Work]:
    return {label: partial(network, images) for label, network in networks.items()}


def _bytes(subject: Subject) -> int:
    if subject.runtime == "torch":
        return (subject.source / WEIGHTS).stat().st_size
    return sum(part.stat().st_size for part in parts(subject.source))
