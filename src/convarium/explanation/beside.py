"""The same explanations of two runs, dense and compressed or before and after, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from convarium.errors import DataError
from convarium.explanation.moved import HeatMoved, NumbersMoved, heat_moved, numbers_moved
from convarium.explanation.page import Row
from convarium.explanation.subject import Picture, Subject
from convarium.runs import Run

if TYPE_CHECKING:
    from rich.table import Table

    from convarium.explanation.explain import Shown


@dataclass(frozen=True)
class Moved:
    """How far a figure of one run is from the same of another: by its heat where it has one, else by its numbers."""

    method: str
    name: str
    heat: HeatMoved | None
    numbers: NumbersMoved | None

    def says(self) -> str:
        if self.heat is not None:
            correlation = self.heat.rank_correlation
            ranks = (
                "no rank correlation: one map is flat" if correlation is None else f"rank correlation {correlation:.2f}"
            )
            return f"{ranks}; {100 * self.heat.overlap:.0f} % of the strongest tenth of the pixels are the same"
        assert self.numbers is not None
        far = self.numbers
        return (
            f"{far.shared} numbers differ by {far.mean_difference:.3g} on average, most of all {far.largest}: "
            f"{far.before:.3g} to {far.after:.3g}"
        )


@dataclass(frozen=True)
class SameClass(Subject):
    """A subject whose pictures are explained for classes chosen beforehand: ``said`` by the picture's name."""

    said: Mapping[str, str] = field(default_factory=dict)

    def target(self, picture: Picture) -> int:
        return self.run.class_names.index(self.class_name or self.said[picture.name])


def shared_classes(runs: Sequence[Run], *, map_by_name: bool) -> list[str]:
    """The classes that all runs know, in the order of the first.

    Raises:
        DataError: their class names differ, and are not to be matched by name; or none is shared.
    """
    first, *others = runs
    shared = [name for name in first.class_names if all(name in other.class_names for other in others)]
    for other in others:
        if other.class_names == first.class_names:
            continue
        if not shared:
            raise DataError(f"{first.path} and {other.path} have no class in common: there is nothing to compare")
        if not map_by_name:
            alone = [name for name in (*first.class_names, *other.class_names) if name not in shared]
            differ = f"{alone[0]!r} is in one of them only" if alone else "they stand in another order"
            raise DataError(
                f"{first.path} and {other.path} have different classes, {len(first.class_names)} and "
                f"{len(other.class_names)} ({differ}): add --map-by-name to compare the {len(shared)} that both know"
            )
    return shared


def for_same_classes(subjects: Sequence[Subject], shared: Sequence[str]) -> list[Subject]:
    """One subject as it is; two each explain a picture for that of the ``shared`` classes that the first holds
    likeliest."""
    if len(subjects) == 1:
        return list(subjects)
    places = [subjects[0].run.class_names.index(name) for name in shared]
    said = {picture.name: shared[int(picture.logits[places].argmax())] for picture in subjects[0].pictures}
    return [
        SameClass(each.run, each.pictures, each.dataset, each.positions, each.labels, said=said) for each in subjects
    ]


def side_by_side(sides: Sequence[Mapping[str, Shown]]) -> tuple[list[Row], list[Moved]]:
    """The page's rows of one method, from each run's figures by name, and how far those of two runs are apart."""
    rows, moved = [], []
    for name in dict.fromkeys(name for side in sides for name in side):
        figures = [side.get(name) for side in sides]
        found = [shown for shown in figures if shown is not None]
        far = _compare(*found) if len(found) == 2 else None
        moved += [far] if far else []
        drawn = [None if shown is None else (shown.svg, shown.row.says) for shown in figures]
        rows.append(Row(drawn, far.says() if far else ""))
    return rows, moved


def _compare(first: Shown, second: Shown) -> Moved | None:
    """``None`` where the two have neither heat nor a number in common."""
    method, name = first.row.method, first.row.name
    if first.heat is not None and second.heat is not None:
        return Moved(method, name, heat_moved(first.heat, second.heat), None)
    numbers = numbers_moved(first.row.numbers, second.row.numbers)
    return Moved(method, name, None, numbers) if numbers else None


def moved_table(moved: Sequence[Moved], run: str, other: str) -> Table:
    """A row per figure."""
    from convarium.console import table

    made = table("method", "figure", ">rank correlation", ">same strongest tenth", "", title=f"{run} against {other}")
    for row in moved:
        if row.heat is not None:
            correlation = row.heat.rank_correlation
            shown = "none" if correlation is None else f"{correlation:.2f}"
            made.add_row(row.method, row.name, shown, f"{100 * row.heat.overlap:.0f} %", "")
        else:
            made.add_row(row.method, row.name, "", "", row.says())
    return made
