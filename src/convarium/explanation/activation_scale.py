"""How large the activations before the pooling are, over a training: what residual nets of more than 1,000 filters lost
when nothing scaled their residuals (C. Szegedy et al., AAAI 2017, Section 3.3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from convarium.console import counting
from convarium.explanation.moments import first_and_last, moment
from convarium.explanation.subject import Finding, Subject
from convarium.network import Network
from convarium.report.figures import COLOURS, INK, new_figure
from convarium.snapshots import history, moments

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Scale:
    """Of a map's values: their mean, their standard deviation, how many in a hundred are exactly zero, and how many of
    a hundred channels are zero on every image."""

    mean: float
    std: float
    zero_percent: float
    silent_percent: float

    def told(self) -> str:
        return (
            f"{self.mean:.3g} on average with a deviation of {self.std:.3g}, {self.zero_percent:.0f} % zero and "
            f"{self.silent_percent:.0f} % of the channels silent"
        )


def activation_scale(maps: Iterable[Tensor]) -> Scale:
    """Over maps ``(N, C, h, w)``, batch by batch."""
    count, total, squares, zeros, silent = 0, 0.0, 0.0, 0, torch.tensor(True)
    for batch in maps:
        values = batch.detach().double()
        count, total = count + values.numel(), total + values.sum().item()
        squares, zeros = squares + values.square().sum().item(), zeros + int((values == 0).sum())
        silent = silent & (values == 0).all(3).all(2).all(0)
    mean = total / count
    std = max(0.0, squares / count - mean**2) ** 0.5
    return Scale(mean, std, 100 * zeros / count, 100 * silent.double().mean().item())


def find(subject: Subject) -> Iterator[Finding]:
    """The last map before training, at every snapshot, and as the run has it."""
    assert subject.dataset is not None
    run = subject.run
    scales: dict[str, Scale] = {}
    with counting("epochs", len(moments(run))) as tick:
        for epoch, network in history(run):
            scales[moment(epoch)] = activation_scale(_last_maps(network, subject))
            tick(len(scales))
    stage = list(run.model.stages)[-1]
    says = (
        f"the map of {stage}, which the head reads, over {len(subject.positions)} images of {subject.dataset.name}: "
        + "; ".join(f"{label}, {scales[label].told()}" for label in first_and_last(scales))
    )
    yield Finding("last-map", _figure(scales), says, {label: asdict(scale) for label, scale in scales.items()})


def _last_maps(network: Network, subject: Subject) -> Iterator[Tensor]:
    with torch.inference_mode():
        for _, images in subject.batches(subject.positions):
            yield network.forward_features(images)


def _figure(scales: Mapping[str, Scale]) -> Figure:
    figure, (left, right) = new_figure(9, 3.2, columns=2)
    labels = [label.removeprefix("after ") for label in scales]
    rows = list(scales.values())
    left.plot(labels, [scale.mean for scale in rows], color=COLOURS[0], marker="o", label="mean")
    left.plot(labels, [scale.std for scale in rows], color=COLOURS[5], marker="o", label="standard deviation")
    left.set(title="values of the last map", ylim=(0, None))
    right.plot(labels, [scale.zero_percent for scale in rows], color=COLOURS[0], marker="o", label="values")
    right.plot(labels, [scale.silent_percent for scale in rows], color=COLOURS[5], marker="o", label="channels")
    right.set(title="zero, % (a channel: on every image)", ylim=(-2, 102))
    for axes in (left, right):
        axes.tick_params("x", rotation=30)
        axes.legend(frameon=False, labelcolor=INK)
    return figure
