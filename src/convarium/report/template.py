"""Self-contained HTML pages from templates: no script, no outside address, light and dark."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from convarium import __version__

STYLE = "style.css"  # what all pages share; a template adds its own after {{ style|safe }}


def render_page(package: str, **values: Any) -> str:
    """``page.html.j2`` of a package, filled in; ``style`` and ``version`` are given beside ``values``."""
    from jinja2 import Environment

    template = files(package).joinpath("page.html.j2").read_text(encoding="utf-8")
    style = files(__package__).joinpath(STYLE).read_text(encoding="utf-8")
    return Environment(autoescape=True).from_string(template).render(style=style, version=__version__, **values)
