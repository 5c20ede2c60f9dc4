"""How much of the loss's gradient reaches each layer: what deep plain networks were said to lose on the way down
(X. Glorot, Y. Bengio, AISTATS 2010, Section 4; K. He et al., CVPR 2016, Section 4.1)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from convarium.console import counting
from convarium.explanation.moments import first_and_last, moment, moment_colours
from convarium.explanation.subject import BATCH, Finding, Subject, spread
from convarium.network import Network
from convarium.report.figures import INK, new_figure
from convarium.snapshots import history, moments

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Gradient:
    """At one place: the weights of a convolution or dense layer, or the map that a stage gives.

    Attributes:
        name: the layer's path, or the stage's name.
        of: what the gradient is with respect to.
        depth: layers that had worked until here, this one counted.
        norm: of the gradient of the mean loss over the batch.
    """

    name: str
    of: Literal["weights", "map"]
    depth: int
    norm: float


def gradient_flow(model: Network, images: Tensor, labels: Tensor, loss: Loss = F.cross_entropy) -> list[Gradient]:
    """The gradient's norm at every layer and stage, in the order in which they work.

    Batch norm takes the statistics of the batch, as in training, and dropout lets everything pass. ``model`` itself is
    not changed.

    Args:
        model: a network.
        images: ``(N, C, H, W)``, preprocessed, of the network's type; float64 tells a gradient that vanishes from one
            that is rounded to zero.
        labels: ``(N,)`` class positions.
        loss: of logits and labels, a scalar.
    """
    model = copy.deepcopy(model).requires_grad_(True).eval()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.train()
    worked: list[tuple[str, Literal["weights", "map"], Tensor]] = []

    def after_layer(name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda layer, _x, _y: worked.append((name, "weights", layer.weight)))

    def after_stage(name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda _stage, _x, y: worked.append((name, "map", y)))

    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            after_layer(path.removeprefix("stages."), module)
    for name, stage in model.stages.items():
        after_stage(name, stage)
    with torch.enable_grad():
        value = loss(model(images), labels)
        gradients = torch.autograd.grad(value, [tensor for *_, tensor in worked], allow_unused=True)
    rows, depth = [], 0
    for (name, of, _), gradient in zip(worked, gradients, strict=True):
        depth += of == "weights"
        rows.append(Gradient(name, of, depth, 0.0 if gradient is None else gradient.double().norm().item()))
    return rows


def find(subject: Subject) -> Iterator[Finding]:
    """The gradient by depth before training, at every snapshot, and as the run has it."""
    assert subject.dataset is not None
    run = subject.run
    positions, images = next(subject.batches(spread(subject.labels, subject.positions, BATCH)))
    labels = torch.from_numpy(subject.labels[positions])
    found: dict[str, list[Gradient]] = {}
    with counting("epochs", len(moments(run))) as tick:
        for epoch, network in history(run):
            found[moment(epoch)] = gradient_flow(network, images, labels)
            tick(len(found))
    says = (
        f"the norm of the loss's gradient over {len(images)} images of {subject.dataset.name}, from the first layer of "
        f"{run.model.name} to the last: {_told(found)}"
    )
    numbers = {label: [asdict(row) for row in rows] for label, rows in found.items()}
    yield Finding("by-depth", _figure(found), says, numbers)


def fall(rows: list[Gradient]) -> float:
    """The gradient at the first layer's weights over that at the last layer's, the classifier left out."""
    norms = [row.norm for row in rows if row.of == "weights"][:-1]
    return norms[0] / norms[-1] if len(norms) > 1 and norms[-1] else float("nan")


def _told(found: Mapping[str, list[Gradient]]) -> str:
    ratios = [
        f"{label}, the first has {fall(found[label]):.2g} times that of the last" for label in first_and_last(found)
    ]
    return f"{'; '.join(ratios)} before the classifier"


def _figure(found: Mapping[str, list[Gradient]]) -> Figure:
    """At the weights of each layer, and at the map of each stage, a line per moment."""
    figure, (left, right) = new_figure(10, 3.6, columns=2, sharey=False)
    for (label, rows), colour in zip(found.items(), moment_colours(len(found)), strict=True):
        draw(left, rows, "weights", color=colour, label=label)
        draw(right, rows, "map", color=colour, label=label, marker="o", markersize=4)
    left.set(title="gradient at the weights", xlabel="layer, in order of work", ylabel="norm")
    right.set(title="gradient at the map of each stage", xlabel="layers so far")
    right.legend(frameon=False, labelcolor=INK, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def draw(axes: Any, rows: list[Gradient], of: Literal["weights", "map"], **style: Any) -> None:
    """A line of norms over depth, on a logarithmic scale; what is exactly zero is left out."""
    kept = [row for row in rows if row.of == of and row.norm > 0]
    axes.plot([row.depth for row in kept], [row.norm for row in kept], linewidth=1.4, **style)
    axes.set_yscale("log")
    axes.tick_params(which="minor", colors=INK)
    axes.xaxis.get_major_locator().set_params(integer=True)
