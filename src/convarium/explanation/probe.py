"""How well a linear classifier does on each stage's features: M. Zeiler, R. Fergus, "Visualizing and Understanding
Convolutional Networks", ECCV 2014 (arXiv 1311.2901, Section 5.3, Table 7).

The paper fits a linear SVM; here it is ridge regression to the classes' indicators, which has a closed form. Maps are
averaged to at most 4x4 places, and to fewer where that would be more than FEATURES numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from convarium.explanation.features import LOGITS, counted_batches, depths, features
from convarium.explanation.subject import DoesNotApply, Finding, Subject, spread
from convarium.network import Network
from convarium.report.figures import COLOURS, INK, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIT_IMAGES = 2000  # at most: the solver's matrix has this side
FEATURES = 4096  # of a stage, at most
SIDE = 4  # of a pooled map, at most
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of a standardised feature's variance, per feature


@dataclass(frozen=True)
class Probe:
    """A linear classifier of rows: standardise, multiply, add."""

    mean: Tensor  # (D,)
    std: Tensor  # (D,)
    weights: Tensor  # (D, classes)
    bias: Tensor  # (classes,)
    penalty: float

    def __call__(self, rows: Tensor) -> Tensor:
        """``(N, D)`` to the scores ``(N, classes)``."""
        return ((rows.double() - self.mean) / self.std) @ self.weights + self.bias


def pooled(maps: Tensor) -> Tensor:
    """``(N, C, h, w)`` or ``(N, D)`` to rows: means over at most 4x4 places of a map."""
    if maps.ndim == 2:
        return maps
    side = min(SIDE, max(1, math.isqrt(FEATURES // maps.shape[1])))
    height, width = (min(side, length) for length in maps.shape[2:])
    return F.adaptive_avg_pool2d(maps, (height, width)).flatten(1)


def fit(rows: Tensor, labels: Tensor, classes: int) -> Probe:
    """Ridge regression of the classes' indicators on rows, with a free bias.

    The penalty is the one of PENALTIES whose predictions of images left out, one at a time, are the least wrong in
    squares: with the singular values at hand these predictions cost nothing (the press statistic; D. Allen, 1974).

    Args:
        rows: ``(N, D)``.
        labels: ``(N,)``.
        classes: how many.
    """
    rows = rows.double()
    std, mean = torch.std_mean(rows, dim=0, correction=0)
    std = torch.where(std > 0, std, 1.0)  # a dead feature stays at 0
    x = (rows - mean) / std
    wanted = F.one_hot(labels, classes).double()
    bias = wanted.mean(0)
    # From the products of images, not of features: there are fewer images.
    values, vectors = torch.linalg.eigh(x @ x.T)
    values, turned = values.clamp(min=0), vectors.T @ (wanted - bias)
    strengths = [penalty * x.shape[1] for penalty in PENALTIES]

    def left_out(strength: float) -> float:
        kept = values / (values + strength)
        errors = wanted - bias - vectors @ (kept[:, None] * turned)
        leverage = 1 / len(x) + vectors.square() @ kept
        return float((errors / (1 - leverage)[:, None]).square().sum())

    best = min(range(len(PENALTIES)), key=lambda i: left_out(strengths[i]))
    weights = x.T @ (vectors @ (turned / (values + strengths[best])[:, None]))
    return Probe(mean, std, weights, bias, PENALTIES[best])


@torch.no_grad()
def stage_rows(model: Network, batches: Iterable[Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """By stage the rows ``(N, D)`` of all images, as :func:`pooled` has them; ``N * D * 4`` bytes each."""
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    for images in batches:
        for name, maps in features(model, images, names).items():
            found[name].append(pooled(maps))
    return {name: torch.cat(rows) for name, rows in found.items()}


def find(subject: Subject) -> Iterator[Finding]:
    """One chart: the probe's error by depth, beside the network's own."""
    from convarium.console import counting

    fitted_on, judged_on = _parts(subject)
    model, names = subject.run.model, depths(subject.run.model, subject.stage)
    positions = np.concatenate([fitted_on, judged_on])
    batches = (images for _, images in counted_batches(subject, positions, "reading features"))
    rows = stage_rows(model, batches, [*names, LOGITS])
    labels, count = torch.from_numpy(subject.labels[positions]), len(fitted_on)
    truth = labels[count:]
    own = _error_percent(rows.pop(LOGITS)[count:], truth)
    errors, penalties = {}, {}
    with counting("fitting", len(names)) as tick:
        for done, name in enumerate(names, 1):
            probe = fit(rows[name][:count], labels[:count], len(subject.run.class_names))
            errors[name] = _error_percent(probe(rows.pop(name)[count:]), truth)
            penalties[name] = probe.penalty
            tick(done)
    commonest = float(truth.bincount().max())
    blind = 100 * (1 - commonest / len(truth))
    numbers = {
        "fitted_on_images": count, "judged_on_images": len(truth), "error_percent": errors, "penalty": penalties,
        "network_error_percent": own, "one_class_always_error_percent": blind,
    }  # fmt: skip
    yield Finding("depth", _draw(errors, own, blind), _say(errors, own, count, len(truth)), numbers)


def _parts(subject: Subject) -> tuple[np.ndarray, np.ndarray]:
    """Positions to fit on, of the training images, and to judge on: those asked for that are not training images."""
    assert subject.dataset is not None
    train = subject.dataset.positions("train")
    judged_on = np.setdiff1d(subject.positions, train)
    if not len(judged_on):
        raise DoesNotApply("probe is fitted on training images and judged on others: --split held-out")
    return spread(subject.labels, train, FIT_IMAGES), judged_on


def _error_percent(scores: Tensor, truth: Tensor) -> float:
    return round(100 * float((scores.argmax(1) != truth).double().mean()), 4)


def _say(errors: dict[str, float], own: float, fitted: int, judged: int) -> str:
    first, best = next(iter(errors)), min(errors, key=lambda name: errors[name])
    said = f"a linear probe errs on {errors[first]:.1f} % at {first}"
    if best != first:
        said += f" and on {errors[best]:.1f} % at {best}, its best"
    return f"{said}; the network itself on {own:.1f} % (fitted on {fitted:,} training images, {judged:,} judged)"


def _draw(errors: dict[str, float], own: float, blind: float) -> Figure:
    names = list(errors)
    figure, axes = new_figure(min(9.6, max(5.5, 0.6 * len(names) + 2.5)), 3.4)
    axes.axhline(blind, color=COLOURS[-1], linestyle=":", label="always one class")
    axes.axhline(own, color=COLOURS[1], linestyle="--", label="the network itself")
    axes.plot(range(len(names)), list(errors.values()), "o-", color=COLOURS[0], label="linear probe")
    for i, error in enumerate(errors.values()):
        aside = -15 if error > blind / 2 else 7  # away from the two straight lines
        axes.annotate(
            f"{error:.1f}", (i, error), xytext=(0, aside), textcoords="offset points", ha="center", color=INK,
            fontsize=9 if len(names) < 12 else 7,
        )  # fmt: skip
    long = sum(map(len, names)) > 60
    axes.set_xticks(range(len(names)), [plain(name) for name in names], rotation=40 if long else 0)
    axes.set(ylabel="top-1 error, %", ylim=(0, 1.05 * max(blind, *errors.values())), xlabel="depth")
    figure.legend(loc="outside upper center", ncols=3, frameon=False, labelcolor=INK, fontsize=9)
    return figure
