"""The claims as tables: in the terminal, as one self-contained HTML page, as Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from convarium.atomic import write_text
from convarium.claims.claims import SIGNS, Claims, Row, shown, summary_line
from convarium.report.template import render_page

if TYPE_CHECKING:
    from rich.console import RenderableType

TITLE = "Which published numbers are true"
INTRODUCTION = (
    "The figures of papers, and of the texts that repeat them, which can be checked without training a network: "
    "parameters, multiply-adds, sizes, ratios, receptive fields. Each is counted anew from the network or the layers "
    "that it speaks of.",
    "The digits as printed are the measure. A count that rounds to them, halves up, is within printed rounding; one "
    'that does not differs, be it in the last digit, and what is known of the cause stands beside it. "Over" and '
    '"under" a number hold when they do. A multiply-add is one multiplication with its addition, in convolutions and '
    "matrix products; what counts both apart says operations. K, M and G are powers of 1,000, of 1,024 in bytes and "
    "where the table says so.",
)


def claims_tables(judged: Claims) -> RenderableType:
    """For the terminal: a table per paper, the summary last, where the eye is."""
    from rich.console import Group

    from convarium.console import table

    shown_parts: list[RenderableType] = []
    for title, rows in judged.groups():
        tabled = table("claim", ">published", "", ">ours", ">rounded alike", "where; why", title=title)
        for row in rows:
            why = "; ".join(filter(None, (row.where, row.cause)))
            tabled.add_row(row.claim, row.published, SIGNS[row.verdict], shown(row.ours), row.ours_printed, why)
        shown_parts += [tabled, ""]
    written = [f"written to {path}" for path in judged.written]
    return Group(*shown_parts, summary_line(judged), *written)


def write_html(path: Path, judged: Claims) -> None:
    """One page without outside addresses, light or dark as its reader's; every row has an anchor.

    Raises:
        ConvariumError: the file cannot be written.
    """
    values = dict(title=TITLE, introduction=INTRODUCTION, judged=judged, signs=SIGNS, shown=shown)
    write_text(path, render_page(__package__, **values))


def write_markdown(path: Path, judged: Claims) -> None:
    """The same as Markdown, for the documentation.

    Raises:
        ConvariumError: the file cannot be written.
    """
    lines = [f"# {TITLE}", "", "Written by `convarium claims --markdown docs/claims.md`.", ""]
    for paragraph in INTRODUCTION:
        lines += [paragraph, ""]
    lines += [f"**{summary_line(judged)}.**", ""]
    for title, rows in judged.groups():
        lines += [f"## {title}", "", "| claim | where | published | ours | verdict |", "|---|---|---:|---:|---|"]
        for row in rows:
            why = f": {row.cause}" if row.cause else ""
            cells = (row.claim, row.where, row.published, shown(row.ours), _verdict(row) + why)
            lines.append("| " + " | ".join(_escaped(cell) for cell in cells) + " |")
        lines.append("")
    write_text(path, "\n".join(lines))


def _verdict(row: Row) -> str:
    return f"{SIGNS[row.verdict]} {row.verdict}"


def _escaped(cell: str) -> str:
    """Text whose signs Markdown would take for its own."""
    return "".join(f"\\{sign}" if sign in "\\|*_~^<>`" else sign for sign in cell)
