"""The maps of a stage, for an image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from convarium.explanation.fields import ReceptiveFields
from convarium.explanation.figures import show
from convarium.explanation.subject import Finding, Picture, Subject
from convarium.report.figures import new_figure

COLUMNS, ROWS = 7, 3  # of the figure; the image takes one


def find(subject: Subject) -> Iterator[Finding]:
    """A figure per picture: the channels whose largest values are the largest, each with its own range of colours."""
    run = subject.run
    size = run.preprocessing.size
    stage = subject.stage or ReceptiveFields(run.model, (run.preprocessing.channels, size, size)).telling()
    for picture in subject.pictures:
        with torch.inference_mode():
            _, (maps,) = run.model.forward_intermediates(picture.x, [stage], stop_early=True)
        yield _of_picture(picture, stage, maps[0].numpy(), subject.channel)


def _of_picture(picture: Picture, stage: str, maps: np.ndarray, channel: int | None) -> Finding:
    largest = maps.max((1, 2))
    order = np.argsort(-largest, kind="stable")[: COLUMNS * ROWS - 1] if channel is None else np.array([channel])
    columns, rows = (COLUMNS, ROWS) if channel is None else (2, 1)
    figure, axes = new_figure(1.35 * columns, 1.5 * rows, columns=columns, rows=rows)
    for each in axes.flat:
        each.set_axis_off()
    show(axes.flat[0], picture.seen, "image")
    for each, index in zip(axes.flat[1:], order, strict=False):
        each.imshow(maps[index], cmap="viridis", vmin=min(0.0, float(maps[index].min())), interpolation="nearest")
        each.set_title(f"{index}: {largest[index]:.3g}", fontsize=9)
    if channel is None:
        axes.flat[0].set_title("image", fontsize=9)
    silent = int((largest <= 0).sum())
    says = f"channel {channel} of {stage}" if channel is not None else f"the strongest channels of {stage}"
    says += f", largest values yellow; {silent} of its {len(maps)} channels are silent on this image"
    numbers = {"stage": stage, "channels": order.tolist(), "largest": [round(float(largest[i]), 5) for i in order]}
    return Finding(picture.name, figure, says, numbers | {"silent": silent})
