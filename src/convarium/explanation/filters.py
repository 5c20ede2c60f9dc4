"""The filters of the first layer, as images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import nn

from convarium.explanation.figures import montage, show_tiles, stretched
from convarium.explanation.subject import DoesNotApply, Finding, Subject
from convarium.network import Network
from convarium.report.figures import new_figure

MOST = 256


def first_filters(model: Network) -> tuple[str, np.ndarray]:
    """The path of the first convolution that reads the image, and its filters ``(filters, height, width, channels)``.

    Raises:
        DoesNotApply: no convolution reads it.
    """
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == model.input_size[0] and module.groups == 1:
            return path, module.weight.detach().permute(0, 2, 3, 1).numpy()
    raise DoesNotApply(f"{model.name} has no convolution that reads the image")


def find(subject: Subject) -> Iterator[Finding]:
    """One figure: every filter stretched by itself, grey where it is zero; in colour where the image has three."""
    path, filters = first_filters(subject.run.model)
    shown = filters[:MOST] if filters.shape[3] in (1, 3) else filters[:MOST].mean(3)
    columns = min(16, int(np.ceil(np.sqrt(2 * len(shown)))))
    rows = -(-len(shown) // columns)
    figure, axes = new_figure(0.6 * columns, 0.6 * rows)
    show_tiles(axes, montage([stretched(each) for each in shown], columns))
    height, width = filters.shape[1:3]
    norms = np.sqrt((filters**2).sum((1, 2, 3)))
    says = (
        f"{len(shown)} of the {len(filters)} filters of {path}, {height}x{width} pixels, row after row; "
        "grey is zero, each has its own contrast"
    )
    yield Finding("filters", figure, says, {"layer": path, "norms": [round(float(norm), 5) for norm in norms]})
