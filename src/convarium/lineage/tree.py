"""``tree``: who descends from whom, and what each step did to parameters, multiply-adds and published error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convarium.errors import UsageError
from convarium.facts import NetworkFacts, Paper, Published, all_facts
from convarium.lineage.names import many, matching
from convarium.networks import CATALOGUE

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.tree import Tree

ERROR = "top1_error_percent"


@dataclass(frozen=True)
class Errors:
    """Top-1 errors of an ancestor and of a network that descends from it, published under one ``protocol``.

    ``one_source`` says whether one paper or release has both: other hands train otherwise.
    """

    before_percent: float
    after_percent: float
    protocol: str
    where_before: str
    where_after: str
    one_source: bool


@dataclass(frozen=True)
class Step:
    """What a network costs over ``over``, an ancestor; each at its paper's ``input`` of (channels, height, width)."""

    over: str
    params_ratio: float
    macs_ratio: float
    input: tuple[int, int, int]
    input_before: tuple[int, int, int]
    errors: Errors | None

    def text(self) -> str:
        """Such as ``params ×1.10, MACs ×1.00, error 24.8 → 23.29 % (1 crop)``."""
        from convarium.console import percent

        parts = [f"params {ratio(self.params_ratio)}", f"MACs {ratio(self.macs_ratio)}"]
        if self.input != self.input_before:
            parts[-1] += f" at {'x'.join(map(str, self.input))}"
        if self.errors:
            how = self.errors.protocol.removeprefix("ImageNet validation").lstrip(", ")
            sources = "" if self.errors.one_source else "; two sources"
            before, after = percent(self.errors.before_percent).removesuffix(" %"), percent(self.errors.after_percent)
            parts.append(f"error {before} → {after} ({how}{sources})")
        return ", ".join(parts)


@dataclass(frozen=True)
class Member:
    """One network of the family; ``step`` is the one from its first parent."""

    name: str
    year: int
    paper: str
    parents: tuple[str, ...]
    changed: str
    params: int
    macs: int
    step: Step | None


@dataclass(frozen=True)
class FamilyTree:
    """Networks in the catalogue's order; ``asked`` are those whose kin they are; ``svg`` is the file, where one was
    asked for."""

    networks: list[Member]
    asked: list[str]
    svg: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def render(self) -> RenderableType:
        if self.svg:
            papers = {member.paper for member in self.networks}
            return f"{self.svg}: {many(len(self.networks), 'network')} of {many(len(papers), 'paper')}"
        from rich.console import Group

        return Group(*_branches(self))

    def draw(self) -> str:
        """The tree as SVG, one box per paper."""
        from convarium.lineage.drawing import draw_papers

        facts = all_facts()
        return draw_papers([facts[member.name] for member in self.networks])


def tree(names: Sequence[str] = (), /, *, svg: Path | None = None) -> FamilyTree:
    """The family tree of the catalogue, or of some networks: their ancestors and descendants.

    Args:
        names: networks or wildcards, such as "se_*"; all networks when none is given.
        svg: draw the tree, a box per paper, into this .svg file.

    Raises:
        UsageError: a name that matches nothing, or a file that does not end in .svg.
        ConvariumError: a file that cannot be written.
    """
    if svg is not None and Path(svg).suffix.lower() != ".svg":
        raise UsageError(f"--svg must be a file that ends in .svg; got {str(svg)!r}")
    asked = matching(names or ("*",))
    kin = kin_of(asked)
    facts = all_facts()
    family = FamilyTree([_member(facts[name]) for name in CATALOGUE if name in kin], asked if names else [])
    if svg is None:
        return family
    from convarium.atomic import write_text

    write_text(Path(svg), family.draw())
    return replace(family, svg=Path(svg))


def kin_of(names: Iterable[str]) -> set[str]:
    """``names``, all that they descend from, and all that descends from them."""
    up = {name: facts.parents for name, facts in all_facts().items()}
    down = {name: [child for child, parents in up.items() if name in parents] for name in up}
    names = set(names)
    return names | _reach(names, up) | _reach(names, down)


def _reach(names: set[str], edges: dict[str, Any]) -> set[str]:
    reached: set[str] = set()
    frontier = names
    while frontier:
        frontier = {other for name in frontier for other in edges[name]} - reached
        reached |= frontier
    return reached


def step_over(ancestor: NetworkFacts, network: NetworkFacts) -> Step:
    """What ``network`` costs over ``ancestor``, and their errors where both were published under one protocol."""
    return Step(
        over=ancestor.name,
        params_ratio=network.counts.params / ancestor.counts.params,
        macs_ratio=network.counts.macs / ancestor.counts.macs,
        input=network.input,
        input_before=ancestor.input,
        errors=_errors(ancestor, network),
    )


def _errors(ancestor: NetworkFacts, network: NetworkFacts) -> Errors | None:
    """The first two figures of one protocol and one source, or else of one protocol."""
    pairs = [
        Errors(
            before_percent=before.value,
            after_percent=after.value,
            protocol=after.protocol,
            where_before=full_place(before, ancestor.paper),
            where_after=full_place(after, network.paper),
            one_source=source(before, ancestor.paper) == source(after, network.paper),
        )
        for after in network.published
        for before in ancestor.published
        if before.quantity == after.quantity == ERROR and before.protocol == after.protocol
    ]
    return min(pairs, key=lambda pair: not pair.one_source, default=None)


def source(figure: Published, paper: Paper) -> str:
    """Who printed a figure: :func:`full_place` without the table."""
    return re.split(r", (?:as 100 less|Tables? |Section |Fig\. )| \(", full_place(figure, paper))[0]


def full_place(figure: Published, paper: Paper) -> str:
    """Where a figure was printed; a bare ``Table 2`` is the network's own paper's."""
    return f"{paper.name}, {figure.where}" if re.match(r"Tables? |Section |Fig\. ", figure.where) else figure.where


def ratio(value: float) -> str:
    """``×0.41``, ``×1.00``, ``×13.9``, ``×2,219``."""
    if value >= 9.995:
        return f"×{value:,.0f}" if value >= 99.95 else f"×{value:.1f}"
    return f"×{value:.2f}" if value >= 0.0995 else f"×{value:.2g}"


def _member(facts: NetworkFacts) -> Member:
    step = step_over(all_facts()[facts.parents[0]], facts) if facts.parents else None
    return Member(
        name=facts.name,
        year=facts.paper.year,
        paper=facts.paper.name,
        parents=facts.parents,
        changed=facts.changed,
        params=facts.counts.params,
        macs=facts.counts.macs,
        step=step,
    )


def _branches(family: FamilyTree) -> list[Tree]:
    """One rich tree per root; a network stands under the first of its parents that is shown, and names the others."""
    from rich.tree import Tree

    members = {member.name: member for member in family.networks}
    above = {name: next((p for p in member.parents if p in members), None) for name, member in members.items()}
    nodes = {
        name: Tree(_label(member, above[name], name in family.asked), guide_style="dim")
        for name, member in members.items()
    }
    for name, parent in above.items():
        if parent:
            nodes[parent].children.append(nodes[name])
    return [nodes[name] for name, parent in above.items() if parent is None]


def _label(member: Member, above: str | None, asked: bool) -> RenderableType:
    """Two lines: name, year and change; then cost and error."""
    from rich.text import Text

    label = Text(no_wrap=False, overflow="fold")
    label.append(member.name, "bold cyan" if asked else "bold")
    label.append(f" {member.year} ", "dim").append(member.changed)
    if member.step:
        over = "" if member.step.over == above else f" over {member.step.over}"
        label.append(f"\n{member.step.text()}{over}", "green")
    others = [name for name in member.parents if name != above and not (member.step and name == member.step.over)]
    if others:
        label.append(f"; also from {', '.join(others)}", "green")
    return label
