"""Who runs: networks that are asked for, or a handful by the facts, and the images that all of them are to see."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import numpy as np

from convarium.console import stderr
from convarium.data.datasets import Dataset
from convarium.errors import DataError, UsageError
from convarium.facts import NetworkFacts, all_facts
from convarium.lineage.names import matching
from convarium.lineage.tree import ERROR
from convarium.networks import CATALOGUE, create_on_meta

SAMPLE = 32  # images to look at
USUAL_SIDE = 64  # pixels: the most that is chosen unasked; a processor trains on them in minutes
LEAST_HELD_OUT = 10

# The networks that run unasked are small or medium, and made for images of about the size.
CANDIDATES = 6
LARGEST_MACS, LARGEST_PARAMS = 2e9, 2e7
FACTOR = 3  # between the side of the images and of the paper's


@dataclass(frozen=True)
class Seen:
    """What all candidates see: the ``side`` of the square in pixels, and 1 or 3 ``channels``."""

    side: int
    channels: int


def check_data(dataset: Dataset) -> None:
    """Refuse a data set whose held-out images are too few to choose by.

    Raises:
        DataError: fewer than ten.
    """
    held_out = len(dataset.splits["val"])
    if held_out < LEAST_HELD_OUT:
        raise DataError(
            f"{dataset.name} has {held_out} held-out images, too few to choose a network by: {LEAST_HELD_OUT} are the "
            f"least, and some hundreds tell more"
        )


def choose(models: str | None, dataset: Dataset, image_size: int | None) -> tuple[list[str], Seen]:
    """The candidates and what they see.

    Args:
        models: names or wildcards separated by commas; a handful that suits the images when ``None``.
        dataset: whose training images are looked at.
        image_size: the side; when ``None`` that of the images, 64 at most, or the least that every candidate takes.

    Raises:
        UsageError: an unknown network, fewer than two, or one that takes no images of ``image_size``.
    """
    own_side, channels = look(dataset)
    side = image_size or min(own_side, USUAL_SIDE)
    if models is None:
        side = image_size or max(side, smallest_side())
        names = by_facts(side)
        if len(names) < 2:
            raise UsageError(
                f"few networks are made for images of {side} pixels: name some (--models), or another size"
            )
    else:
        names = matching(name.strip() for name in models.split(","))
        if len(names) < 2:
            raise UsageError(
                f"a race needs two networks or more, and --models names {names[0]}: add others (convarium list)"
            )
    least = {name: create_on_meta(name).min_input_size for name in names}
    largest = max(names, key=lambda name: least[name])
    if least[largest] <= side:
        return names, Seen(side, channels)
    if image_size:
        raise UsageError(
            f"{largest} takes images of {least[largest]} pixels or more, and --image-size is {image_size}: give "
            f"--image-size {least[largest]}, or leave {largest} out"
        )
    stderr().print(f"images are resized to {least[largest]} pixels for all: {largest} takes no smaller ones")
    return names, Seen(least[largest], channels)


def look(dataset: Dataset) -> tuple[int, int]:
    """The usual shorter side of the training images, and 1 channel where they are grey, else 3."""
    positions = dataset.splits["train"]
    chosen = positions[:: -(-len(positions) // SAMPLE)]
    images = [dataset.read(int(position), 3) for position in chosen]
    grey = all(np.array_equal(image[..., :1].repeat(3, axis=2), image) for image in images)
    return int(statistics.median(min(image.shape[:2]) for image in images)), 1 if grey else 3


def smallest_side() -> int:
    """The side of the smallest images that any paper's network was made for."""
    return min(facts.input[1] for facts in all_facts().values())


def by_facts(side: int) -> list[str]:
    """Of each paper the cheapest network for images of about ``side`` pixels; of those the six cheapest."""
    found: dict[str, NetworkFacts] = {}
    for name in CATALOGUE:
        facts = all_facts()[name]
        known = found.get(facts.paper.name)
        if _suits(facts, side) and (known is None or _order(facts) < _order(known)):
            found[facts.paper.name] = facts
    cheapest = sorted(found.values(), key=lambda facts: facts.counts.macs)
    return [facts.name for facts in cheapest if create_on_meta(facts.name).min_input_size <= side][:CANDIDATES]


def _suits(facts: NetworkFacts, side: int) -> bool:
    own = facts.input[1]
    small = facts.counts.macs <= LARGEST_MACS and facts.counts.params <= LARGEST_PARAMS
    return small and own <= FACTOR * side and side <= FACTOR * own


def _order(facts: NetworkFacts) -> tuple[float, float]:
    """Multiply-adds to two digits, then the published error: a residual net goes before its plain one."""
    error = facts.printed(ERROR)
    return float(f"{facts.counts.macs:.1e}"), error.value if error else 100.0
