"""Maps of the image's own gradient: plain, guided, and integrated along a path.

K. Simonyan, A. Vedaldi and A. Zisserman, "Deep Inside Convolutional Networks", ICLR Workshop 2014, Section 3; J.
Springenberg et al., "Striving for Simplicity", ICLR Workshop 2015, Section 3.4; M. Sundararajan, A. Taly and Q. Yan,
"Axiomatic Attribution for Deep Networks", ICML 2017, Section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from convarium.console import counting
from convarium.errors import UsageError
from convarium.explanation.backward_rules import backward_rules
from convarium.explanation.backward_rules import guided as guided_rule
from convarium.explanation.figures import show, show_classes, show_heat, show_signed, stretched
from convarium.explanation.subject import Finding, Picture, Subject
from convarium.network import Network
from convarium.report.figures import new_figure, plain
from convarium.runs import Run

STEPS = 64  # of the path
PIXELS_AT_ONCE = 8 * 224 * 224  # of all points of a path that go through the network together


def gradient(model: Network, images: Tensor, targets: Tensor | None = None) -> Tensor:
    """The gradient of a class's logit with respect to the image (Simonyan et al.).

    Args:
        model: in evaluation mode.
        images: ``(N, C, H, W)``, preprocessed.
        targets: ``(N,)`` class positions; the predicted ones when not given.

    Returns:
        ``(N, C, H, W)``.
    """
    with torch.enable_grad():
        x = images.detach().requires_grad_()
        logits = model(x)
        chosen = logits.argmax(1) if targets is None else targets
        return torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), x)[0]


def guided(model: Network, images: Tensor, targets: Tensor | None = None) -> Tensor:
    """As :func:`gradient`, but every ReLU lets through only what is positive both up and down (Springenberg et al.)."""
    with backward_rules(relu=guided_rule):
        return gradient(model, images, targets)


def integrated_gradients(
    model: Network,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    baseline: Tensor | float = 0.0,
    steps: int = STEPS,
    tick: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """The gradient of a class's logit along the straight way from a baseline to the image, times the way (Sundararajan
    et al., Eq. 1), at the points and weights of Gauss and Legendre.

    Args:
        model: in evaluation mode.
        images: ``(N, C, H, W)``, preprocessed.
        targets: ``(N,)`` class positions; the predicted ones when not given.
        baseline: the image of no evidence, as ``images`` or a number; 0 is the mean that was subtracted, a grey.
        steps: points on the way.
        tick: is told how many points are done.

    Returns:
        ``(N, C, H, W)``; each image's sum is the logit less the baseline's, the nearer the more ``steps``.

    Raises:
        UsageError: no step.
    """
    if steps < 1:
        raise UsageError(f"integrated gradients need 1 step or more; got {steps}")
    if targets is None:
        with torch.no_grad():
            targets = model(images).argmax(1)
    points, weights = (torch.from_numpy(each).to(images) for each in np.polynomial.legendre.leggauss(steps))
    way = images - baseline
    total, batch, done = torch.zeros_like(images), max(1, PIXELS_AT_ONCE // images[0, 0].numel()), 0
    for place, (image, target) in enumerate(zip(images, targets, strict=True)):
        for some, their in zip(points.split(batch), weights.split(batch), strict=True):
            # Gauss and Legendre's points lie in -1..1; those of the way, counted back from the image, in 0..1.
            along = image - way[place] * (1 - some.view(-1, 1, 1, 1)) / 2
            slopes = gradient(model, along, target.expand(len(some)))
            total[place] += (slopes * their.view(-1, 1, 1, 1) / 2).sum(0)
            tick(done := done + len(some))
    return way * total


def strongest_channel(signal: Tensor) -> Tensor:
    """``(N, C, H, W)`` to ``(N, H, W)``: the largest size over the channels (Simonyan et al., Section 3.1)."""
    return signal.abs().amax(1)


# -- what explain shows ------------------------------------------------------------------------------------------


def find_gradient(subject: Subject) -> Iterator[Finding]:
    """The plain gradient of each picture."""
    return _find(subject, gradient, "gradient", "the redder, the more a small change of this pixel would change {}")


def find_guided(subject: Subject) -> Iterator[Finding]:
    """Guided backpropagation for each picture."""
    says = "the redder, the more this pixel does for {} by ways that are positive both up and down"
    return _find(subject, guided, "guided backpropagation", says)


def _find(subject: Subject, method: Callable[..., Tensor], title: str, says: str) -> Iterator[Finding]:
    for picture in subject.pictures:
        target = subject.target(picture)
        name = subject.run.class_names[target]
        signal = method(subject.run.model, picture.x, torch.tensor([target]))
        heat = strongest_channel(signal)[0].numpy()
        figure, (seen, as_picture, over, classes) = new_figure(11, 2.9, columns=4)
        show(seen, picture.seen, "what the network sees")
        show(as_picture, stretched(signal[0].permute(1, 2, 0).numpy()), f"{title}; grey is 0")
        show_heat(over, picture.seen, clipped(heat), "its size")
        show_classes(classes, subject.run.class_names, picture.logits.softmax(0).numpy(), name)
        yield Finding(picture.name, figure, says.format(name), {"class": name}, heat)


def clipped(heat: np.ndarray) -> np.ndarray:
    """In 0..1, full at all but the largest hundredth."""
    return np.clip(heat / (float(np.quantile(heat, 0.99)) or float(heat.max()) or 1.0), 0, 1)


def find_integrated(subject: Subject) -> Iterator[Finding]:
    """Integrated gradients from mean grey for each picture, and how completely they add up."""
    for picture in subject.pictures:
        target = subject.target(picture)
        with counting(f"on the way to {picture.name}", STEPS) as tick:
            given = integrated_gradients(subject.run.model, picture.x, torch.tensor([target]), tick=tick)
        yield _integrated(subject.run, picture, target, given[0])


def _integrated(run: Run, picture: Picture, target: int, given: Tensor) -> Finding:
    name, heat = run.class_names[target], given.sum(0).numpy()
    with torch.no_grad():
        grey = float(run.model(torch.zeros_like(picture.x))[0, target])
    logit, total = float(picture.logits[target]), float(heat.sum())
    numbers = {"class": name, "logit": logit, "logit_of_baseline": grey, "sum": total, "steps": STEPS}
    says = (
        f"red speaks for {name}, blue against it, beside an image all of mean grey; the parts add up to {total:.2f} of "
        f"the logit's {logit - grey:.2f} ({STEPS} steps)"
    )
    return Finding(picture.name, _draw_integrated(run, picture, heat, name), says, numbers, heat)


def _draw_integrated(run: Run, picture: Picture, heat: np.ndarray, name: str) -> Figure:
    figure, (left, middle, right) = new_figure(8.4, 2.9, columns=3)
    show(left, picture.seen, "what the network sees")
    show_signed(middle, picture.seen, heat, f"for {plain(name)!r} red, against it blue")
    show_classes(right, run.class_names, picture.logits.softmax(0).numpy(), name)
    return figure
