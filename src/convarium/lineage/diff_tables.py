"""What ``diff`` found, as tables for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType

from convarium.console import percent, short, table
from convarium.lineage.changes import LayerChange
from convarium.lineage.diff import Diff

MOST_CHANGES = 24  # more kinds of change than this are two networks, not a change


def diff_tables(found: Diff) -> RenderableType:
    a, b = found.a, found.b
    parts: list[RenderableType] = [*_origins(found), ""]
    if found.equal:
        of = "the networks of " if found.runs else ""
        same = f"{of}{a.name} and {b.name} are equal" if a.name != b.name else f"{a.name} equals itself"
        parts.append(f"{same}: no layer, shape or count differs")
    parts.append(_totals_table(found))
    if not found.equal:
        parts += ["", _stages_table(found)]
        parts += ["", _changes_table(found.changes) if _related(found) else _layers_table(found)]
    if found.published:
        parts += ["", _published_table(found)]
    if found.runs:
        parts += ["", _runs_table(found)]
    return Group(*parts)


def _related(found: Diff) -> bool:
    """Whether one is a change of the other: most stages are the same ones, and there are few kinds of change."""
    same = sum(bool(row.a and row.b and row.a.name == row.b.name) for row in found.stages)
    return 2 * same > len(found.stages) and 0 < len(found.changes) <= MOST_CHANGES


def _origins(found: Diff) -> list[str]:
    """A line for each, and one for how they are related."""
    lines = []
    for side in {found.a.name: found.a, found.b.name: found.b}.values():
        network = side.name if side.name == side.architecture else f"{side.name}: a {side.architecture}"
        lines.append(f"{network}, {side.year}: {side.paper}" if side.year else network)
    return [*lines, found.relation] if found.relation else lines


def _totals_table(found: Diff) -> RenderableType:
    made = table("", f">{found.a.name}", f">{found.b.name}", ">difference", ">ratio")
    sizes = ["x".join(map(str, side.input_size)) for side in (found.a, found.b)]
    made.add_row("input", *sizes, "", "")
    names = {
        "params": "parameters",
        "macs": "MACs",
        "peak_activations": "activations, peak",
        "size_mib": "MiB stored",
        "receptive_field_px": "last map sees, px",
    }
    for row in found.totals:
        cells = ["all" if value is None else f"{value:,}" for value in (row.a, row.b)]
        made.add_row(names.get(row.quantity, row.quantity), *cells, _signed(row.difference), _ratio(row.ratio))
    return made


def _signed(value: float | None, letters: bool = False) -> str:
    if value is None or value == 0:
        return "" if value is None else "0"
    return ("+" if value > 0 else "") + (short(value) if letters else f"{value:,}")


def _ratio(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.5f}" if 0.999 < value < 1.001 and value != 1 else f"{value:.4g}"


def _stages_table(found: Diff) -> RenderableType:
    made = table(
        "stage", "output", ">params, first", ">second", ">difference", ">MACs, first", ">second", ">difference"
    )
    for row in found.stages:
        names = [part.name for part in (row.a, row.b) if part]
        params = [f"{part.params:,}" if part else "-" for part in (row.a, row.b)]
        macs = [short(part.macs) if part else "-" for part in (row.a, row.b)]
        made.add_row(
            " / ".join(dict.fromkeys(names)),
            _became(*("x".join(map(str, part.output)) if part else "-" for part in (row.a, row.b))),
            *params,
            _signed(row.params_difference),
            *macs,
            _signed(row.macs_difference, letters=True),
            style=None if row.differs else "dim",
        )
    return made


def _became(a: str, b: str) -> str:
    return a if a == b else f"{a} → {b}"


def _changes_table(changes: list[LayerChange]) -> RenderableType:
    made = table(">times", "change within stages", "output, at first", "where", ">params", ">MACs")
    for row in changes:
        if row.a and row.b:
            text = _became(row.a, row.b) + (f": {row.note}" if row.note else "")
        else:
            text = f"+ {row.b}" if row.b else f"- {row.a}"
        outputs = ["x".join(map(str, output)) for output in (row.a_output, row.b_output) if output]
        made.add_row(
            f"{len(row.places)} x",
            text,
            _became(outputs[0], outputs[-1]),
            _where(row.places),
            _signed(row.params_difference),
            _signed(row.macs_difference),
        )
    return made


def _where(places: list[str]) -> str:
    """Stages with how often each, or the block where there is one; the first and the last of many."""
    stages: dict[str, list[str]] = {}
    for place in places:
        stages.setdefault(place.partition(".")[0], []).append(place)
    if len(stages) > 4:
        names = list(stages)
        return f"{names[0]} to {names[-1]}: {len(names)} stages"
    return ", ".join(inside[0] if len(inside) == 1 else f"{stage} ({len(inside)})" for stage, inside in stages.items())


def _layers_table(found: Diff) -> RenderableType:
    made = table("layers", f">{found.a.name}", f">{found.b.name}", ">difference")
    for row in sorted(found.layers, key=lambda row: -max(row.a, row.b)):
        made.add_row(row.kind, str(row.a), str(row.b), _signed(row.b - row.a))
    return made


def _published_table(found: Diff) -> RenderableType:
    made = table("published error", f">{found.a.name}", f">{found.b.name}", ">difference", "protocol", "where")
    for row in found.published:
        made.add_row(
            row.quantity.removesuffix("_error_percent").replace("top", "top-"),
            percent(row.a.value),
            percent(row.b.value),
            _signed(round(row.b.value - row.a.value, 2)),
            row.protocol,
            row.b.where if row.one_table else _became(row.a.where, row.b.where),
        )
    return made


def _runs_table(found: Diff) -> RenderableType:
    made = table("run", f">{found.a.name}", f">{found.b.name}", ">difference")
    for row in found.runs:
        numbers = isinstance(row.a, float) and isinstance(row.b, float)
        made.add_row(row.name, _shown(row.a), _shown(row.b), _signed(round(row.b - row.a, 4)) if numbers else "")
    return made


def _shown(value: object) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
