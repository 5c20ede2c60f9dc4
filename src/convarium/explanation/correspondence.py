"""Does hiding the same part change images of a class alike? M. Zeiler, R. Fergus, "Visualizing and Understanding
Convolutional Networks", ECCV 2014 (arXiv 1311.2901, Section 4.3, Table 1).

The paper hid eyes and noses of five dogs, found by hand. Here the images of a class are taken as aligned, as letters
and digits are: the part is one of nine places, the same in every image, and is compared with a place drawn for each
image by itself. Two images are compared by the signs of what hiding does to their channels' means, so that where on
the map a change lies does not count by itself; the paper compared whole maps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from convarium.explanation.features import HEAD, counted_batches, depths, features
from convarium.explanation.subject import DoesNotApply, Finding, Subject
from convarium.network import Network
from convarium.report.figures import COLOURS, INK, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = 3  # places a side, each a PARTS-th of the image's side
IMAGES = 5  # of each class at most, the paper's number
CLASSES = 40  # at most
UNCHANGED = 1e-6  # of a channel's mean: below this a change is rounding

Signs = dict[str, Tensor]  # stage -> (places, images, channels) of -1, 0, 1


@dataclass(frozen=True)
class Alike:
    """Hamming distances at one stage, in parts of the channels, by what was hidden: a value per class and place.

    ``same`` place of images of a class, ``others``: the same place of images of different classes (one value per
    place), ``random``: places of images of a class.
    """

    stage: str
    same: np.ndarray
    others: np.ndarray
    random: np.ndarray


def hide(images: Tensor, corners: Tensor, side: int) -> Tensor:
    """``(N, C, S, S)`` images, each with a grey square from its corner ``(N, 2)`` of row and column: the value 0, which
    is the mean of the training images."""
    places = torch.arange(images.shape[2])
    from_corner = places - corners[:, :, None]  # (N, 2, S)
    inside = (from_corner >= 0) & (from_corner < side)
    return images.masked_fill((inside[:, 0, :, None] & inside[:, 1, None, :])[:, None], 0.0)


@torch.no_grad()
def change_signs(model: Network, images: Tensor, corners: Tensor, side: int, names: Sequence[str]) -> Signs:
    """By stage, the sign of what hiding does to each channel's mean, 0 for nothing: ``(P, N, channels)`` int8, where
    ``corners`` ``(P, N, 2)`` are P places for each image."""
    before = _channels(model, images, names)
    signs: dict[str, list[Tensor]] = {name: [] for name in names}
    for corner in corners:
        after = _channels(model, hide(images, corner, side), names)
        for name in names:
            change = after[name] - before[name]
            changed = change.abs() > UNCHANGED * before[name].abs()
            signs[name].append((change.sign() * changed).to(torch.int8))
    return {name: torch.stack(each) for name, each in signs.items()}


def _channels(model: Network, images: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    maps = features(model, images, names)
    return {name: each.mean((2, 3)) if each.ndim == 4 else each for name, each in maps.items()}


def hamming(signs: Tensor) -> float:
    """Mean part of the entries in which two of the rows ``(N, D)`` differ, over all pairs (the paper's sum over i and
    j, Delta, over their number and the entries')."""
    differing, pairs = _pairs(signs)
    return float(differing / pairs)


def hamming_between(signs: Tensor, groups: Tensor) -> float:
    """The same over the pairs of rows that are of different ``groups`` ``(N,)``."""
    every, parts = _pairs(signs), [_pairs(signs[groups == group]) for group in groups.unique()]
    differing, pairs = every - torch.stack(parts).sum(0)
    return float(differing / pairs)


def _pairs(signs: Tensor) -> Tensor:
    """``(2,)``: mean number over the entries of the pairs that differ, and the number of all pairs."""
    # Pairs that agree are those within each of the three signs: no pair has to be looked at.
    counts = torch.stack([(signs == sign).sum(0) for sign in (-1, 0, 1)]).double()
    pairs = len(signs) * (len(signs) - 1)
    agreeing = (counts * (counts - 1)).sum(0).mean()
    return torch.stack([pairs - agreeing, torch.tensor(float(pairs), dtype=agreeing.dtype)])


def correspondence(
    model: Network, batches: Iterable[Tensor], labels: Tensor, names: Sequence[str], *, seed: int = 0
) -> list[Alike]:
    """How alike hiding changes images, at each of ``names``.

    Args:
        model: in evaluation mode.
        batches: of images ``(N, C, S, S)``, preprocessed.
        labels: of them all, two or more images of each class.
        names: of stages, and ``"head"``.
        seed: of the random places.
    """
    generator = torch.Generator().manual_seed(seed)
    parts: list[Signs] = []
    for images in batches:
        size = images.shape[2]
        side = size // PARTS
        offsets = torch.arange(PARTS) * side + (size - PARTS * side) // 2
        fixed = torch.cartesian_prod(offsets, offsets)[:, None].expand(-1, len(images), -1)
        drawn = torch.randint(0, size - side + 1, fixed.shape, generator=generator)
        parts.append(change_signs(model, images, torch.cat([fixed, drawn]), side, names))
    return [_alike(name, torch.cat([part[name] for part in parts], dim=1), labels) for name in names]


def _alike(name: str, signs: Tensor, labels: Tensor) -> Alike:
    places = PARTS**2
    within = np.array([[hamming(each[labels == label]) for each in signs] for label in labels.unique()])
    others = np.array([hamming_between(each, labels) for each in signs[:places]])
    return Alike(name, within[:, :places], others, within[:, places:])


def find(subject: Subject) -> Iterator[Finding]:
    """One chart: distances by depth, for the three ways to hide."""
    positions, labels = _images(subject)
    batches = (images for _, images in counted_batches(subject, positions, "hiding"))
    names = _names(subject.run.model, subject.stage)
    alike = correspondence(subject.run.model, batches, torch.from_numpy(labels), names)
    classes = len(np.unique(labels))
    numbers = {"images": len(labels), "classes": classes, "stages": [_numbers(each) for each in alike]}
    yield Finding("hidden", _draw(alike), _say(alike, len(labels), classes), numbers)


def _names(model: Network, stage: str | None) -> list[str]:
    """A head that begins with channels' means, and has no hidden layer, says what the last stage says."""
    repeats = model.head.pool.kind == "avg" and not len(model.head.hidden)
    return [name for name in depths(model, stage) if not (repeats and name == HEAD)]


def _images(subject: Subject) -> tuple[np.ndarray, np.ndarray]:
    """Positions and labels of up to IMAGES images of up to CLASSES classes that have two or more."""
    labels = subject.labels[subject.positions]
    classes = np.flatnonzero(np.bincount(labels) > 1)
    if not len(classes):
        raise DoesNotApply("correspondence compares images of one class: none has two here (a larger --limit helps)")
    classes = classes[np.unique(np.linspace(0, len(classes) - 1, CLASSES).round().astype(int))]
    positions = np.concatenate([subject.positions[labels == label][:IMAGES] for label in classes])
    return positions, subject.labels[positions]


def _numbers(alike: Alike) -> dict[str, object]:
    """A row of the paper's table: mean and standard deviation over classes and places."""
    ways = {"same_place": alike.same, "same_place_other_classes": alike.others, "random_places": alike.random}
    row: dict[str, object] = {"stage": alike.stage}
    for way, values in ways.items():
        row[way] = {"mean": round(float(values.mean()), 6), "spread": round(float(values.std()), 6)}
    row["by_place"] = [round(float(value), 6) for value in alike.same.mean(0)]
    return row


def _say(alike: Sequence[Alike], images: int, classes: int) -> str:
    last = alike[-1]
    ways = (
        (last.same, "for one place in a class"),
        (last.random, "for random places"),
        (last.others, "for one place between classes"),
    )
    said = ", ".join(f"{values.mean():.3f} +- {values.std():.3f} {way}" for values, way in ways)
    return (
        f"Hamming distance at {last.stage}: {said}; the less, the more alike hiding changes images "
        f"({images} images of {classes} classes, {PARTS**2} places; +-: spread over places, and classes)"
    )


def _draw(alike: Sequence[Alike]) -> Figure:
    figure, axes = new_figure(min(9.6, max(5.5, 1.1 * len(alike) + 2.5)), 3.4)
    ways = (
        ("random places, one class", [each.random for each in alike]),
        ("same place, different classes", [each.others for each in alike]),
        ("same place, one class", [each.same for each in alike]),
    )
    for i, ((way, values), colour, marker) in enumerate(zip(ways, COLOURS, "os^", strict=False)):
        axes.errorbar(
            np.arange(len(alike)) + 0.16 * (i - 1), [each.mean() for each in values], [each.std() for each in values],
            fmt=marker, color=colour, capsize=3, label=way,
        )  # fmt: skip
    axes.set_xticks(range(len(alike)), [plain(each.stage) for each in alike], rotation=30 if len(alike) > 6 else 0)
    axes.set(ylabel="Hamming distance / channels", xlabel="depth")
    figure.legend(loc="outside upper center", ncols=3, frameon=False, labelcolor=INK, fontsize=9)
    return figure
