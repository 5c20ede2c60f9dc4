"""What came of a search: every network measured beside the dense one, and the one that was chosen."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convarium.compression.search_plan import Target
from convarium.errors import GateError
from convarium.evaluation.statistics import Paired

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Point:
    """One network in one form, measured.

    Attributes:
        name: dense, or step-<n>.
        form: torch, which runs the run folder; float or int8, which are files for the runtime.
        run, file: the run folder, and the file.
        macs, params: multiply-adds of one image, and parameters.
        bytes: of the file, of its weights for torch.
        error_percent, low_percent, high_percent: top-1, with its 95 % interval.
        difference: to the dense network in torch, on the same images.
        chosen_by: the same on the validation images, by which networks are chosen.
        p50_ms, p99_ms: one image at a time: the time that half of the calls keep to, and 99 in a hundred.
        images_per_second: in batches.
        memory_mib: the most that a process takes that answers with it; ``None`` where the system does not tell.
        in_float: layers that int8 left as they were.
        on_front: no other errs as little for as low a cost.
    """

    name: str
    form: str
    run: str
    file: str
    macs: int
    params: int
    bytes: int
    error_percent: float
    low_percent: float
    high_percent: float
    difference: Paired
    chosen_by: Paired
    p50_ms: float
    p99_ms: float
    images_per_second: float
    memory_mib: float | None
    in_float: list[str]
    on_front: bool = False

    @property
    def label(self) -> str:
        return f"{self.name} {self.form}"

    @property
    def drop(self) -> float:
        """Points of error over the dense network: the larger of what the validation and the test images say."""
        return max(self.difference.difference_percent, self.chosen_by.difference_percent)

    @property
    def is_compressed(self) -> bool:
        return self.form == "int8" or self.name != "dense"

    def cost(self, target: Target) -> float:
        costs = {"latency": self.p50_ms, "macs": self.macs, "params": self.params, "size": self.bytes}
        return float(costs[target])


@dataclass(frozen=True)
class Compression:
    """A finished search.

    Attributes:
        run, data: what was compressed, on what.
        split, images: what judged: so many images of that split.
        max_drop, target: what was asked for.
        runtime, machine, threads, batch: what was measured on; ``batch`` images at once for the throughput.
        epochs: of fine-tuning after each step.
        points: dense in torch first, then by step and form.
        chosen: the label of one of them; ``None`` where the budget was not met.
        file: where it lies.
        sentence: what it costs and gains, or what came nearest.
        notes: what to bear in mind.
        output, page: the folder, and the page in it.
    """

    run: str
    data: str
    split: str
    images: int
    max_drop: float
    target: Target
    runtime: str
    machine: str
    threads: int
    batch: int
    epochs: int
    points: list[Point]
    chosen: str | None
    file: str | None
    sentence: str
    notes: list[str]
    output: Path
    page: Path

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def render(self) -> RenderableType:
        from rich.console import Group

        from convarium.console import short, table

        rows = table(
            "network", "form", ">MACs", ">params", ">KiB", ">error, %", ">95 %", ">points", ">95 %", ">p50, ms", ">p99",
            ">images/s", ">MiB", "",
            title=f"{self.run} on {self.data}: top-1 error of {self.images:,} {self.split} images",
        )  # fmt: skip
        for each in self.points:
            low, high = each.difference.interval_percent
            rows.add_row(
                each.name,
                each.form,
                short(each.macs),
                short(each.params),
                f"{each.bytes / 2**10:,.0f}",
                f"{each.error_percent:.2f}",
                f"{each.low_percent:.1f}-{each.high_percent:.1f}",
                f"{each.difference.difference_percent:+.2f}",
                f"{low:+.1f} to {high:+.1f}",
                f"{each.p50_ms:.2f}",
                f"{each.p99_ms:.2f}",
                f"{each.images_per_second:,.0f}",
                "" if each.memory_mib is None else f"{each.memory_mib:,.0f}",
                "chosen" if each.label == self.chosen else "front" if each.on_front else "",
            )
        lines = [f"\n{self.sentence}", *[f"\n{note}" for note in self.notes], f"\npage: {self.page}"]
        if self.file:
            lines.append(f"next: convarium predict {self.file} IMAGE...")
        return Group(rows, *lines)


class BudgetNotMet(GateError):
    """Nothing that was tried is within the budget and gains something; ``result`` is all that was measured."""

    def __init__(self, result: Compression) -> None:
        super().__init__(f"{result.sentence} Everything that was tried: {result.page}")
        self.result = result
