"""What a network makes of images, stage by stage: what the studies of trained networks compare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from convarium.explanation.subject import Subject
from convarium.network import Network

HEAD = "head"  # what the classifier reads; the seventh layer of Zeiler and Fergus
LOGITS = "logits"


def features(model: Network, images: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """The maps ``(N, C, h, w)`` of stages, and what the head makes of the last.

    Args:
        model: in evaluation mode.
        images: ``(N, C, H, W)``, preprocessed.
        names: of stages; :data:`HEAD` for the features ``(N, D)`` before the classifier; :data:`LOGITS`.

    Raises:
        UsageError: a stage that does not exist.
    """
    stages = [name for name in names if name not in (HEAD, LOGITS)]
    last, maps = model.forward_intermediates(images, stages)
    found = dict(zip(stages, maps, strict=True))
    if HEAD in names:
        found[HEAD] = model.forward_head(last, pre_logits=True)
    if LOGITS in names:
        found[LOGITS] = model.forward_head(last)
    return found


def depths(model: Network, stage: str | None) -> list[str]:
    """The stage asked for, or every stage and the :data:`HEAD`, in order of depth."""
    return [stage] if stage else [*model.stages, HEAD]


def first_middle_last(names: Sequence[str]) -> list[str]:
    """Three of the names at most: enough lines to read a chart by."""
    return list(dict.fromkeys([names[0], names[len(names) // 2], names[-1]]))


def counted_batches(subject: Subject, positions: np.ndarray, what: str) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Positions and images of the data set, batch by batch, under a bar that says ``what`` is done with them."""
    from convarium.console import counting

    done = 0
    with counting(what, len(positions)) as tick:
        for chosen, images in subject.batches(positions):
            yield chosen, images
            done += len(chosen)
            tick(done)
