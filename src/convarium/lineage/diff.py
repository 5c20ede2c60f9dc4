"""``diff``: what changed between two networks: in all, by stage and layer, in what was published; and of two runs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from convarium.anatomy.describe import Description, Model, describe
from convarium.facts import NetworkFacts, Published, all_facts, find_facts
from convarium.lineage.changes import LayerChange, LayerCount, StageDifference, compare_stages, count_layers

if TYPE_CHECKING:
    from rich.console import RenderableType

    from convarium.runs import Run


@dataclass(frozen=True)
class Side:
    """One of the two: ``name`` is what was asked for, ``architecture`` its name in the catalogue."""

    name: str
    architecture: str
    input_size: tuple[int, int, int]
    year: int | None
    paper: str
    parents: tuple[str, ...]


@dataclass(frozen=True)
class Total:
    """A quantity of both, ``b - a`` and ``b / a``; ``None`` where a side has none (a field of the whole image)."""

    quantity: str
    a: float | None
    b: float | None
    difference: float | None
    ratio: float | None


@dataclass(frozen=True)
class PublishedError:
    """An error in per cent that was published of both, under one protocol."""

    quantity: str
    protocol: str
    a: Published
    b: Published

    @property
    def one_table(self) -> bool:
        """Whether both are printed in the same place, so that the difference is the network's alone."""
        return self.a.where.partition(" (")[0] == self.b.where.partition(" (")[0]


@dataclass(frozen=True)
class Setting:
    """Something that two runs have: of the recipe where it differs, the data, the error, the size of the weights."""

    name: str
    a: Any
    b: Any


@dataclass(frozen=True)
class Diff:
    """``b`` seen from ``a``. ``relation`` says in one sentence how they descend from each other."""

    a: Side
    b: Side
    relation: str
    totals: list[Total]
    stages: list[StageDifference]
    changes: list[LayerChange]
    layers: list[LayerCount]
    published: list[PublishedError]
    runs: list[Setting]

    @property
    def equal(self) -> bool:
        """Whether no layer, shape or count differs."""
        return not self.changes and not any(stage.differs for stage in self.stages)

    def as_dict(self) -> dict[str, Any]:
        return {"equal": self.equal, **asdict(self)}

    def render(self) -> RenderableType:
        from convarium.lineage.diff_tables import diff_tables

        return diff_tables(self)


def diff(a: Model, b: Model, /, *, input_size: int | None = None) -> Diff:
    """What changed between two networks, or between the networks of two runs.

    Args:
        a: a catalogue name, a run folder, or a network.
        b: what is held against it.
        input_size: the side of the images for both; each one's own when not given.

    Raises:
        UsageError: no such network, or an image too small for one.
        DataError: a folder that is not a run.
    """
    runs = [_run(side) for side in (a, b)]
    described = [_described(side, run, input_size) for side, run in zip((a, b), runs, strict=True)]
    facts = [
        None if run is not None or _arguments(side) else find_facts(each.name)
        for side, run, each in zip((a, b), runs, described, strict=True)
    ]
    names = [side if isinstance(side, str) else side.name for side in (a, b)]
    stages, changes = compare_stages(*described)
    return Diff(
        a=_side(names[0], described[0]),
        b=_side(names[1], described[1]),
        relation=relation(described[0].name, described[1].name),
        totals=_totals(*described),
        stages=stages,
        changes=changes,
        layers=count_layers(*described),
        published=_published(*facts),
        runs=_settings(runs[0], runs[1]) if runs[0] and runs[1] else [],
    )


def _run(side: Model) -> Run | None:
    from convarium.runs import find_run

    return find_run(side) if isinstance(side, str) else None


def _described(side: Model, run: Run | None, input_size: int | None) -> Description:
    if run is None:
        return describe(side, input_size=input_size)
    pixels = input_size or run.preprocessing.size
    return describe(run.model, input_size=(run.preprocessing.channels, pixels, pixels))


def _arguments(side: Model) -> dict[str, Any]:
    return {} if isinstance(side, str) else side.arguments


def _side(name: str, described: Description) -> Side:
    facts = find_facts(described.name)
    paper = f"{facts.paper.title} ({facts.paper.venue})" if facts else ""
    year, parents = (facts.paper.year, facts.parents) if facts else (None, ())
    return Side(name, described.name, described.input_size, year, paper, parents)


def _totals(a: Description, b: Description) -> list[Total]:
    quantities = ("params", "macs", "activations", "peak_activations", "size_mib", "receptive_field_px")
    return [_total(name, getattr(a, name), getattr(b, name)) for name in quantities]


def _total(quantity: str, a: float | None, b: float | None) -> Total:
    if a is None or b is None:
        return Total(quantity, a, b, None, None)
    return Total(quantity, a, b, round(b - a, 2), b / a if a else None)


# -- facts and runs ---------------------------------------------------------------------------------------------


def relation(a: str, b: str) -> str:
    """How two networks of the catalogue descend from each other, in one sentence; empty for others or the same."""
    facts = all_facts()
    if a == b or a not in facts or b not in facts:
        return ""
    above_a, above_b = _ancestors(a, facts), _ancestors(b, facts)
    for child, parent, above in ((b, a, above_b), (a, b, above_a)):
        if parent in above:
            steps = above[parent]
            through = f" through {', '.join(reversed(steps))}" if steps else f": {facts[child].changed}"
            return f"{child} descends from {parent}{through}"
    common = [name for name in above_a if name in above_b]
    if not common:
        return f"{a} and {b} have no ancestor in common"
    nearest = min(common, key=lambda name: (len(above_a[name]) + len(above_b[name]), -facts[name].paper.year, name))
    return f"{a} and {b} both descend from {nearest}"


def _ancestors(name: str, facts: dict[str, NetworkFacts]) -> dict[str, list[str]]:
    """Every ancestor, nearest first, with the networks between it and ``name``, nearest to ``name`` first."""
    found: dict[str, list[str]] = {}
    frontier = [(parent, [name]) for parent in facts[name].parents]
    while frontier:
        parent, below = frontier.pop(0)
        if parent not in found:
            found[parent] = below[1:]
            frontier += [(above, [*below, parent]) for above in facts[parent].parents]
    return found


def _published(a: NetworkFacts | None, b: NetworkFacts | None) -> list[PublishedError]:
    """Errors of one protocol that were published of both: those of one table where there are such, or else the first
    of each."""
    if a is None or b is None or a.name == b.name:
        return []
    found: dict[tuple[str, str], PublishedError] = {}
    for left, right in product(_errors(a), _errors(b)):
        key = (left.quantity, left.protocol)
        if key == (right.quantity, right.protocol):
            pair = PublishedError(*key, left, right)
            if key not in found or (pair.one_table and not found[key].one_table):
                found[key] = pair
    return list(found.values())


def _errors(facts: NetworkFacts) -> list[Published]:
    """The errors that were published of a network, each with the paper's name in ``where``."""
    errors = [fact for fact in facts.published if fact.quantity.endswith("_error_percent")]
    own = ("Table", "Section", "Fig", "Appendix")
    return [
        replace(fact, where=f"{facts.paper.name}, {fact.where}") if fact.where.startswith(own) else fact
        for fact in errors
    ]


def _settings(a: Run, b: Run) -> list[Setting]:
    from convarium.recipe import read_recipe
    from convarium.runs import RECIPE
    from convarium.tensors import WEIGHTS

    recipes = [asdict(read_recipe(run.path / RECIPE)[0]) for run in (a, b)]
    judged = [_evaluation(run) for run in (a, b)]
    measured = ("data", "split", "images", "top1_error_percent", "top5_error_percent")
    sizes = [round((run.path / WEIGHTS).stat().st_size / 2**20, 3) for run in (a, b)]
    return [
        *(Setting(name, *(each.get(name) for each in judged)) for name in measured),
        Setting("weights_mib", *sizes),
        *(
            Setting(f"recipe: {name}", old, recipes[1][name])
            for name, old in recipes[0].items()
            if recipes[1][name] != old
        ),
    ]


def _evaluation(run: Run) -> dict[str, Any]:
    """What was measured when the training ended; nothing when that file is gone."""
    from convarium.runs import EVALUATION

    path = run.path / EVALUATION
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
