"""What is chosen of a search's points, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from convarium.compression.result import Point
from convarium.compression.search_plan import CHOSEN, Target
from convarium.report.front import pareto_front

NOUNS = {"latency": "latency", "macs": "multiply-adds", "params": "parameters", "size": "size of the file"}
LESS = {
    "latency": "a lower latency",
    "macs": "fewer multiply-adds",
    "params": "fewer parameters",
    "size": "a smaller file",
}
LEAST = {
    "latency": "the lowest latency", "macs": "the fewest multiply-adds", "params": "the fewest parameters",
    "size": "the smallest file",
}  # fmt: skip
BUSY = 10  # times the median, that one call in a hundred takes where a machine does other work
RUNTIMES = {"openvino": "OpenVINO", "onnxruntime": "onnxruntime"}


def mark_front(points: Sequence[Point], target: Target) -> list[Point]:
    """Points with ``on_front``: by error and by what is to be least."""
    front = pareto_front([(each.error_percent, each.cost(target)) for each in points])
    return [replace(point, on_front=on) for point, on in zip(points, front, strict=True)]


def choose(points: Sequence[Point], target: Target, max_drop: float) -> Point | None:
    """The compressed point within the budget that costs least; ``None`` where there is none, or none that costs less
    than the dense network in float in the same runtime. Among equal costs the quicker one."""
    dense = _dense(points, "float")
    within = [
        each
        for each in points
        if each.is_compressed and each.drop <= max_drop and each.cost(target) < dense.cost(target)
    ]
    return min(within, key=lambda each: (each.cost(target), each.p50_ms), default=None)


def _dense(points: Sequence[Point], form: str) -> Point:
    return next(each for each in points if each.name == "dense" and each.form == form)


def tell(points: Sequence[Point], chosen: Point | None, target: Target, max_drop: float, runtime: str) -> str:
    """What was chosen and what it costs and gains, or why nothing was, with what came nearest."""
    if chosen is None:
        tried = [each for each in points if each.is_compressed]
        within = [each for each in tried if each.drop <= max_drop]
        if within:
            best = min(within, key=lambda each: each.cost(target))
            return (
                f"Nothing within {points_of(max_drop)} of error has {LESS[target]} than the dense network in "
                f"{RUNTIMES[runtime]}; the best is {best.label}, {_costs(best)}."
            )
        best = min(tried, key=lambda each: each.drop)
        return (
            f"The budget of {points_of(max_drop)} of error cannot be met: the best of {len(tried)} is {best.label}, "
            f"{_costs(best)}."
        )
    torch, dense = _dense(points, "torch"), _dense(points, "float")
    gains = [
        f"{_times(dense.macs / chosen.macs)} fewer multiply-adds" if chosen.macs < dense.macs else "",
        f"a file {_times(dense.bytes / chosen.bytes)} smaller" if chosen.bytes < dense.bytes else "",
        f"{_times(torch.p50_ms / chosen.p50_ms)} as quick as the dense network in torch and "
        f"{_times(dense.p50_ms / chosen.p50_ms)} as it is in {RUNTIMES[runtime]}",
    ]
    return f"Take {chosen.label} ({CHOSEN}/): {', '.join(filter(None, gains))}, {_costs(chosen)}."


def points_of(drop: float) -> str:
    return f"{drop:g} point" + "s" * (drop != 1)


def _times(ratio: float) -> str:
    return f"{ratio:.2g} times" if ratio < 10 else f"{ratio:.0f} times"


def _costs(point: Point) -> str:
    difference, (low, high) = point.difference, point.difference.interval_percent
    return (
        f"at {point.error_percent:.2f} % error, {difference.difference_percent:+.2f} points (95 % interval {low:+.2f} "
        f"to {high:+.2f} on {difference.images:,} images)"
    )


def cautions(points: Sequence[Point], chosen: Point | None, split: str, max_drop: float) -> list[str]:
    """What to bear in mind of a choice by images of ``split``."""
    notes = []
    if split == "val":
        notes.append(
            "The images that judge are those that chose, as the data has no test split: on others it is likely to cost "
            "a little more."
        )
    elif reversed_ := [
        each.label
        for each in points
        if each.is_compressed and each.chosen_by.difference_percent <= max_drop < each.difference.difference_percent
    ]:
        notes.append(
            f"Within the budget on the validation images and over it on the test images: {', '.join(reversed_)}."
        )
    if chosen and chosen.difference.interval_percent[1] > max_drop:
        notes.append(
            f"The interval of what it costs reaches {chosen.difference.interval_percent[1]:+.2f} points: "
            f"{chosen.difference.images:,} images cannot rule out more than the budget."
        )
    restless = max(points, key=lambda each: each.p99_ms / each.p50_ms)
    if (times := restless.p99_ms / restless.p50_ms) > BUSY:
        notes.append(
            f"Other work kept this machine busy while it was measured: of {restless.label} one call in a hundred took "
            f"{times:.0f} times the median. Times and their ratios say little; measure again with --resume."
        )
    return notes
