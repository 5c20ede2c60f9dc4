"""What is explained, and what an explanation is: the two plain forms between ``explain`` and its methods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from convarium.data.datasets import Dataset
from convarium.data.loading import ImageStore
from convarium.data.resize import Preprocess
from convarium.errors import UsageError
from convarium.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCH = 64


class DoesNotApply(UsageError):
    """The method has nothing to show of this network or these images, and says why."""


@dataclass(frozen=True)
class Picture:
    """One image.

    Attributes:
        name: to call its files.
        source: its path, or its name in the data set.
        x: ``(1, C, S, S)``, as the network takes it.
        seen: ``(S, S, C)`` in 0..1, the same for people.
        logits: ``(classes,)``.
        label: its true class as a position in the run's names, where it is known.
    """

    name: str
    source: str
    x: Tensor = field(repr=False)
    seen: np.ndarray = field(repr=False)
    logits: Tensor = field(repr=False)
    label: int | None = None


@dataclass(frozen=True)
class Subject:
    """A run, the images, and what of it is asked for.

    Attributes:
        run: the network in evaluation mode, its preprocessing and class names.
        pictures: images to look at one by one.
        dataset: where they come from, with ``positions`` in it to take statistics over; ``None`` for image files.
        labels: of every image of ``dataset``, as positions in the run's class names.
        class_name, stage, channel: as the user asked; ``None`` for what suits the method.
    """

    run: Run
    pictures: Sequence[Picture]
    dataset: Dataset | None = None
    positions: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    class_name: str | None = None
    stage: str | None = None
    channel: int | None = None

    def target(self, picture: Picture) -> int:
        """The class to explain: the one asked for, or the predicted one."""
        if self.class_name is not None:
            return self.run.class_names.index(self.class_name)
        return int(picture.logits.argmax())

    def stages(self) -> list[str]:
        """The stage asked for, or all of them."""
        return [self.stage] if self.stage else list(self.run.model.stages)

    def batches(self, positions: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Positions and ``(N, C, S, S)`` images of the data set, batch by batch, as the network takes them."""
        assert self.dataset is not None
        preprocess = Preprocess(self.run.preprocessing)
        store = ImageStore(
            self.dataset, positions, self.run.preprocessing.channels,
            lambda image: preprocess(torch.from_numpy(image)[None])[0], budget=0,
        )  # fmt: skip
        places = torch.arange(len(positions)).split(BATCH)
        for chosen, images in zip(places, store.batches(places), strict=True):
            yield positions[chosen.numpy()], images


@dataclass(frozen=True)
class Finding:
    """One figure of a method.

    Attributes:
        name: of its file, without suffix; unique within the method.
        figure: as matplotlib has it.
        says: one sentence to read it by.
        numbers: what it shows, as JSON can hold it.
        heat: ``(H, W)`` over the image, where the figure is of one: what two runs are compared by.
    """

    name: str
    figure: Figure
    says: str
    numbers: dict[str, Any]
    heat: np.ndarray | None = None


def make_picture(run: Run, name: str, source: str, pixels: np.ndarray, label: int | None = None) -> Picture:
    """A picture from ``(H, W, C)`` uint8 pixels."""
    x = Preprocess(run.preprocessing)(torch.from_numpy(pixels)[None])
    with torch.no_grad():
        logits = run.model(x)[0]
    return Picture(name, source, x, visible(run, x)[0], logits, label)


def visible(run: Run, images: Tensor) -> np.ndarray:
    """Images ``(N, C, H, W)`` as the network takes them, for people: ``(N, H, W, C)`` in 0..1."""
    mean = torch.tensor(run.preprocessing.mean).view(-1, 1, 1)
    std = torch.tensor(run.preprocessing.std).view(-1, 1, 1)
    return (images * std + mean).clamp(0, 1).permute(0, 2, 3, 1).numpy()


def file_pictures(run: Run, paths: Sequence[Path]) -> list[Picture]:
    """Image files, each under a name of its own.

    Raises:
        DataError: one that cannot be read.
    """
    from convarium.data.images import read_image

    pixels = [read_image(path, run.preprocessing.channels) for path in paths]
    return [
        make_picture(run, name, str(path), image)
        for name, path, image in zip(_names(paths), paths, pixels, strict=True)
    ]


def _names(images: Sequence[Path]) -> list[str]:
    """A name per picture: the image's, its folder's before it where two are alike, a number where those are too."""
    names = [path.stem for path in images]
    if len(set(names)) < len(names):
        names = ["-".join([*path.parent.parts[-1:], path.stem]) for path in images]
    return [f"{name}-{names[:i].count(name)}" if name in names[:i] else name for i, name in enumerate(names)]


def data_pictures(run: Run, dataset: Dataset, labels: np.ndarray, positions: np.ndarray, count: int) -> list[Picture]:
    """``count`` images of a data set, the classes in turn."""
    turns = _in_turns(labels[positions])
    return [
        make_picture(
            run, f"{i:03d}-{Path(dataset.ids[p]).stem}", dataset.ids[p],
            dataset.read(int(p), run.preprocessing.channels), int(labels[p]),
        )
        for i, p in enumerate(positions[turns[:count]])
    ]  # fmt: skip


def spread(labels: np.ndarray, positions: np.ndarray, limit: int) -> np.ndarray:
    """At most ``limit`` of the positions, as many of each class as can be, in their order."""
    return np.sort(positions[_in_turns(labels[positions])[:limit]])


def _in_turns(labels: np.ndarray) -> np.ndarray:
    """An order in which the first images of all classes come before any class's second."""
    turn = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        turn[own] = np.arange(len(own))
    return np.lexsort((labels, turn))
