"""One self-contained HTML page of an explanation: no script, no outside address, light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from convarium.atomic import write_text
from convarium.explanation.methods import METHODS
from convarium.report.template import render_page

if TYPE_CHECKING:
    from convarium.explanation.explain import Seen

MOST = 100  # figures of one method on the page; the others are files beside it


@dataclass(frozen=True)
class Row:
    """Figures beside each other, one for each run: inline SVG and a sentence, ``None`` where a run has none of it; and
    a ``note`` on how they compare."""

    figures: Sequence[tuple[str, str] | None]
    note: str = ""


def write_page(
    path: Path,
    titles: Sequence[str],
    seen: Sequence[Sequence[Seen]],
    drawn: Mapping[str, Sequence[Row]],
    left_out: Mapping[str, str],
) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        titles: of the run, or of two beside each other.
        seen: for each run the images, and what its network said of them.
        drawn: by method, its figures.
        left_out: by method, why it is not shown.

    Raises:
        ConvariumError: the file cannot be written.
    """
    images = list(zip(*seen, strict=True))  # each image as every run sees it
    values = dict(titles=titles, images=images, drawn=drawn, left_out=left_out, methods=METHODS, most=MOST)
    write_text(path, render_page(__package__, **values))
