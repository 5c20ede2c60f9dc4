"""Drawings as plain SVG: boxes, lines and words on a sheet that is light or dark as its reader's page is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from xml.sax.saxutils import escape

FONT = "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif"
# name -> (on a light ground, on a dark one)
COLOURS = {
    "ground": ("#ffffff", "#15181b"),
    "ink": ("#1c2024", "#e8eaed"),
    "quiet": ("#5d656d", "#a2a9b0"),
    "line": ("#c3c9d0", "#454d55"),
    "blue": ("#0072b2", "#56b4e9"),
    "orange": ("#b36b00", "#e69f00"),
    "green": ("#00795a", "#2fc79c"),
    "pink": ("#a8477d", "#e0a0c5"),
}


@dataclass
class Sheet:
    """Shapes in the order in which they are drawn; positions and sizes in pixels, y downwards.

    Colours are names of :data:`COLOURS`, so that one file serves on light ground and on dark.
    """

    shapes: list[str] = field(default_factory=list)

    def box(
        self, x: float, y: float, width: float, height: float, colour: str = "ink", *, fill: float = 0.12,
        radius: float = 4,
    ) -> None:  # fmt: skip
        """A rounded rectangle with its border in ``colour``, and inside it ``fill`` of 1 of that colour."""
        self.shapes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" stroke="var(--{colour})" '
            f'fill="var(--{colour})" fill-opacity="{fill:g}"/>'
        )

    def line(self, points: Sequence[tuple[float, float]], colour: str = "quiet", *, arrow: bool = False) -> None:
        """Straight pieces through ``points``, with a head at the last when ``arrow``."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        head = ' marker-end="url(#head)"' if arrow else ""
        self.shapes.append(f'<polyline points="{path}" stroke="var(--{colour})" fill="none"{head}/>')

    def flow(self, points: Sequence[tuple[float, float]], colour: str = "quiet", *, width: float = 1) -> None:
        """A line down through ``points``: upright where x stays, in an S where it changes; ``width`` in pixels."""
        path = "M{:g},{:g}".format(*points[0])
        for (x, y), (to_x, to_y) in pairwise(points):
            middle = (y + to_y) / 2
            path += f" V{to_y:g}" if x == to_x else f" C{x:g},{middle:g} {to_x:g},{middle:g} {to_x:g},{to_y:g}"
        self.shapes.append(f'<path d="{path}" stroke="var(--{colour})" stroke-width="{width:g}" fill="none"/>')

    def words(
        self, x: float, y: float, text: str, colour: str = "ink", *, size: float = 13, anchor: str = "start",
        bold: bool = False,
    ) -> None:  # fmt: skip
        """``text`` on the base line ``y``; ``anchor`` is start, middle or end."""
        weight = ' font-weight="600"' if bold else ""
        self.shapes.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}" fill="var(--{colour})"{weight}>'
            f"{escape(text)}</text>"
        )

    def render(self, width: float, height: float, title: str) -> str:
        """The whole document, ``width`` x ``height`` pixels."""
        light, dark = (" ".join(f"--{name}: {pair[i]};" for name, pair in COLOURS.items()) for i in (0, 1))
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
                f'viewBox="0 0 {width:g} {height:g}" role="img" font-family="{FONT}">',
                f"<title>{escape(title)}</title>",
                f"<style>svg {{ {light} }} @media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }}</style>",
                '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
                '<path d="M0,0.5 L8,4 L0,7.5 z" fill="var(--quiet)"/></marker>',
                f'<rect width="{width:g}" height="{height:g}" fill="var(--ground)"/>',
                *self.shapes,
                "</svg>\n",
            ]
        )


def width_of(text: str, size: float = 13) -> float:
    """About how many pixels ``text`` takes, a little more rather than less."""
    narrow = sum(letter in "fijlrt.,:;'|()[] " for letter in text)
    wide = sum(letter in "mwMW%@" for letter in text)
    return size * (0.6 * len(text) - 0.27 * narrow + 0.27 * wide)
