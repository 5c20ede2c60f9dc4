"""One self-contained HTML page of an explanation: no script, no outside address, light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from convarium import __version__
from convarium.atomic import write_text
from convarium.explanation.methods import METHODS

if TYPE_CHECKING:
    from convarium.explanation.explain import Seen

MOST = 100  # figures of one method on the page; the others are files beside it


def write_page(
    path: Path,
    title: str,
    seen: Sequence[Seen],
    drawn: Mapping[str, Sequence[tuple[str, str]]],
    left_out: Mapping[str, str],
) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        title: of the page.
        seen: the images, and what the network said of them.
        drawn: by method, its figures as inline SVG and a sentence to each.
        left_out: by method, why it is not shown.

    Raises:
        ConvariumError: the file cannot be written.
    """
    from jinja2 import Environment

    template = files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8")
    page = Environment(autoescape=True).from_string(template)
    write_text(
        path,
        page.render(
            title=title, seen=seen, drawn=drawn, left_out=left_out, methods=METHODS, most=MOST, version=__version__
        ),
    )
