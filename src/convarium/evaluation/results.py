"""What ``evaluate`` found, as plain data and as tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from convarium.evaluation.ensemble import Contribution

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


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


@dataclass(frozen=True)
class Row:
    """A run under a protocol. Beside its single crop, on the same images: ``gain`` in points of top-1 error (more is
    better), and how many images were ``mended`` (wrong before, right now) and ``spoilt``; ``None`` for the single crop.

    ``views_per_image`` and ``macs_per_image`` are what was calculated, on average: views that coincide went once.
    """

    run: str
    crops: str
    views_per_image: float
    macs_per_image: float
    top1_error_percent: float
    top5_error_percent: float
    gain: float | None = None
    mended: int | None = None
    spoilt: int | None = None


@dataclass(frozen=True)
class ByCrops(Evaluation):
    """An evaluation under a protocol of several views, which ``rows`` hold beside the single crop."""

    average: str
    rows: list[Row]
    notes: list[str]

    def render(self) -> RenderableType:
        return _page(f"{_images_of(self)}, {self.average} averaged", rows_table(self.rows), self.notes)


@dataclass(frozen=True)
class SideBySide:
    """Several runs on the same images; one of ``evaluations`` for each, under the protocol asked for."""

    data: str
    split: str
    images: int
    runs: list[str]
    average: str
    rows: list[Row]
    evaluations: list[Evaluation]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def render(self) -> RenderableType:
        return _page(_images_of(self), rows_table(self.rows), self.notes)


@dataclass(frozen=True)
class Member:
    """A run of an ensemble: what it costs, and what it adds."""

    run: str
    views_per_image: float
    macs_per_image: float
    contribution: Contribution


@dataclass(frozen=True)
class Ensemble(Evaluation):
    """An evaluation of several runs as one, and of each of them."""

    crops: str
    average: str
    macs_per_image: float
    members: list[Member]
    notes: list[str]

    def render(self) -> RenderableType:
        from convarium.console import short, table

        made = table(
            "member",
            ">views",
            ">MACs per image",
            ">top-1 error alone",
            ">with those above",
            ">without it",
            ">points gained",
        )
        for member in self.members:
            errors = member.contribution
            made.add_row(
                member.run, f"{member.views_per_image:g}", short(member.macs_per_image), f"{errors.alone:.2f} %",
                f"{errors.with_those_before:.2f} %", f"{errors.without_it:.2f} %", f"{errors.gain:+.2f}",
            )  # fmt: skip
        made.add_row("all of them", "", short(self.macs_per_image), "", f"{self.top1_error_percent:.2f} %", "", "")
        errors_of_all = f"top-1 error {self.top1_error_percent:.2f} %, top-5 error {self.top5_error_percent:.2f} %"
        head = f"{_images_of(self)}, {self.average} averaged: {errors_of_all}"
        gain = "Points gained: by how much the error of all of them is lower than without this one."
        return _page(head, made, [gain, *self.notes])


def rows_table(rows: list[Row]) -> Table:
    """A row per run and protocol."""
    from convarium.console import short, table

    gains = (">points gained", ">mended", ">spoilt") if any(row.gain is not None for row in rows) else ()
    made = table("run", "crops", ">views", ">MACs per image", ">top-1 error", ">top-5 error", *gains)
    for row in rows:
        cells = [
            row.run, row.crops, f"{row.views_per_image:g}", short(row.macs_per_image),
            f"{row.top1_error_percent:.2f} %", f"{row.top5_error_percent:.2f} %",
        ]  # fmt: skip
        if row.gain is not None:
            cells += [f"{row.gain:+.2f}", f"{row.mended}", f"{row.spoilt}"]
        made.add_row(*cells)
    return made


def _images_of(result: ByCrops | SideBySide | Ensemble) -> str:
    return f"{result.images:,} {result.split} images of {result.data}"


def _page(head: str, table: Table, notes: list[str]) -> RenderableType:
    from rich.console import Group

    return Group(head, "", table, *(["", *notes] if notes else []))
