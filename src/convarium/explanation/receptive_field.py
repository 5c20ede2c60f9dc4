"""What a unit sees: its receptive field on the image, and the part of it that has weight (W. Luo, Y. Li, R. Urtasun,
R. Zemel, "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks", NIPS 2016)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from convarium.explanation.deconvnet import Units, choose_units
from convarium.explanation.fields import ReceptiveFields, Region, reach_of
from convarium.explanation.figures import frame, show, show_heat
from convarium.explanation.subject import Finding, Picture, Subject
from convarium.network import Network
from convarium.report.figures import COLOURS, new_figure

SHARE = 0.9  # of the gradient, that lies in the effective field


def unit_gradient(model: Network, images: Tensor, stage: str, channel: int | None = None) -> tuple[Tensor, Units]:
    """How much each pixel changes the strongest unit of a stage, ``(N, H, W)``: the size of its gradient, summed over
    the image's channels; and which unit that is.

    Raises:
        UsageError: a stage or channel that does not exist.
    """
    with torch.enable_grad():
        pixels = images.detach().requires_grad_()
        _, (maps,) = model.forward_intermediates(pixels, [stage], stop_early=True)
        units = choose_units(maps, channel)
        (gradient,) = torch.autograd.grad(units.value.sum(), pixels)
    return gradient.abs().sum(1), Units(*(part.detach() for part in units))


def find(subject: Subject) -> Iterator[Finding]:
    """A figure per picture: both fields of the strongest unit of the stage, or of the channel."""
    run = subject.run
    fields = ReceptiveFields(run.model, (run.preprocessing.channels, run.preprocessing.size, run.preprocessing.size))
    stage = subject.stage or fields.telling()
    for picture in subject.pictures:
        gradients, units = unit_gradient(run.model, picture.x, stage, subject.channel)
        field = fields.of(stage, int(units.row), int(units.column))
        yield _of_picture(picture, stage, units, field, gradients[0].numpy())


def _of_picture(picture: Picture, stage: str, units: Units, field: Region, gradient: np.ndarray) -> Finding:
    heat = gradient / (gradient.max() or 1)
    which = f"channel {int(units.channel)} of {stage}"
    numbers = {
        "stage": stage, "channel": int(units.channel), "row": int(units.row), "column": int(units.column),
        "value": float(units.value), "field_px": max(field.sides), "effective_px": None,
    }  # fmt: skip
    figure, (left, right) = new_figure(6.4, 3.4, columns=2)
    show(left, picture.seen, "what the unit sees")
    show_heat(right, picture.seen, heat, "which pixels change it")
    for axes in (left, right):
        frame(axes, field.inside(picture.seen.shape), COLOURS[0])
    says = f"the strongest unit of {which} sees {max(field.sides)} pixels a side"
    if gradient.any():
        effective = field.shrunk(reach_of(gradient, field, SHARE))
        frame(right, effective.inside(picture.seen.shape), COLOURS[2])
        numbers["effective_px"] = max(effective.sides)
        says += f", blue; {100 * SHARE:.0f} % of its gradient lies within {max(effective.sides)}, green"
    else:
        says += ", blue; it is silent on this image, and no pixel changes it"
    return Finding(picture.name, figure, says, numbers, heat)
