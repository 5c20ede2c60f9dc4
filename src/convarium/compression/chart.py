"""Error against latency and against the size of the file: every point of a search, its budget, its front."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from convarium.compression.choice import RUNTIMES, points_of
from convarium.compression.result import Compression, Point
from convarium.console import short
from convarium.report.figures import COLOURS, INK, label_points, new_figure
from convarium.report.labels import Circle

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMS = {"torch": COLOURS[7], "float": COLOURS[0], "int8": COLOURS[1]}
RADIUS, CHOSEN_RADIUS = 5.0, 9.0  # points
LETTERS = 9


def compression_figure(result: Compression) -> Figure:
    """Two panels; bars are 95 % intervals, a filled circle is on the front, a ring around one is what was chosen."""
    figure, panels = new_figure(10, 4.6, columns=2, sharey=True)
    figure.set_dpi(72)  # so that a pixel is a point
    costs: list[tuple[str, Callable[[Point], float]]] = [
        ("milliseconds for one image", lambda point: point.p50_ms),
        ("KiB of the file", lambda point: point.bytes / 2**10),
    ]
    for axes, (name, cost) in zip(panels, costs, strict=True):
        _scale(axes, name, [cost(point) for point in result.points])
        _draw(axes, result, cost)
    panels[0].set_ylabel("top-1 error, %")
    _limit(panels[0], result)
    _legend(figure, result)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the axes stay where the labels are placed for
    for axes, (_, cost) in zip(panels, costs, strict=True):
        _label(axes, result.points, cost)
    return figure


def _scale(axes: Any, name: str, values: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set(xscale="log", xlabel=name)
    axes.set_xlim(min(values) / 1.6, max(values) * 1.6)
    axes.xaxis.set_major_locator(LogLocator(10, (1, 2, 5), numticks=20))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _draw(axes: Any, result: Compression, cost: Callable[[Point], float]) -> None:
    for form, colour in FORMS.items():
        own = [point for point in result.points if point.form == form]
        at, errors = [cost(point) for point in own], [point.error_percent for point in own]
        axes.plot(at, errors, color=colour, linewidth=1, alpha=0.5, zorder=0)
        for x, point in zip(at, own, strict=True):
            axes.plot([x, x], [point.low_percent, point.high_percent], color=colour, linewidth=1.2, alpha=0.6)
            face = colour if point.on_front else "none"
            axes.scatter([x], [point.error_percent], s=(2 * RADIUS) ** 2, facecolor=face, edgecolor=colour, zorder=3)
            if point.label == result.chosen:
                size = (2 * CHOSEN_RADIUS) ** 2
                axes.scatter([x], [point.error_percent], s=size, facecolor="none", edgecolor=INK, zorder=3)
    budget = result.points[0].error_percent + result.max_drop
    axes.axhline(budget, color=INK, linewidth=0.8, linestyle=":", alpha=0.7)


def _limit(axes: Any, result: Compression) -> None:
    low, high = min(point.low_percent for point in result.points), max(point.high_percent for point in result.points)
    margin = 0.12 * (high - low)
    axes.set_ylim(low - margin, high + margin)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}" if 0 <= value <= 100 else "")


def _legend(figure: Figure, result: Compression) -> None:
    from matplotlib.lines import Line2D

    names = {
        "torch": "torch",
        "float": f"float, {RUNTIMES[result.runtime]}",
        "int8": f"int8, {RUNTIMES[result.runtime]}",
    }
    marks = [
        Line2D([], [], color=colour, marker="o", linewidth=1, label=names[form])
        for form, colour in FORMS.items()
        if any(point.form == form for point in result.points)
    ]
    marks.append(
        Line2D([], [], color=INK, linestyle=":", linewidth=0.8, label=f"{points_of(result.max_drop)} over dense")
    )
    figure.legend(handles=marks, loc="outside upper center", ncols=len(marks), frameon=False, labelcolor=INK)


def _label(axes: Any, points: Sequence[Point], cost: Callable[[Point], float]) -> None:
    places = axes.transData.transform([(cost(point), point.error_percent) for point in points])
    circles = [Circle(x, y, CHOSEN_RADIUS) for x, y in places]
    label_points(axes, [point.name for point in points], [point.on_front for point in points], circles, LETTERS)
