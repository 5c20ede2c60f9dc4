"""The images of a data set that make a channel strongest: one pass, of which nine per channel stay."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from convarium.network import Network


@dataclass(frozen=True)
class Strongest:
    """For every channel of a stage the images with its strongest units, one unit of each, the strongest first.

    Attributes:
        values: of the units, ``(C, k)``.
        positions: of the images in the data set, ``(C, k)``.
        units: their places on the map, row after row, ``(C, k)``.
        width: of the map.
    """

    values: Tensor
    positions: Tensor
    units: Tensor
    width: int

    def places(self, channel: int) -> Tensor:
        """Row and column of a channel's strongest units, ``(k, 2)``."""
        units = self.units[channel]
        return torch.stack([units // self.width, units % self.width], 1)

    def alive(self) -> list[int]:
        """The channels that some image makes positive."""
        return torch.nonzero(self.values[:, 0] > 0)[:, 0].tolist()


def strongest(
    model: Network,
    batches: Iterable[tuple[np.ndarray, Tensor]],
    stages: Sequence[str],
    *,
    count: int = 9,
) -> dict[str, Strongest]:
    """The ``count`` images that make each channel of each stage strongest.

    No more than one batch's maps of one stage, and ``count`` numbers per channel, are held at a time.

    Args:
        model: in evaluation mode.
        batches: positions in the data set, and ``(N, C, H, W)`` images, preprocessed; one batch at least.
        stages: names of stages.
        count: images per channel; fewer stay where there are fewer.

    Returns:
        By stage.
    """
    last = [name for name in model.stages if name in stages][-1]
    found: dict[str, Strongest] = {}
    for positions, images in batches:
        with torch.inference_mode():
            x = images
            for name, stage in model.stages.items():
                x = stage(x)
                if name in stages:
                    found[name] = _merged(found.get(name), x, torch.as_tensor(positions), count)
                if name == last:
                    break
    return found


def _merged(before: Strongest | None, maps: Tensor, positions: Tensor, count: int) -> Strongest:
    values, units = (each.T for each in maps.flatten(2).max(2))  # (C, N)
    places = positions.expand_as(values)
    if before is not None:
        values = torch.cat([before.values, values], 1)
        places = torch.cat([before.positions, places], 1)
        units = torch.cat([before.units, units], 1)
    values, order = values.topk(min(count, values.shape[1]))
    return Strongest(values, places.gather(1, order), units.gather(1, order), maps.shape[3])
