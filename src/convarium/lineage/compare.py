"""``compare``: published error against multiply-adds, and that of one's own runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convarium.errors import DataError, UsageError
from convarium.facts import all_facts
from convarium.lineage.names import matching, short_names
from convarium.lineage.tree import ERROR, full_place
from convarium.networks import CATALOGUE
from convarium.report.front import pareto_front

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Point:
    """A top-1 error in per cent, measured under ``protocol`` and printed in ``where``, and what it costs.

    ``macs`` are for one image of ``input``; ``family`` and ``year`` are those of the network's paper;
    ``best_at_its_cost`` says that no other point has as low an error for as few MACs.
    """

    name: str
    family: str
    year: int
    input: tuple[int, int, int]
    params: int
    macs: int
    top1_error_percent: float
    protocol: str
    where: str
    best_at_its_cost: bool = False


@dataclass(frozen=True)
class Comparison:
    """Points of one ``protocol`` from few MACs to many; ``left_out`` are the names asked for that have none of it;
    ``others`` counts the points under every other protocol that they have."""

    protocol: str
    points: list[Point]
    left_out: list[str]
    others: dict[str, int]
    figure: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def render(self) -> RenderableType:
        from rich.console import Group

        from convarium.console import percent, short, table

        rows = table(
            "network", ">MACs", ">params", ">error", "", "input", "where", title=f"{self.protocol}: top-1 error"
        )
        for point in self.points:
            mark = "best at its cost" if point.best_at_its_cost else ""
            size = "x".join(map(str, point.input))
            rows.add_row(
                point.name,
                short(point.macs),
                short(point.params),
                percent(point.top1_error_percent),
                mark,
                size,
                point.where,
            )
        shown: list[RenderableType] = [rows]
        if self.left_out:
            shown.append(f"\nLeft out, without a figure of this protocol: {', '.join(short_names(self.left_out))}")
        if self.others:
            listed = ", ".join(f"{protocol!r} ({count})" for protocol, count in list(self.others.items())[:5])
            more = f", and {len(self.others) - 5} more" if len(self.others) > 5 else ""
            shown.append(f"\nOther protocols (--protocol): {listed}{more}")
        if self.figure:
            shown.append(f"\nDrawn in {self.figure}")
        return Group(*shown)


def compare(names: tuple[str, ...] = (), /, *, protocol: str | None = None, figure: Path | None = None) -> Comparison:
    """Accuracy against cost: top-1 errors as published, and those of runs, beside parameters and multiply-adds.

    Only errors measured in one way stand beside each other: published ones of one protocol, runs on the same images.

    Args:
        names: networks, wildcards such as "se_*", or run folders; all networks when none is given.
        protocol: words that name another protocol, such as "10 crops"; the commonest when not given.
        figure: draw them into this .svg or .png file, circles sized by parameters.

    Raises:
        UsageError: a name that matches nothing, a protocol that no figure has, a file of another suffix.
        DataError: a run folder that is not whole.
        ConvariumError: a file that cannot be written.
    """
    if figure is not None and Path(figure).suffix.lower() not in (".svg", ".png"):
        raise UsageError(f"--figure must be a file that ends in .svg or .png; got {str(figure)!r}")
    found = _gather(names)
    if not any(found.values()):
        raise UsageError(f"no top-1 error was published for {', '.join(found)}: name others (convarium list)")
    counts = Counter(protocol for points in found.values() for protocol in dict.fromkeys(p.protocol for p in points))
    if protocol is None:
        of_runs = [point.protocol for name, points in found.items() if name not in CATALOGUE for point in points]
        chosen = Counter(of_runs or counts).most_common(1)[0][0]
    else:
        chosen = _find_protocol(protocol, counts)
    firsts = {name: next((p for p in points if p.protocol == chosen), None) for name, points in found.items()}
    points = sorted((p for p in firsts.values() if p), key=lambda p: (p.macs, p.top1_error_percent))
    front = pareto_front([(point.macs, point.top1_error_percent) for point in points])
    compared = Comparison(
        protocol=chosen,
        points=[replace(point, best_at_its_cost=best) for point, best in zip(points, front, strict=True)],
        left_out=[name for name, first in firsts.items() if not first],
        others={other: count for other, count in counts.most_common() if other != chosen},
        figure=None if figure is None else Path(figure),
    )
    if compared.figure:
        _draw(compared, compared.figure)
    return compared


def _gather(names: Sequence[str]) -> dict[str, list[Point]]:
    """All that was measured of each network or run that ``names`` ask for."""
    found: dict[str, list[Point]] = {}
    for name in names or ("*",):
        if name not in CATALOGUE and ("/" in name or Path(name).is_dir()):
            found[name] = [_of_run(Path(name))]
        else:
            found |= {network: _published(network) for network in matching([name])}
    return found


def _published(name: str) -> list[Point]:
    facts = all_facts()[name]
    return [
        Point(
            name=name,
            family=facts.paper.name,
            year=facts.paper.year,
            input=facts.input,
            params=facts.counts.params,
            macs=facts.counts.macs,
            top1_error_percent=figure.value,
            protocol=figure.protocol,
            where=full_place(figure, facts.paper),
        )
        for figure in facts.published
        if figure.quantity == ERROR
    ]


def _of_run(folder: Path) -> Point:
    """The error of a run on the images that its training judged it on.

    Raises:
        DataError: a folder that is not a whole run.
    """
    from convarium.anatomy.describe import describe
    from convarium.runs import EVALUATION, load_run

    run = load_run(folder)
    file = folder / EVALUATION
    try:
        judged = json.loads(file.read_text(encoding="utf-8"))
        error = float(judged["top1_error_percent"])
        protocol = f"{judged['data']}, {judged['images']} {judged['split']} images"
    except FileNotFoundError:
        raise DataError(f"{folder} holds no {EVALUATION}: its training is not finished") from None
    except (ValueError, KeyError, TypeError) as problem:
        raise DataError(f"{file} is not an evaluation of ours: {problem!r}") from None
    side = run.preprocessing.size
    described = describe(run.model, input_size=(run.preprocessing.channels, side, side))
    paper = all_facts()[run.model.name].paper
    return Point(
        name=folder.resolve().name,
        family=paper.name,
        year=paper.year,
        input=described.input_size,
        params=described.params,
        macs=described.macs,
        top1_error_percent=error,
        protocol=protocol,
        where=f"{file}, {run.model.name}",
    )


def _find_protocol(words: str, counts: Counter[str]) -> str:
    """The protocol that is ``words``; or else the commonest that ends in them after a comma; or that holds them.

    Raises:
        UsageError: none, or several that are equally common.
    """
    wanted = words.lower()
    for fits in (
        lambda protocol: protocol == wanted,
        lambda protocol: protocol.endswith(f", {wanted}"),
        lambda protocol: wanted in protocol,
    ):
        found = Counter({protocol: count for protocol, count in counts.items() if fits(protocol.lower())}).most_common()
        if len(found) > 1 and found[0][1] == found[1][1]:
            raise UsageError(f"--protocol {words!r} fits several: {_listed(name for name, _ in found)}; name one")
        if found:
            return found[0][0]
    raise UsageError(f"no figure here has a protocol like {words!r}; there are: {_listed(counts)}")


def _listed(protocols: Iterable[str]) -> str:
    protocols = list(protocols)
    return ", ".join(map(repr, protocols[:6])) + (", ..." if len(protocols) > 6 else "")


def _draw(compared: Comparison, file: Path) -> None:
    from convarium.atomic import write_bytes
    from convarium.lineage.chart import comparison_figure
    from convarium.report.figures import to_png, to_svg_file

    figure = comparison_figure(compared.points, compared.protocol)
    title = f"Top-1 error against multiply-adds: {compared.protocol}"
    write_bytes(file, to_png(figure) if file.suffix.lower() == ".png" else to_svg_file(figure, title).encode())
