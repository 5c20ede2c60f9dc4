"""Figures with matplotlib: as objects, as SVG that takes the page's colours, as PNG."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import numpy as np

from convarium.report.labels import Box, Circle, lead_line, place_labels
from convarium.svg import COLOURS as SHEET

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours: distinct for colour-blind readers, legible on light and dark.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6BB1", "#999999")
# Stands for the text colour of the page in SVG; no drawn thing uses it otherwise.
INK = "#010203"
_FIGURES = itertools.count()


def new_figure(width: float, height: float, columns: int = 1, rows: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure of ``width`` x ``height`` inches without a window, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, **options)
    for each in np.atleast_1d(axes).flat:
        each.spines[["top", "right"]].set_visible(False)
        for part in (*each.spines.values(), each.xaxis.label, each.yaxis.label, each.title):
            part.set_color(INK)
        each.tick_params(colors=INK)
    return figure, axes


def to_svg(figure: Figure) -> str:
    """Inline SVG on a transparent ground, in the page's text colour and font."""
    import matplotlib

    held = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "convarium"}):
        figure.savefig(held, format="svg", transparent=True, metadata={"Date": None})
    svg = held.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    # Ids are the figure's own, so that two figures on one page do not share any.
    own = f"f{next(_FIGURES)}-"
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{own}", svg)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    return svg.replace(INK, "currentColor")


def to_svg_file(figure: Figure, title: str) -> str:
    """A document of its own: on a light ground, or on a dark one where the reader prefers that."""
    light, dark = (f"color: {SHEET['ink'][i]}; background: {SHEET['ground'][i]}" for i in (0, 1))
    head = (
        f"<title>{escape(title)}</title>\n<style>svg {{ {light} }} "
        f"@media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }}</style>\n"
    )
    svg = to_svg(figure).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    start = svg.index(">") + 1
    return svg[:start] + "\n" + head + svg[start:]


def to_png(figure: Figure) -> bytes:
    """PNG on white, 120 dots an inch."""
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=120)
    return held.getvalue()


def curves_figure(histories: dict[str, list[dict[str, Any]]]) -> Figure:
    """Training loss and held-out error over the epochs, one line per run."""
    figure, (loss, error) = new_figure(9, 3.2, columns=2)
    for (name, rows), colour in zip(histories.items(), _cycle(len(histories)), strict=True):
        epochs = [row["epoch"] for row in rows]
        loss.plot(epochs, [row["train_loss"] for row in rows], color=colour, label=name)
        error.plot(epochs, [row["val_top1_error_percent"] for row in rows], color=colour, label=name)
    loss.set(title="training loss", xlabel="epoch")
    error.set(title="held-out top-1 error, %", xlabel="epoch")
    if len(histories) > 1:
        error.legend(frameon=False, labelcolor=INK)
    for axes in (loss, error):
        axes.set_ylim(bottom=0)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def accuracy_figure(points: Sequence[tuple[str, float, float, float]]) -> Figure:
    """Error against multiply-adds, circles sized by parameters: rows of (name, MACs, error in per cent, parameters)."""
    figure, axes = new_figure(9, 4)
    largest = max(params for *_, params in points)
    top = max(max(error for _, _, error, _ in points), 0.5)
    axes.set(xscale="log", xlabel="multiply-adds per image", ylabel="held-out top-1 error, %")
    axes.set_xlim(min(p[1] for p in points) / 3, max(p[1] for p in points) * 12)
    axes.set_ylim(-0.1 * top, 1.25 * top)
    heights = _apart([(math.log10(macs), error) for _, macs, error, _ in points], 0.14 * top)
    for (name, macs, error, params), colour, height in zip(points, _cycle(len(points)), heights, strict=True):
        area = 60 + 1000 * params / largest
        axes.scatter([macs], [error], s=area, color=colour, alpha=0.75, linewidths=0)
        axes.annotate(
            f"{name}, {params / 1e3:,.0f} k parameters", (macs, height), xytext=(6 + area**0.5 / 2, 0),
            textcoords="offset points", va="center", color=INK, fontsize=9,
        )  # fmt: skip
    return figure


def _apart(places: Sequence[tuple[float, float]], gap: float) -> list[float]:
    """Heights for labels at (x, y): each at its y, pushed up where it would lie on one below it in the same decade."""
    heights = [0.0] * len(places)
    placed: list[tuple[float, float]] = []
    for i in sorted(range(len(places)), key=lambda i: places[i][1]):
        x, y = places[i]
        for other_x, other_y in placed:
            if abs(x - other_x) < 1 and abs(y - other_y) < gap:
                y = other_y + gap
        heights[i] = y
        placed.append((x, y))
    return heights


def confusion_figure(confusion: Sequence[Sequence[int]], class_names: Sequence[str]) -> Figure:
    """Counts, true class down and predicted class across; shade by the part of the true class."""
    counts = np.asarray(confusion)
    parts = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(9.0, 2.2 + 0.34 * len(class_names))
    figure, axes = new_figure(side, side * 0.92)
    axes.imshow(parts, cmap="Blues", vmin=0, vmax=1, alpha=0.85)
    if len(class_names) <= 30:
        for (i, j), count in np.ndenumerate(counts):
            if count:
                colour = "white" if parts[i, j] > 0.5 else "#D55E00" if i != j else INK
                axes.text(j, i, str(count), ha="center", va="center", color=colour, fontsize=8)
        labels = [plain(name) for name in class_names]
        axes.set_xticks(range(len(labels)), labels, rotation=90 if max(map(len, labels)) > 3 else 0)
        axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="predicted", ylabel="true")
    return figure


def label_points(
    axes: Any,
    names: Sequence[str],
    bold: Sequence[bool],
    circles: Sequence[Circle],
    letters: float,
    others: Sequence[Circle] = (),
) -> None:
    """Write names beside circles where there is room, none over another, with a line to those that lie farther off.

    Args:
        axes: of a figure of 72 dots an inch, so that a pixel is a point, laid out already.
        names: one for each of ``circles``, in bold where ``bold``.
        circles: in pixels.
        letters: their size in points.
        others: what the names keep off too, such as dots along a line.
    """
    texts = [
        axes.text(0, 0, name, fontsize=letters, color=INK, ha="left", va="bottom", transform=axes.transAxes,
                  fontweight="bold" if heavy else "normal")
        for name, heavy in zip(names, bold, strict=True)
    ]  # fmt: skip
    extents = [text.get_window_extent() for text in texts]
    place = axes.get_window_extent()
    bounds = Box(place.x0 + 2, place.y0 + 2, place.width - 2, place.height - 2)
    sizes = [(extent.width, extent.height) for extent in extents] + [(0.0, 0.0)] * len(others)
    boxes = place_labels([*circles, *others], sizes, bounds)[: len(circles)]
    for circle, text, box in zip(circles, texts, boxes, strict=True):
        if box is None:
            text.remove()
            continue
        text.set_position(axes.transAxes.inverted().transform((box.left, box.low)))
        lead = lead_line(circle, box)
        if lead:
            (x, to_x), (y, to_y) = zip(*axes.transAxes.inverted().transform(lead), strict=True)
            axes.plot([x, to_x], [y, to_y], color=INK, linewidth=0.5, alpha=0.6, transform=axes.transAxes)


def plain(name: str) -> str:
    """A name as matplotlib draws it to the letter: a dollar sign would begin a formula."""
    return name.replace("$", r"\$")


def _cycle(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]
