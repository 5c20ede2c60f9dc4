"""What a network says of images under a protocol: every view through it, its answers averaged."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING, Literal

import numpy as np

from convarium.data.datasets import Dataset
from convarium.errors import DataError
from convarium.evaluation.crops import SINGLE, Protocol, View, cut
from convarium.evaluation.metrics import softmax

if TYPE_CHECKING:
    from torch import Tensor, nn

    from convarium.data.preprocess import Preprocessing
    from convarium.data.resize import Preprocess
    from convarium.runs import Run

Average = Literal["probabilities", "logits"]
Size = tuple[int, int]  # height and width of a view

BATCH = 64  # views at once, and no more than
MEMORY_BUDGET = 2 * 2**30  # bytes of activations


@dataclass(frozen=True)
class Cost:
    """What one view costs: multiply-adds, and bytes of activations that are alive at once."""

    macs: int
    peak_bytes: int


class Costs(dict[Size, Cost]):
    """Costs of a network by the size of its input, counted when first asked for."""

    def __init__(self, network: nn.Module, channels: int) -> None:
        super().__init__()
        self.network, self.channels = network, channels

    def __missing__(self, size: Size) -> Cost:
        from convarium.anatomy.trace import trace

        traced = trace(self.network, (self.channels, *size))
        self[size] = Cost(sum(row.macs for row in traced.rows), 4 * traced.peak())
        return self[size]


@dataclass(frozen=True)
class Predictions:
    """Averages over the views of each image.

    Attributes:
        scores: ``(n, classes)`` probabilities, or logits where those were averaged.
        average: which.
        views: of an image.
        calculated: how many views of each size went through the network: equal ones of an image once.
        costs: of one view.
    """

    scores: np.ndarray
    average: Average
    views: int
    calculated: Counter[Size]
    costs: Costs

    @property
    def probabilities(self) -> np.ndarray:
        return self.scores if self.average == "probabilities" else softmax(self.scores)

    @property
    def views_per_image(self) -> float:
        return self.calculated.total() / len(self.scores)

    @property
    def macs_per_image(self) -> float:
        return sum(count * self.costs[size].macs for size, count in self.calculated.items()) / len(self.scores)


def predictions(run: Run, dataset: Dataset, positions: np.ndarray, protocol: Protocol = SINGLE) -> np.ndarray:
    """Probabilities ``(n, classes)`` of the images at ``positions``, in the order of the run's classes.

    Raises:
        DataError: no images, or one that cannot be read.
        UsageError: a scale smaller than the run's size, or views smaller than the network takes.
    """
    return predict(run.model, run.preprocessing, dataset, positions, protocol).probabilities


def predict(
    model: nn.Module,
    preprocessing: Preprocessing,
    dataset: Dataset,
    positions: np.ndarray,
    protocol: Protocol = SINGLE,
    average: Average = "probabilities",
    what: str = "evaluating",
) -> Predictions:
    """As :func:`predictions`, for a network in memory, with what it cost.

    In dense evaluation a dense head becomes convolutions, whose map of class scores is averaged before the softmax. A
    network with global average pooling slides as it is: its classifier is linear, so the mean of the scores at all
    places is the score of the mean. Views of a batch are as many as memory holds; the bar ``what`` counts images.
    """
    import torch

    from convarium.console import counting
    from convarium.data.loading import ahead
    from convarium.data.resize import Preprocess
    from convarium.surgery import to_fully_convolutional

    if not len(positions):
        raise DataError(f"{dataset.name} has no images to judge on in this split")
    network = to_fully_convolutional(model) if protocol.crops == "dense" else model  # type: ignore[arg-type]
    preprocess = Preprocess(preprocessing)
    costs = Costs(network.eval(), preprocessing.channels)
    views = len(protocol.views(1, 1, preprocessing))

    def load(place: int) -> list[Shown]:
        image = dataset.read(int(positions[place]), preprocessing.channels)
        return _shown(place, image, protocol, preprocess)

    images = max(1, BATCH // views)
    blocks = [range(start, min(start + images, len(positions))) for start in range(0, len(positions), images)]
    totals, memory = np.zeros(0), torch.empty(0)
    calculated: Counter[Size] = Counter()
    with torch.inference_mode(), counting(what, len(positions)) as tick:
        for block, loaded in zip(blocks, ahead(load, blocks), strict=True):
            for size, shown in _by_size(loaded).items():
                # The network's own crop goes as it always has; other views as many at once as memory holds.
                most = BATCH if protocol == SINGLE else min(BATCH, max(1, MEMORY_BUDGET // costs[size].peak_bytes))
                for batch in _evenly(shown, most):
                    memory = _room_for(batch, memory)
                    x = torch.stack([one.input() for one in batch], out=memory[: len(batch)])
                    logits = network(x).numpy()
                    answers = softmax(logits) if average == "probabilities" else logits.astype(np.float64)
                    if not len(totals):
                        totals = np.zeros((len(positions), answers.shape[1]))
                    np.add.at(totals, [one.place for one in batch], answers * [[one.times] for one in batch])
                calculated[size] += len(shown)
            tick(block.stop)
    return Predictions(totals / views, average, views, calculated, costs)


@dataclass(frozen=True)
class Shown:
    """A view of the image at ``place``, which stands for ``times`` equal ones."""

    place: int
    times: int
    mirrored: bool
    pixels: Tensor

    def input(self) -> Tensor:
        return self.pixels.flip(-1) if self.mirrored else self.pixels


def _shown(place: int, image: np.ndarray, protocol: Protocol, preprocess: Preprocess) -> list[Shown]:
    distinct = _distinct(protocol, *image.shape[:2], preprocess.preprocessing)
    pixels = cut(image, distinct, preprocess)
    return [
        Shown(place, times, mirrored, pixels[view])
        for view, counts in distinct.items()
        for mirrored, times in counts.items()
    ]


@lru_cache(maxsize=64)  # most images of a data set have one of few shapes
def _distinct(protocol: Protocol, height: int, width: int, preprocessing: Preprocessing) -> dict[View, Counter[bool]]:
    """The views that differ in more than mirroring, and how often each is shown, mirrored or not."""
    found: dict[View, Counter[bool]] = defaultdict(Counter)
    for view in protocol.views(height, width, preprocessing):
        found[replace(view, mirrored=False)][view.mirrored] += 1
    return found


def _by_size(images: Iterable[list[Shown]]) -> dict[Size, list[Shown]]:
    groups: dict[Size, list[Shown]] = defaultdict(list)
    for shown in images:
        for one in shown:
            _, height, width = one.pixels.shape
            groups[height, width].append(one)
    return groups


def _room_for(batch: list[Shown], memory: Tensor) -> Tensor:
    """``memory`` again where it is large enough: fresh memory of this size costs more than what is written into it."""
    shape = (len(batch), *batch[0].pixels.shape)
    return memory if len(memory) >= shape[0] and memory.shape[1:] == shape[1:] else memory.new_empty(shape)


def _evenly(shown: list[Shown], most: int) -> Iterator[list[Shown]]:
    """Batches of at most ``most``, as equal as can be."""
    count = ceil(len(shown) / most)
    for part in np.array_split(np.arange(len(shown)), count):
        yield [shown[i] for i in part]
