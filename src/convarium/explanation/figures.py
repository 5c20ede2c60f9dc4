"""Figures that several methods share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from convarium.explanation.fields import Region
from convarium.report.figures import COLOURS, INK, new_figure, plain

LUMA = np.array([0.299, 0.587, 0.114])


def grey(seen: np.ndarray) -> np.ndarray:
    """``(H, W, C)`` to ``(H, W)``."""
    return seen @ LUMA if seen.shape[2] == 3 else seen[..., 0]


def show(axes: Any, seen: np.ndarray, title: str = "") -> None:
    """An image ``(H, W, C)`` or ``(H, W)`` in 0..1, without ticks."""
    image = seen[..., 0] if seen.ndim == 3 and seen.shape[2] == 1 else seen
    axes.imshow(image, cmap="gray", vmin=0, vmax=1)
    axes.set_axis_off()
    axes.set_title(title, fontsize=10)


def frame(axes: Any, region: Region, colour: str) -> None:
    """The edge of a region, over an image."""
    height, width = region.sides
    axes.add_patch(
        Rectangle((region.left - 0.5, region.top - 0.5), width, height, fill=False, edgecolor=colour, linewidth=2)
    )


def show_heat(axes: Any, seen: np.ndarray, heat: np.ndarray, title: str = "") -> None:
    """``heat`` ``(H, W)`` in 0..1 over a pale form of the image, so that the colour is the evidence."""
    show(axes, 0.35 + 0.5 * grey(seen), title)
    axes.imshow(heat, cmap="autumn_r", vmin=0, vmax=1, alpha=0.85 * heat)


def show_signed(axes: Any, seen: np.ndarray, heat: np.ndarray, title: str = "") -> None:
    """``heat`` ``(H, W)`` over a pale form of the image: red speaks for, blue against. The contrast is full at all but
    the largest hundredth of its values."""
    largest = float(np.quantile(np.abs(heat), 0.99)) or float(np.abs(heat).max()) or 1.0
    scaled = np.clip(heat / largest, -1, 1)
    show(axes, 0.35 + 0.5 * grey(seen), title)
    axes.imshow(scaled, cmap="RdBu_r", vmin=-1, vmax=1, alpha=np.abs(scaled))


def stretched(signal: np.ndarray) -> np.ndarray:
    """A signed image ``(H, W)`` or ``(H, W, C)`` for people: zero is middle grey, and the contrast is full at all but
    the largest hundredth of its values."""
    size = np.abs(signal[np.isfinite(signal)])
    largest = float(np.quantile(size[size > 0], 0.99)) if size.any() else 1.0
    return np.clip(0.5 + 0.5 * signal / largest, 0, 1)


def montage(tiles: Sequence[np.ndarray], columns: int, side: int = 60, gap: int = 4) -> np.ndarray:
    """Images ``(H, W)`` or ``(H, W, C)`` in 0..1 as one ``(H, W, 4)``, row after row, each enlarged to ``side`` pixels
    or by a whole factor near it; what is NaN, and the gaps, are clear."""
    largest = max(max(tile.shape[:2]) for tile in tiles)
    factor = max(1, round(side / largest))
    cell = factor * largest
    rows = -(-len(tiles) // columns)
    made = np.zeros((rows * (cell + gap) - gap, columns * (cell + gap) - gap, 4))
    for i, tile in enumerate(tiles):
        coloured = np.broadcast_to(tile.reshape(*tile.shape[:2], -1), (*tile.shape[:2], 3))
        opaque = np.isfinite(coloured).all(2, keepdims=True)
        pixels = np.concatenate([np.nan_to_num(coloured), opaque], 2).repeat(factor, 0).repeat(factor, 1)
        top, left = (i // columns) * (cell + gap), (i % columns) * (cell + gap)
        made[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return made


def show_tiles(axes: Any, made: np.ndarray, title: str = "") -> None:
    """A :func:`montage`, pixel by pixel."""
    axes.imshow(made, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title, fontsize=9)


def show_classes(axes: Any, class_names: Sequence[str], probabilities: np.ndarray, target: str) -> None:
    """Bars of the five likeliest classes, in per cent, the ``target`` in colour."""
    order = np.argsort(-probabilities)[:5]
    values = 100 * probabilities[order]
    axes.barh(range(len(order)), values, color=[COLOURS[0] if class_names[i] == target else "#999999" for i in order])
    axes.set_yticks(range(len(order)), [plain(class_names[i]) for i in order])
    axes.invert_yaxis()
    axes.set(xlim=(0, 118), xticks=[0, 50, 100])
    axes.set_title("probability, %", fontsize=10)
    for place, value in enumerate(values):
        axes.text(value + 2, place, f"{value:.1f}", va="center", fontsize=8, color=INK)


def heat_figure(
    seen: np.ndarray, heat: np.ndarray, class_names: Sequence[str], probabilities: np.ndarray, target: str, title: str
) -> Figure:
    """The image as the network sees it, the evidence for ``target`` over it, and the five likeliest classes.

    Args:
        seen: ``(H, W, C)`` in 0..1.
        heat: ``(H, W)`` in 0..1.
        class_names: one per output.
        probabilities: ``(classes,)``.
        target: the class that the heat speaks of.
        title: of the evidence.
    """
    figure, (left, middle, right) = new_figure(8.4, 2.9, columns=3)
    show(left, seen, "what the network sees")
    show_heat(middle, seen, heat, title)
    show_classes(right, class_names, probabilities, target)
    return figure
