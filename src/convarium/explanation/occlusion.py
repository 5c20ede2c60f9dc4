"""Occlusion: M. Zeiler and R. Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, Section 4.2
and Fig. 7. A grey square slides over the image; where it hides what the class rests on, the probability falls."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from convarium.console import counting
from convarium.errors import UsageError
from convarium.explanation.figures import show, show_classes, show_signed
from convarium.explanation.subject import Finding, Picture, Subject
from convarium.explanation.windows import share
from convarium.network import Network
from convarium.report.figures import INK, new_figure, plain
from convarium.runs import Run

PATCH, STRIDE = 1 / 7, 1 / 28  # of the side: 32 and 8 pixels at 224, and 2 at least
PIXELS_AT_ONCE = 16 * 224 * 224  # of all copies in one batch: more are split
MOST_AT_ONCE = 256


def occlusion(
    model: Network,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    patch: int | None = None,
    stride: int | None = None,
    fill: float = 0.0,
) -> Tensor:
    """How much of a class's probability is lost when a square hides a part of the image.

    Args:
        model: in evaluation mode.
        images: ``(N, C, S, S)``, preprocessed.
        targets: ``(N,)`` class positions; the predicted ones when not given.
        patch: side of the square in pixels; a seventh of the image's when not given (32 at 224).
        stride: pixels from one place of the square to the next; a 28th of the side when not given (8 at 224).
        fill: what is in the square, on the scale of ``images``: 0 is the mean that was subtracted, a grey.

    Returns:
        ``(N, h, w)``, one number per place of the square; negative where hiding helped. :func:`over_pixels` lays them
        over the image.

    Raises:
        UsageError: a square that does not fit, or images that are not square.
    """
    with torch.no_grad():
        probabilities = model(images).softmax(1)
    chosen = probabilities.argmax(1) if targets is None else targets
    rows = []
    for image, probability, target in zip(images, probabilities, chosen.tolist(), strict=True):
        logits = occluded_logits(model, image[None], patch=patch, stride=stride, fill=fill)
        rows.append(probability[target] - logits.softmax(2)[..., target])
    return torch.stack(rows)


def occluded_logits(
    model: Network,
    image: Tensor,
    *,
    patch: int | None = None,
    stride: int | None = None,
    fill: float = 0.0,
    tick: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """``(h, w, classes)`` logits of ``image`` ``(1, C, S, S)`` with the square at each of its places.

    The same as of the copies one by one, to rounding; the early stages run around the square only. ``tick`` is told how
    many copies are done.
    """
    side = image.shape[3]
    if image.shape[2] != side:
        raise UsageError(f"occlusion takes square images; got {image.shape[2]}x{side}")
    patch, starts = places(side, patch, stride)
    at = [(row, column) for row in starts for column in starts]
    batch = min(MOST_AT_ONCE, max(1, PIXELS_AT_ONCE // side**2))
    logits: list[Tensor] = []
    with torch.no_grad():
        # Channels last is the quicker order of a batch on a CPU, for poolings above all.
        shared = share(model, image.contiguous(memory_format=torch.channels_last), patch)
        squares = image.new_full((batch, image.shape[1], patch, patch), fill)
        for first in range(0, len(at), batch):
            some = at[first : first + batch]
            logits.append(shared(squares[: len(some)], some))
            tick(first + len(some))
    return torch.cat(logits).unflatten(0, (len(starts), len(starts)))


def places(side: int, patch: int | None = None, stride: int | None = None) -> tuple[int, list[int]]:
    """The square's side, and where it begins along an image's: every ``stride`` pixels, and last at the far edge.

    Raises:
        UsageError: a square larger than the image, or a stride or a square below 1.
    """
    patch = max(2, round(PATCH * side)) if patch is None else patch
    stride = max(2, round(STRIDE * side)) if stride is None else stride
    if not 1 <= patch <= side:
        raise UsageError(f"the square must be 1 to {side} pixels wide, as the image is; got {patch}")
    if stride < 1:
        raise UsageError(f"the stride must be 1 or more; got {stride}")
    return patch, sorted({*range(0, side - patch + 1, stride), side - patch})


def over_pixels(drop: Tensor, side: int, patch: int | None = None, stride: int | None = None) -> Tensor:
    """``(N, h, w)`` of :func:`occlusion`, with the same ``patch`` and ``stride``, as ``(N, side, side)``: each pixel
    has the mean over the squares that hide it, and one that none hides has 0."""
    patch, starts = places(side, patch, stride)
    from_start = torch.arange(side) - torch.tensor(starts)[:, None]
    hides = ((from_start >= 0) & (from_start < patch)).to(drop)  # (places, side)
    return hides.T @ drop @ hides / torch.outer(hides.sum(0), hides.sum(0)).clamp(min=1)


def heat(model: Network, images: Tensor, targets: Tensor) -> Tensor:
    """What a class loses, over the image: ``(N, S, S)``, signed."""
    return over_pixels(occlusion(model, images, targets), images.shape[3])


def find(subject: Subject) -> Iterator[Finding]:
    """Per picture, what the class loses over the image, and its probability at every place of the square."""
    for picture in subject.pictures:
        target, (patch, starts) = subject.target(picture), places(picture.x.shape[3])
        with counting(f"hiding parts of {picture.name}", len(starts) ** 2) as tick:
            logits = occluded_logits(subject.run.model, picture.x, tick=tick)
        yield _finding(subject.run, picture, target, logits, patch, starts)


def _finding(run: Run, picture: Picture, target: int, logits: Tensor, patch: int, starts: list[int]) -> Finding:
    name, whole = run.class_names[target], float(picture.logits.softmax(0)[target])
    probability = logits.softmax(2)[..., target]
    loss = over_pixels((whole - probability)[None], picture.x.shape[3])[0].numpy()
    row, column = (starts[at] for at in divmod(int(probability.argmin()), len(starts)))
    counts = torch.bincount(logits.argmax(2).flatten(), minlength=len(run.class_names))
    answers = {run.class_names[i]: int(counts[i]) for i in counts.argsort(descending=True, stable=True) if counts[i]}
    lowest = float(probability.min())
    numbers = {
        "class": name,
        "patch_px": patch,
        "probability": whole,
        "lowest_probability": lowest,
        "logit": float(picture.logits[target]),
        "lowest_logit": float(logits[..., target].min()),
        "lowest_at_px": [row, column],
        "answers": answers,
    }
    says = (
        f"a grey square of {patch} pixels takes {name} from {100 * whole:.0f} % to {100 * lowest:.0f} % where it hides "
        f"most (row {row}, column {column}; red: lost, blue: gained); answers with it: {', '.join(list(answers)[:5])}"
        f"{', ...' if len(answers) > 5 else ''}"
    )
    figure = _draw(picture, loss, probability.numpy(), run.class_names, name)
    return Finding(picture.name, figure, says, numbers, loss)


def _draw(picture: Picture, loss: np.ndarray, probability: np.ndarray, class_names: list[str], target: str) -> Figure:
    figure, (seen, over, moving, classes) = new_figure(11, 2.9, columns=4)
    show(seen, picture.seen, "what the network sees")
    show_signed(over, picture.seen, loss, "lost when hidden")
    shades = moving.imshow(100 * probability, cmap="viridis", vmin=0, vmax=100)
    moving.set_axis_off()
    moving.set_title(f"{plain(target)!r} as the square moves, %", fontsize=10)
    bar = figure.colorbar(shades, ax=moving, fraction=0.046, ticks=[0, 50, 100])
    bar.ax.tick_params(colors=INK, labelsize=8)
    bar.outline.set_visible(False)
    show_classes(classes, class_names, picture.logits.softmax(0).numpy(), target)
    return figure
