"""The reliability diagram: how often a network is right against how sure it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from convarium.report.figures import COLOURS, INK, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from convarium.evaluation.calibration import Calibration, Reliability


def calibration_figure(calibration: Calibration) -> Figure:
    """All images as they are, or the half that no temperature was fitted on without and with it."""
    if calibration.temperature is None or calibration.before is None or calibration.after is None:
        return reliability_figure({"as it is": calibration.whole})
    return reliability_figure(
        {"as it is": calibration.before, f"temperature {calibration.temperature:.2f}": calibration.after}
    )


def reliability_figure(named: Mapping[str, Reliability]) -> Figure:
    """Accuracy against confidence by bins, circles sized by images, and where the images lie; one colour per entry."""
    figure, (left, right) = new_figure(9, 3.9, columns=2)
    left.plot([0, 100], [0, 100], color=INK, linewidth=1, linestyle=(0, (4, 3)), alpha=0.6)
    for place, (name, each) in enumerate(named.items()):
        colour = COLOURS[place % len(COLOURS)]
        filled = [row for row in each.bins if row.images]
        sure, hits = ([100 * getattr(row, key) for row in filled] for key in ("confidence", "accuracy"))
        parts = np.array([row.images for row in each.bins]) / each.images
        left.plot(sure, hits, color=colour, linewidth=1, alpha=0.5)
        left.scatter(sure, hits, s=14 + 400 * parts[parts > 0], color=colour, alpha=0.75, linewidths=0)
        edges = [100 * row.low for row in each.bins] + [100.0]
        right.stairs(100 * parts, edges, color=colour, linewidth=1.8, label=f"{name}: {each.error_percent:.1f}")
    left.set(
        xlim=(0, 103),
        ylim=(0, 103),
        xlabel="confidence, %",
        ylabel="accuracy, %",
        title="how often right (dashes: as often as sure)",
    )
    left.set_aspect("equal")
    right.set(xlim=(0, 103), xlabel="confidence, %", ylabel="images, %", title="how many images")
    right.set_ylim(bottom=0)
    right.legend(frameon=False, labelcolor=INK, loc="best", title="calibration error, points", alignment="left")
    right.get_legend().get_title().set_color(INK)
    return figure
