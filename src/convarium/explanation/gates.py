"""What gates multiply by, by class and depth: J. Hu, L. Shen, S. Albanie, G. Sun, E. Wu, "Squeeze-and-Excitation
Networks", TPAMI 2020 (the journal form), Section 7.2, Figs. 6 and 7.

A gate is whatever stands in a network's slot ``attention``: it is known by what it gives for what it gets, so that a
gate over channels, a mask over places, a scale and a gate of one's own are read alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convarium.explanation.features import counted_batches
from convarium.explanation.gates_figures import draw_channels, draw_depth
from convarium.explanation.hooks import Look, looking
from convarium.explanation.subject import DoesNotApply, Finding, Subject
from convarium.network import Network

MOST_DRAWN = 6


@dataclass(frozen=True)
class Gate:
    """Factors of one gate over a set of images.

    Attributes:
        path: of the module.
        class_means: ``(classes, C)``, the mean factor of each channel over the images of a class; NaN for a class
            without images, and for a channel that was 0 in all of them, where no factor can be told.
        means: ``(C,)``, over all images.
        within: ``(C,)``, variance over the images of a class, the classes put together.
        variances: ``(C,)``, over all images.
    """

    path: str
    class_means: np.ndarray
    means: np.ndarray
    within: np.ndarray
    variances: np.ndarray

    @property
    def stage(self) -> str:
        return self.path.split(".")[1]

    @property
    def name(self) -> str:
        """Its path without what all paths share."""
        return self.path.removeprefix("stages.").removesuffix(".attention")

    @property
    def between_share(self) -> float:
        """Part of the variance over images that is the classes', 0 to 1; 0 also for a gate that never moves.

        Variances are divided by their degrees of freedom, so that classes drawn at random give about 0 (epsilon
        squared; T. Kelley, 1935), and are summed over channels.
        """
        told = np.isfinite(self.within)
        total = float(self.variances[told].sum())
        return max(0.0, 1 - float(self.within[told].sum()) / total) if total > 0 else 0.0

    @property
    def movement(self) -> float:
        """How far from a constant for each channel: standard deviation over images, root mean square over channels."""
        told = np.isfinite(self.variances)
        return float(np.sqrt(self.variances[told].mean())) if told.any() else 0.0


def factors(x: Tensor, y: Tensor) -> Tensor:
    """By what a gate multiplied each channel: ``(N, C)`` from what it got and gave, ``(N, C, H, W)`` both.

    It is the number by which ``x`` comes nearest to ``y``: exact for a gate over channels and for a scale, for a mask
    over places its mean weighted by squared activation. NaN where a channel is 0 and no factor can be told.
    """
    return (x * y).sum((2, 3)) / x.square().sum((2, 3))


class _Sums:
    """Running sums of factors by class, in float64: memory for ``classes x channels`` numbers, however many images."""

    def __init__(self, classes: int, channels: int) -> None:
        self.counts, self.sums = np.zeros((2, classes, channels))
        self.squares = np.zeros(channels)

    def add(self, factors: np.ndarray, labels: np.ndarray) -> None:
        told = np.isfinite(factors)
        factors = np.where(told, factors, 0.0)
        np.add.at(self.counts, labels, told)
        np.add.at(self.sums, labels, factors)
        self.squares += np.square(factors).sum(0)

    def gate(self, path: str) -> Gate:
        with np.errstate(divide="ignore", invalid="ignore"):
            class_means = self.sums / self.counts
            count, classes = self.counts.sum(0), (self.counts > 0).sum(0)
            means = self.sums.sum(0) / count
            around = self.squares - count * means**2
            between = np.where(self.counts > 0, self.counts * (class_means - means) ** 2, 0.0).sum(0)
            # Factors are quotients in float32: what moves by less than a millionth of them is rounding.
            total, inside = (np.where(part > 1e-12 * self.squares, part, 0.0) for part in (around, around - between))
            return Gate(path, class_means, means, inside / (count - classes), total / (count - 1))


def gates_of(model: nn.Module) -> dict[str, nn.Module]:
    """Path and module of every gate: what is called ``attention``, where it is not the empty slot."""
    return {
        path: module
        for path, module in model.named_modules()
        if path.rpartition(".")[2] == "attention" and not isinstance(module, nn.Identity)
    }


@torch.no_grad()
def gate_statistics(
    model: Network, batches: Iterable[tuple[np.ndarray, Tensor]], labels: np.ndarray, classes: int | None = None
) -> list[Gate]:
    """Statistics of every gate of a network, in order of depth.

    Args:
        model: in evaluation mode.
        batches: positions ``(N,)`` in ``labels``, and images ``(N, C, S, S)``, preprocessed.
        labels: class positions.
        classes: how many classes; as many as ``labels`` name when not given.

    Returns:
        One :class:`Gate` for each of :func:`gates_of`; none for a network without gates.
    """
    seen: dict[str, np.ndarray] = {}  # of the batch in work
    sums: dict[str, _Sums] = {}

    def look(path: str) -> Look:
        return lambda x, y: seen.update({path: factors(x, y).double().numpy()})

    with looking({module: look(path) for path, module in gates_of(model).items()}):
        for positions, images in batches:
            model(images)
            for path, each in seen.items():
                if path not in sums:
                    sums[path] = _Sums(classes or int(labels.max()) + 1, each.shape[1])
                sums[path].add(each, labels[positions])
    return [each.gate(path) for path, each in sums.items()]


def find(subject: Subject) -> Iterator[Finding]:
    """Factors by channel and class for some gates, and by depth for all."""
    run, stage = subject.run, subject.stage
    paths = [path for path in gates_of(run.model) if stage in (None, path.split(".")[1])]
    if not paths:
        where = f"stage {stage} of {run.model.name}" if stage else run.model.name
        raise DoesNotApply(
            f"{where} has no gates: train a network that has some (convarium list 'se_*'), or put them in with "
            "insert_attention(model, 'se')"
        )
    labels = subject.labels[subject.positions]
    if (np.bincount(labels) > 1).sum() < 2:
        raise DoesNotApply("gates compares classes: it needs two with two images or more each (a larger --limit helps)")
    batches = counted_batches(subject, subject.positions, "reading gates")
    statistics = gate_statistics(run.model, batches, subject.labels, len(run.class_names))
    gates = [gate for gate in statistics if gate.path in paths]
    drawn = _drawn(gates)
    yield Finding("channels", draw_channels(drawn, run.class_names), _say_channels(drawn), _channels(drawn))
    numbers = {"images": len(labels), "gates": [_numbers(gate) for gate in gates]}
    yield Finding("depth", draw_depth(gates), _say_depth(gates), numbers)


def _drawn(gates: Sequence[Gate]) -> list[Gate]:
    """The last gate of each stage, and some of those where there are many."""
    last = list({gate.stage: gate for gate in gates}.values())
    return [last[i] for i in np.unique(np.linspace(0, len(last) - 1, MOST_DRAWN).round().astype(int))]


def _channels(drawn: Sequence[Gate]) -> dict[str, Any]:
    return {gate.path: [round(float(mean), 4) if np.isfinite(mean) else None for mean in gate.means] for gate in drawn}


def _numbers(gate: Gate) -> dict[str, Any]:
    return {
        "path": gate.path,
        "channels": len(gate.means),
        "mean": round(float(np.nanmean(gate.means)), 6),
        "spread_over_channels": round(float(np.nanstd(gate.means)), 6),
        "movement": round(gate.movement, 6),
        "between_class_share_percent": round(100 * gate.between_share, 4),
    }


def _say_channels(drawn: Sequence[Gate]) -> str:
    paths = ", ".join(gate.name for gate in drawn)
    return f"mean factor of each channel at {paths}: the closer the lines, the less the gate heeds the class"


def _say_depth(gates: Sequence[Gate]) -> str:
    first, last, still = gates[0], gates[-1], min(gates, key=lambda gate: gate.movement)
    said = f"the classes make up {100 * first.between_share:.0f} % of the factors' variance at {first.name}"
    if last is not first:
        said += f" and {100 * last.between_share:.0f} % at {last.name}"
    return (
        f"{said}; nearest to a constant is {still.name}, whose factors move by {still.movement:.3g} from image to "
        f"image around a mean of {np.nanmean(still.means):.3g}: constants would replace it at the least cost"
    )
