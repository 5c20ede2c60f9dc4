"""The deconvnet: from one unit of a map down to the pixels that made it strong (M. Zeiler, R. Fergus, "Visualizing and
Understanding Convolutional Networks", ECCV 2014, Section 2.1)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from convarium.errors import UsageError
from convarium.explanation import backward_rules as rules
from convarium.network import Network


class Units(NamedTuple):
    """One unit of a map per image: its channel, row and column ``(N,)``, and its value there ``(N,)``."""

    channel: Tensor
    row: Tensor
    column: Tensor
    value: Tensor


@contextmanager
def deconvnet_rules() -> Iterator[None]:
    """The gradient of what is computed in this block is the deconvnet's signal: see :func:`deconvnet`."""
    with rules.backward_rules(
        relu=rules.deconvnet, squash=rules.unchanged, response_norm=rules.unchanged, gate=rules.constant
    ):
        yield


def deconvnet(
    model: Network,
    images: Tensor,
    stage: str,
    channel: int | Tensor | None = None,
    place: tuple[int, int] | Tensor | None = None,
) -> Tensor:
    """What in the images made a unit strong: its value sent down the network, backwards, to the pixels.

    One unit of the stage's map keeps its value, all others are set to zero. On the way down

    - a convolution, grouped or not, and a dense layer are transposed, without their biases; so is average pooling;
    - a ReLU and its relatives rectify the signal, whatever they let through on the way up;
    - max pooling and maxout send the signal to where the maximum was; where windows overlap it adds up;
    - tanh, sigmoid and response normalisation leave the signal unchanged;
    - batch norm is its affine map in evaluation mode, and scales;
    - gates, masks and residual scales multiply by what they were: nothing goes down a gate's own branch;
    - a sum gives each of its terms the whole signal, a concatenation each its part, an enlargement is transposed.

    This is not the gradient, in which a ReLU passes what it let through on the way up, nor guided backpropagation,
    where both hold: see ``explanation/backward_rules.py``.

    Args:
        model: in evaluation mode.
        images: ``(N, C, H, W)``, preprocessed.
        stage: the name of a stage.
        channel: of the stage's map, from 0, one for all images or ``(N,)``; the one with the largest value of each
            image when not given.
        place: (row, column) on the map, one for all images or ``(N, 2)``; the strongest of the channel when not given.

    Returns:
        ``(N, C, H, W)`` reconstructions, in the scale of the preprocessed images; zero outside the unit's receptive
        field, and everywhere where a rectified unit is silent.

    Raises:
        UsageError: a stage, channel or place that does not exist.
    """
    return reconstruct(model, images, stage, channel, place)[0]


def reconstruct(
    model: Network,
    images: Tensor,
    stage: str,
    channel: int | Tensor | None = None,
    place: tuple[int, int] | Tensor | None = None,
) -> tuple[Tensor, Units]:
    """:func:`deconvnet`, and the units that it began with."""
    with torch.enable_grad(), deconvnet_rules():
        pixels = images.detach().requires_grad_()  # frozen weights then change nothing
        _, (maps,) = model.forward_intermediates(pixels, [stage], stop_early=True)
    units = choose_units(maps.detach(), channel, place)
    signal = torch.zeros_like(maps)
    signal[torch.arange(len(maps)), units.channel, units.row, units.column] = units.value
    (reconstruction,) = torch.autograd.grad(maps, pixels, signal)
    return reconstruction, units


def choose_units(
    maps: Tensor, channel: int | Tensor | None = None, place: tuple[int, int] | Tensor | None = None
) -> Units:
    """The unit asked for in each of the maps ``(N, C, h, w)``; the strongest where nothing is asked.

    Raises:
        UsageError: a channel or place that the maps do not have.
    """
    count, channels, height, width = maps.shape
    images = torch.arange(count, device=maps.device)
    chosen = maps.amax((2, 3)).argmax(1) if channel is None else torch.as_tensor(channel).to(images).expand(count)
    if chosen.min() < 0 or chosen.max() >= channels:
        raise UsageError(f"the map has channels 0 to {channels - 1}; got {channel}")
    if place is None:
        best = maps[images, chosen].flatten(1).argmax(1)
        places = torch.stack([best // width, best % width], 1)
    else:
        places = torch.as_tensor(place).to(images).expand(count, 2)
    rows, columns = places.unbind(1)
    if places.min() < 0 or rows.max() >= height or columns.max() >= width:
        raise UsageError(f"the map has rows 0 to {height - 1} and columns 0 to {width - 1}; got {place}")
    return Units(chosen, rows, columns, maps[images, chosen, rows, columns])
