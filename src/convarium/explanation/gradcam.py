"""Grad-CAM: R. Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
ICCV 2017, Section 3, Eqs. 1 and 2."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from convarium.explanation.figures import heat_figure
from convarium.explanation.subject import Finding, Subject
from convarium.network import Network
from convarium.report.figures import plain

SMALLEST_MAP = 4  # pixels a side: a coarser map says nothing about where


def grad_cam(model: Network, images: Tensor, targets: Tensor | None = None, stage: str | None = None) -> Tensor:
    """Where the evidence for a class lies, by the gradients at one stage.

    Args:
        model: in evaluation mode.
        images: ``(N, C, H, W)``, preprocessed.
        targets: ``(N,)`` class positions; the predicted ones when not given.
        stage: a stage's name; :func:`coarsest_stage` when not given.

    Returns:
        ``(N, H, W)`` in 0..1, the largest value of each image at 1; all zeros where nothing speaks for the class.

    Raises:
        UsageError: a stage that does not exist.
    """
    with torch.enable_grad():
        # The image asks for the gradient, so that frozen weights change nothing.
        last, (maps,) = model.forward_intermediates(
            images.detach().requires_grad_(), [stage or coarsest_stage(model, images)]
        )
        logits = model.forward_head(last)
        chosen = logits.argmax(1) if targets is None else targets
        (gradients,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), maps)
    weights = gradients.mean((2, 3), keepdim=True)
    heat = F.relu((weights * maps).sum(1, keepdim=True)).detach()
    heat = F.interpolate(heat, images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    return heat / heat.amax((1, 2), keepdim=True).clamp(min=torch.finfo(heat.dtype).tiny)


def coarsest_stage(model: Network, images: Tensor) -> str:
    """The last stage whose map is at least 4x4, or the first stage when none is."""
    shapes = model.stage_shapes(images.shape[1:])
    wide = [name for name, shape in shapes.items() if min(shape[1:]) >= SMALLEST_MAP]
    return wide[-1] if wide else next(iter(shapes))


def find(subject: Subject) -> Iterator[Finding]:
    """A heat map per picture, for the class and at the stage asked for."""
    run = subject.run
    for picture in subject.pictures:
        target = subject.target(picture)
        stage = subject.stage or coarsest_stage(run.model, picture.x)
        heat = grad_cam(run.model, picture.x, torch.tensor([target]), stage)[0].numpy()
        name = run.class_names[target]
        title = f"evidence for {plain(name)!r} at {stage}"
        figure = heat_figure(picture.seen, heat, run.class_names, picture.logits.softmax(0).numpy(), name, title)
        says = f"evidence for {name} at {stage}: the redder, the more this place speaks for the class"
        yield Finding(picture.name, figure, says, {"class": name, "stage": stage}, heat)
