"""What a network would cost with some units cut, by arithmetic alone: exactly what counting it then gives."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from convarium.anatomy.trace import trace
from convarium.compression.groups import Kept, cut, kept_indices
from convarium.network import Network

if TYPE_CHECKING:
    from convarium.data.preprocess import Preprocessing

Cost = Callable[[Kept], float]


class Costs:
    """Multiply-adds and parameters of a network as functions of the units that stay.

    Args:
        model: the network that the groups were found in.
        input_size: ``(C, H, W)`` of the image whose multiply-adds are counted; the network's own when not given.
    """

    def __init__(self, model: Network, input_size: Sequence[int] | None = None) -> None:
        channels, height, width = input_size or model.input_size
        parameters = dict(model.named_parameters())
        tensors = {**parameters, **dict(model.named_buffers())}
        self.shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        self.parameters = list(parameters)
        weights = {name.rpartition(".")[0]: name for name, shape in self.shapes.items() if len(shape) > 1}
        self.rest = 0  # multiply-adds of what has no weights
        self.times: dict[str, int] = {}  # how often each number of a weight is multiplied
        for row in trace(model, (channels, height, width)).rows:
            if row.macs and row.path in weights:
                name = weights[row.path]
                self.times[name] = self.times.get(name, 0) + row.macs // math.prod(self.shapes[name])
            else:
                self.rest += row.macs

    def macs(self, kept: Kept) -> int:
        """Multiply-adds for one image."""
        sizes = self._sizes(kept)
        return self.rest + sum(times * sizes[name] for name, times in self.times.items())

    def params(self, kept: Kept) -> int:
        """Parameters."""
        sizes = self._sizes(kept)
        return sum(sizes[name] for name in self.parameters)

    def _sizes(self, kept: Kept) -> dict[str, int]:
        shapes = {name: list(shape) for name, shape in self.shapes.items()}
        for (name, dim), mask in kept_indices(kept).items():
            if name in shapes and dim >= 0:
                shapes[name][dim] = int(mask.sum())
        return {name: math.prod(shape) for name, shape in shapes.items()}


def measured_latency_ms(model: Network, preprocessing: Preprocessing) -> Cost:
    """The median time of one forward of one image, measured on a copy of ``model`` that is cut for it."""
    from convarium.evaluation.latency import latency_ms

    def cost(kept: Kept) -> float:
        smaller = copy.deepcopy(model).eval()
        cut(smaller, kept)
        return latency_ms({"cut": (smaller, preprocessing)})["cut"]

    return cost
