"""Error against multiply-adds as a chart: a circle per network, its area by parameters, every one with its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from convarium.console import short
from convarium.lineage.compare import Point
from convarium.report.figures import COLOURS, INK, label_points, new_figure
from convarium.report.labels import Circle

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 10, 8  # inches
LARGEST = 17  # points: the radius of the circle with the most parameters
LETTERS = 8.5  # points
TICKS = (0.1, 0.2, 0.5, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 20, 22, 25, 30, 35, 40, 50, 70, 100)  # per cent


def comparison_figure(points: Sequence[Point], protocol: str) -> Figure:
    """The chart of ``points``, all of one ``protocol``; both axes are logarithmic where the errors allow it.

    Families are told apart by colour, and by an empty circle once the colours are used up.
    """
    figure, axes = new_figure(WIDTH, HEIGHT)
    figure.set_dpi(72)  # so that a pixel is a point
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    _scales(axes, points)
    axes.set(
        xlabel="multiply-adds for one image (bold: no other has as low an error for as few)",
        ylabel=f"top-1 error, %: {protocol}",
    )
    largest = max(point.params for point in points)
    families = list(dict.fromkeys(point.family for point in sorted(points, key=lambda point: point.year)))
    for point in sorted(points, key=lambda point: -point.params):
        area = (2 * _radius(point.params, largest)) ** 2
        axes.scatter([point.macs], [point.top1_error_percent], s=area, **_look(families.index(point.family)))
    axes.scatter(
        [point.macs for point in points], [point.top1_error_percent for point in points], s=3, color=INK, linewidths=0
    )
    _legends(figure, axes, families, largest)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the axes stay where the labels are placed for
    _label(axes, points, largest)
    return figure


def _radius(params: int, largest: int) -> float:
    return LARGEST * (params / largest) ** 0.5


def _look(family: int) -> dict[str, Any]:
    colour = COLOURS[family % len(COLOURS)]
    face = colour + ("b0" if family < len(COLOURS) else "20")
    return dict(facecolor=face, edgecolor=colour, linewidth=0.8 if family < len(COLOURS) else 1.5)


def _scales(axes: Any, points: Sequence[Point]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

    macs, errors = [point.macs for point in points], [point.top1_error_percent for point in points]
    axes.set_xscale("log")
    axes.set_xlim(min(macs) / 1.8, max(macs) * 2.5)
    axes.xaxis.set_major_locator(LogLocator(10, (1, 2, 5), numticks=20))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if min(errors) > 0:
        axes.set_yscale("log")
        axes.set_ylim(min(errors) / 1.15, max(errors) * 1.07)
        axes.yaxis.set_major_locator(FixedLocator([tick for tick in TICKS if min(errors) / 1.15 <= tick]))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.set_ylim(-0.08 * max(errors, default=1) - 0.1, 1.15 * max(errors) + 0.5)


def _legends(figure: Figure, axes: Any, families: Sequence[str], largest: int) -> None:
    """Families at the left below the axes, sizes at the right."""
    marks = [axes.scatter([], [], s=64, **_look(i)) for i in range(len(families))]
    sizes = [10**power for power in range(3, 10) if largest / 500 < 10**power <= largest][-3:] or [largest]
    rings = [
        axes.scatter([], [], s=(2 * _radius(size, largest)) ** 2, facecolor="none", edgecolor=INK) for size in sizes
    ]
    names = [f"{short(size)}" for size in sizes]
    look: dict[str, Any] = dict(frameon=False, fontsize=LETTERS, labelcolor=INK, alignment="left")
    high = LARGEST / LETTERS  # a large ring stands out above and below its line
    left = figure.legend(
        marks, list(families), loc="outside lower left", ncols=4, columnspacing=1.4, title="paper", **look
    )
    right = figure.legend(
        rings, names, loc="outside lower right", ncols=3, title="parameters", handlelength=2 * high,
        handletextpad=0.4, labelspacing=high, borderpad=high, **look,
    )  # fmt: skip
    for legend in (left, right):
        legend.get_title().set(color=INK, fontsize=LETTERS, fontweight="bold")


def _label(axes: Any, points: Sequence[Point], largest: int) -> None:
    middles = axes.transData.transform([(point.macs, point.top1_error_percent) for point in points])
    circles = [Circle(x, y, _radius(point.params, largest)) for (x, y), point in zip(middles, points, strict=True)]
    names, bold = [point.name for point in points], [point.best_at_its_cost for point in points]
    label_points(axes, names, bold, circles, LETTERS)
