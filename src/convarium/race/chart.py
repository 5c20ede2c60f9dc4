"""Error against what it costs: measured time with the front drawn, and multiply-adds; circles by parameters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from convarium.console import short
from convarium.race.result import Candidate
from convarium.report.figures import COLOURS, label_points, new_figure
from convarium.report.labels import Circle

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST, SMALLEST = 15.0, 3.0  # points: radii of the most parameters and of the fewest that are seen
LETTERS = 9
EDGE = 2.0  # points around a circle that labels keep off
DOTS = 12  # along a line
WIDE = 5  # errors that are so many times apart stand on a logarithmic scale
TICKS = (0.1, 0.2, 0.5, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100)  # per cent


def race_figure(candidates: Sequence[Candidate]) -> Figure:
    """Two panels: error against latency, and against multiply-adds. Bars are 95 % intervals of the error."""
    figure, panels = new_figure(10, 4.6, columns=2, sharey=True)
    figure.set_dpi(72)  # so that a pixel is a point
    costs = ([each.latency_ms for each in candidates], [float(each.macs) for each in candidates])
    radii = [_radius(each, candidates) for each in candidates]
    for axes, cost in zip(panels, costs, strict=True):
        _scales(axes, candidates, cost)
        for each, at, radius in zip(candidates, cost, radii, strict=True):
            colour = COLOURS[0] if each.on_front else COLOURS[7]
            axes.plot([at, at], [each.low_percent, each.high_percent], color=colour, linewidth=1.2, alpha=0.6)
            axes.scatter([at], [each.error_percent], s=(2 * radius) ** 2, facecolor=f"{colour}b0", edgecolor=colour)
    front = _front(candidates)
    panels[0].plot(*zip(*front, strict=True), color=COLOURS[0], linewidth=1.2, linestyle="--", zorder=0)
    panels[0].set(xlabel="milliseconds for one image", ylabel="top-1 error, %")
    panels[1].set(xlabel="multiply-adds for one image")
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the axes stay where the labels are placed for
    for axes, cost in zip(panels, costs, strict=True):
        bars = [[(at, each.low_percent), (at, each.high_percent)] for at, each in zip(cost, candidates, strict=True)]
        lines = [*bars, front] if axes is panels[0] else bars
        _label(axes, candidates, cost, radii, [dot for line in lines for dot in _dots(axes, line)])
    return figure


def _radius(each: Candidate, candidates: Sequence[Candidate]) -> float:
    return max(SMALLEST, LARGEST * (each.params / max(other.params for other in candidates)) ** 0.5)


def _scales(axes: Any, candidates: Sequence[Candidate], cost: Sequence[float]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

    errors = [each.error_percent for each in candidates]
    axes.set_xscale("log")
    axes.set_xlim(min(cost) / 1.8, max(cost) * 1.8)
    subs = (1, 2, 5) if max(cost) < 100 * min(cost) else (1,)
    axes.xaxis.set_major_locator(LogLocator(10, subs, numticks=20))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if min(errors) > 0 and max(errors) > WIDE * min(errors):
        axes.set_yscale("log")
        axes.set_ylim(min(errors) / 1.4, min(110, max(errors) * 1.3))
        axes.yaxis.set_major_locator(FixedLocator([tick for tick in TICKS if min(errors) / 1.4 <= tick]))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        low, high = min(each.low_percent for each in candidates), max(each.high_percent for each in candidates)
        margin = 0.15 * (high - low)
        axes.set_ylim(low - margin, high + margin)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if 0 <= value <= 100 else ""))


def _front(candidates: Sequence[Candidate]) -> list[tuple[float, float]]:
    """Corners of the stair along the front: milliseconds and per cent."""
    places = sorted((each.latency_ms, each.error_percent) for each in candidates if each.on_front)
    steps = [corner for (x, y), (to_x, to_y) in pairwise(places) for corner in ((x, y), (to_x, y))]
    return [*steps, places[-1]]


def _dots(axes: Any, line: Sequence[tuple[float, float]]) -> list[Circle]:
    """Dots along a line, in pixels, for labels to keep off."""
    return [
        Circle(x + (to_x - x) * part / DOTS, y + (to_y - y) * part / DOTS, 1)
        for (x, y), (to_x, to_y) in pairwise(axes.transData.transform(line))
        for part in range(DOTS + 1)
    ]


def _label(
    axes: Any, candidates: Sequence[Candidate], cost: Sequence[float], radii: Sequence[float], dots: list[Circle]
) -> None:
    at = [(x, each.error_percent) for x, each in zip(cost, candidates, strict=True)]
    circles = [Circle(x, y, radius + EDGE) for (x, y), radius in zip(axes.transData.transform(at), radii, strict=True)]
    names, bold = [each.model for each in candidates], [each.on_front for each in candidates]
    label_points(axes, names, bold, circles, LETTERS, dots)
