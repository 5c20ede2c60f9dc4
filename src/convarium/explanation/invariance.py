"""How far features move when the image is moved: M. Zeiler, R. Fergus, "Visualizing and Understanding Convolutional
Networks", ECCV 2014 (arXiv 1311.2901, Section 4, Fig. 5).

The preprocessed square is moved, turned and enlarged about its middle, bilinearly; what comes in at the border is the
image's reflection. The paper does not say what its own borders hold, and does not divide its distances.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from convarium.explanation.features import HEAD, LOGITS, depths, features, first_middle_last
from convarium.explanation.subject import Finding, Picture, Subject
from convarium.network import Network
from convarium.report.figures import COLOURS, INK, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The paper's ranges: 60 of 224 pixels up and down, 1 to 1.8, a whole turn.
SHIFTS_PERCENT = np.linspace(-27, 27, 19)  # of the side, positive is down
SCALES = np.linspace(1, 1.8, 17)
ANGLES_DEGREES = np.arange(0, 361, 15)  # counterclockwise


@dataclass(frozen=True)
class Curves:
    """Of one kind of movement: ``(pictures, amounts)`` distances by stage, and of the class's probability."""

    distances: dict[str, np.ndarray]
    probabilities: np.ndarray


def movement(shift: float = 0.0, scale: float = 1.0, angle: float = 0.0) -> Tensor:
    """``(2, 3)`` for :func:`move`: ``shift`` in parts of the side, down; ``scale`` above 1 enlarges; ``angle`` in
    degrees, counterclockwise."""
    sine, cosine = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    # From a place in the new image to the one in the old: the inverse, on a square of -1 to 1.
    rows = [[cosine / scale, -sine / scale, 0], [sine / scale, cosine / scale, -2 * shift]]
    return torch.tensor(rows, dtype=torch.float32)


def move(images: Tensor, matrices: Tensor) -> Tensor:
    """``(N, C, S, S)`` images, each through its matrix ``(N, 2, 3)``, with their reflection beyond the border."""
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


MOVEMENTS: dict[str, tuple[str, np.ndarray, Tensor]] = {
    "translation": (
        "moved down, % of the side", SHIFTS_PERCENT, torch.stack([movement(shift=s / 100) for s in SHIFTS_PERCENT])
    ),
    "scale": ("enlarged, times", SCALES, torch.stack([movement(scale=s) for s in SCALES])),
    "rotation": ("turned, degrees", ANGLES_DEGREES, torch.stack([movement(angle=float(a)) for a in ANGLES_DEGREES])),
}  # fmt: skip


@torch.no_grad()
def invariance(model: Network, image: Tensor, matrices: Tensor, target: int, names: Sequence[str]) -> Curves:
    """How far the features of one image move.

    Args:
        model: in evaluation mode.
        image: ``(1, C, S, S)``, preprocessed.
        matrices: ``(M, 2, 3)`` of :func:`movement`.
        target: a class.
        names: of stages, and ``"head"``.

    Returns:
        One row: by name ``|f(moved) - f(image)| / |f(image)|`` in Euclidean norms over a stage's whole map, and the
        probability of ``target`` in the moved image.
    """
    moved = move(image.expand(len(matrices), -1, -1, -1), matrices)
    seen = features(model, torch.cat([image, moved]), [*names, LOGITS])
    probabilities = seen.pop(LOGITS)[1:].softmax(1)[:, target]
    distances = {}
    for name, maps in seen.items():
        still, others = maps[:1].flatten(1), maps[1:].flatten(1)
        norm = still.norm(dim=1).clamp(min=torch.finfo(still.dtype).tiny)
        distances[name] = ((others - still).norm(dim=1) / norm)[None].numpy()
    return Curves(distances, probabilities[None].numpy())


def find(subject: Subject) -> Iterator[Finding]:
    """Three movements, the mean over the pictures."""
    from convarium.console import counting

    model, names = subject.run.model, depths(subject.run.model, subject.stage)
    found: dict[str, list[Curves]] = {kind: [] for kind in MOVEMENTS}
    with counting("moving", len(subject.pictures)) as tick:
        for done, picture in enumerate(subject.pictures, 1):
            target = _target(subject, picture)
            for kind, (_, _, matrices) in MOVEMENTS.items():
                found[kind].append(invariance(model, picture.x, matrices, target, names))
            tick(done)
    means = {kind: _mean(curves) for kind, curves in found.items()}
    # The stages and the head are two rows of their own: three stages, and what becomes of them.
    stages = [name for name in names if name != HEAD]
    drawn = first_middle_last(stages) + [name for name in names if name == HEAD]
    whose = f"class {subject.class_name}" if subject.class_name else "the true class"
    if not subject.class_name and any(picture.label is None for picture in subject.pictures):
        whose = "the class first seen"
    numbers = {
        kind: {
            "unit": unit,
            "amounts": [round(float(amount), 4) for amount in amounts],
            "distance_over_norm": {name: _rounded(values[0]) for name, values in means[kind].distances.items()},
            "probability": _rounded(means[kind].probabilities[0]),
        }
        for kind, (unit, amounts, _) in MOVEMENTS.items()
    }
    yield Finding("movement", _draw(means, drawn, whose), _say(means, drawn, len(subject.pictures)), numbers)


def _target(subject: Subject, picture: Picture) -> int:
    """The class asked for, the true one where it is known, the predicted one where it is not."""
    return subject.target(picture) if subject.class_name or picture.label is None else picture.label


def _mean(curves: Sequence[Curves]) -> Curves:
    """Over the pictures, one row."""
    return Curves(
        {n: np.concatenate([c.distances[n] for c in curves]).mean(0, keepdims=True) for n in curves[0].distances},
        np.concatenate([c.probabilities for c in curves]).mean(0, keepdims=True),
    )


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 6) for value in values]


def _say(means: dict[str, Curves], drawn: Sequence[str], pictures: int) -> str:
    """The first line against the last, each averaged over a kind's amounts."""
    first, last = drawn[0], drawn[-1]
    said = []
    for kind, curves in means.items():
        far, low = {name: values.mean() for name, values in curves.distances.items()}, curves.probabilities.min()
        against = f", {last} by {far[last]:.2f}" if last != first else ""
        said.append(f"under {kind} {first} moves by {far[first]:.2f} of its norm{against} (class: {100 * low:.0f} %)")
    over = f"{pictures} pictures" if pictures > 1 else "one picture"
    return (
        f"{'; '.join(said)}: means over {over} and the range, and the least probability of the class "
        "(beyond the border: the image's reflection)"
    )


def _draw(means: dict[str, Curves], drawn: Sequence[str], whose: str) -> Figure:
    figure, axes = new_figure(9.6, 5.2, columns=len(MOVEMENTS), rows=2, sharex="col", sharey="row")
    for column, (kind, (unit, amounts, _)) in enumerate(MOVEMENTS.items()):
        above, below = axes[:, column]
        for name, colour in zip(drawn, COLOURS, strict=False):
            above.plot(amounts, means[kind].distances[name][0], color=colour, label=plain(name))
        below.plot(amounts, 100 * means[kind].probabilities[0], color=INK)
        above.set_title(kind, fontsize=11)
        below.set(xlabel=unit)
        if kind == "rotation":
            below.set_xticks([0, 90, 180, 270, 360])
    axes[0, 0].set(ylabel="distance moved / norm", ylim=(0, None))
    axes[1, 0].set(ylabel=f"probability of {plain(whose)}, %", ylim=(0, 103))
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(drawn), frameon=False,
        labelcolor=INK,
    )  # fmt: skip
    return figure
