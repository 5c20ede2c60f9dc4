"""What ``evaluate`` found, as plain data and as tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from convarium.evaluation.calibration import Calibration
from convarium.evaluation.ensemble import Contribution
from convarium.evaluation.statistics import Paired

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
    """Errors in per cent over ``images`` images, the first with its 95 % interval; ``confusion[i][j]`` counts images of
    class i taken for class j."""

    data: str
    split: str
    images: int
    top1_error_percent: float
    top1_interval_percent: tuple[float, float]
    top5_error_percent: float
    calibration: Calibration
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
        head = f"{_images_of(self)}, {self.average} averaged: {errors_of(self)}"
        return _page(head, rows_table(self.rows), [calibration_of(self), *self.notes])


@dataclass(frozen=True)
class SideBySide:
    """Several runs on the same images; one of ``evaluations`` for each, under the protocol asked for; each but the
    first ``paired`` with the first."""

    data: str
    split: str
    images: int
    runs: list[str]
    average: str
    rows: list[Row]
    evaluations: list[Evaluation]
    paired: list[Paired]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"paired": [pair.as_dict() for pair in self.paired]}

    def render(self) -> RenderableType:
        said = [f"{pair.sentence()}." for pair in self.paired]
        return _page(_images_of(self), rows_table(self.rows), [*said, *self.notes])


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
        head = f"{_images_of(self)}, {self.average} averaged: {errors_of(self)}"
        gain = "Points gained: by how much the error of all of them is lower than without this one."
        return _page(head, made, [gain, calibration_of(self), *self.notes])


def evaluation_tables(evaluation: Evaluation) -> RenderableType:
    """Errors, the classes, what they are taken for, and the surest mistakes."""
    from rich.console import Group

    from convarium.console import table

    head = f"{_images_of(evaluation)}: {errors_of(evaluation)}"
    classes = table("class", ">images", ">error", "taken for")
    for row in evaluation.per_class:
        true = evaluation.class_names.index(row.name)
        taken = [(count, name) for name, count in zip(evaluation.class_names, evaluation.confusion[true], strict=True)]
        others = sorted(((c, n) for c, n in taken if c and n != row.name), reverse=True)[:4]
        shown = ", ".join(f"{name} ({count})" for count, name in others)
        classes.add_row(row.name, f"{row.images:,}", f"{row.error_percent:.2f} %", shown)
    parts: list[RenderableType] = [head, calibration_of(evaluation), "", classes]
    if evaluation.mistakes:
        surest = table("surest mistakes", "true", "predicted", ">probability")
        for mistake in evaluation.mistakes:
            surest.add_row(mistake.image, mistake.true, mistake.predicted, f"{100 * mistake.probability:.1f} %")
        parts += ["", surest]
    return Group(*parts)


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


def errors_of(result: Evaluation) -> str:
    """Both errors, the first with its interval."""
    low, high = result.top1_interval_percent
    return (
        f"top-1 error {result.top1_error_percent:.2f} % (95 % interval {low:.2f} to {high:.2f}), top-5 error "
        f"{result.top5_error_percent:.2f} %"
    )


def calibration_of(result: Evaluation) -> str:
    """A sentence on how far to trust the probabilities."""
    return f"Calibration: {result.calibration.sentence()}."


def _images_of(result: Evaluation | SideBySide) -> str:
    return f"{result.images:,} {result.split} images of {result.data}"


def _page(head: str, table: Table, notes: list[str]) -> RenderableType:
    from rich.console import Group

    return Group(head, "", table, *(["", *notes] if notes else []))
