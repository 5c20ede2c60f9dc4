"""Charts of gates, as in Fig. 6 of SENet in its journal form: factors by channel and class, and by depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from convarium.report.figures import COLOURS, INK, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from convarium.explanation.gates import Gate

CLASSES = 5
ACROSS = 3  # panels in a row


def draw_channels(gates: Sequence[Gate], class_names: Sequence[str]) -> Figure:
    """A panel per gate: the mean factor of each channel, of five classes and of all."""
    seen = np.flatnonzero(np.isfinite(gates[0].class_means).any(1))
    chosen = seen[np.unique(np.linspace(0, len(seen) - 1, CLASSES).round().astype(int))]
    columns = min(ACROSS, len(gates))
    rows = -(-len(gates) // columns)
    figure, axes = new_figure(3.2 * columns, 2.5 * rows + 0.4, columns=columns, rows=rows, squeeze=False, sharey=True)
    figure.set_layout_engine("constrained", wspace=0.05)
    for panel, gate in zip(axes.flat, gates, strict=False):
        for label, colour in zip(chosen, COLOURS, strict=False):
            panel.plot(gate.class_means[label], color=colour, linewidth=1, label=plain(class_names[label]))
        panel.plot(gate.means, color=INK, linewidth=1.4, label="all")
        panel.set_title(plain(gate.name), fontsize=10)
        panel.set(xlabel="channel", xlim=(0, max(1, len(gate.means) - 1)))
        panel.xaxis.get_major_locator().set_params(integer=True)
    for panel in axes.flat[len(gates) :]:
        panel.set_axis_off()
    for panel in axes[:, 0]:
        panel.set_ylabel("mean factor")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=CLASSES + 1, frameon=False,
        labelcolor=INK, fontsize=9,
    )  # fmt: skip
    return figure


def draw_depth(gates: Sequence[Gate]) -> Figure:
    """Three panels over the gates in order of depth: mean, distance from a constant, the classes' share."""
    figure, (level, movement, share) = new_figure(9.6, 3.4, columns=3)
    places = np.arange(1, len(gates) + 1)
    means = np.array([np.nanmean(gate.means) for gate in gates])
    spread = np.array([np.nanstd(gate.means) for gate in gates])
    level.fill_between(places, means - spread, means + spread, color=COLOURS[0], alpha=0.25, linewidth=0)
    level.plot(places, means, "o-", color=COLOURS[0])
    level.set_title("mean factor, and its spread over channels", fontsize=10)
    movement.plot(places, [gate.movement for gate in gates], "o-", color=COLOURS[1], clip_on=False)
    movement.set_title("movement from image to image", fontsize=10)
    share.plot(places, [100 * gate.between_share for gate in gates], "o-", color=COLOURS[2], clip_on=False)
    share.set_title("of which between classes, %", fontsize=10)
    share.set_ylim(0, 100)
    movement.set_ylim(bottom=0)
    for axes in (level, movement, share):
        axes.set_xlabel("gate, in order of depth")
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure
