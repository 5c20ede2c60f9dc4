"""Where attention looks: the soft masks of F. Wang et al., "Residual Attention Network for Image Classification", CVPR
2017, Fig. 1, and masks over places that were put into any network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convarium.attention import HardMask, SpatialMask
from convarium.explanation.figures import grey, show
from convarium.explanation.hooks import Look, looking
from convarium.explanation.subject import DoesNotApply, Finding, Subject
from convarium.network import Network
from convarium.networks.residual_attention import AttentionModule
from convarium.report.figures import INK, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_DRAWN = 6


def masks_of(model: nn.Module) -> dict[str, nn.Module]:
    """Path and module of everything that lays a mask over places."""
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, AttentionModule | SpatialMask | HardMask)
    }


@torch.no_grad()
def soft_masks(model: Network, images: Tensor) -> dict[str, Tensor]:
    """What each mask of a network is for some images.

    Args:
        model: in evaluation mode.
        images: ``(N, C, H, W)``, preprocessed.

    Returns:
        By path ``(N, h, w)`` on the module's own map, the mean over channels; in order of depth.
    """
    found: dict[str, Tensor] = {}

    def look(path: str, mask: Callable[[Tensor], Tensor]) -> Look:
        return lambda _, scores: found.update({path: mask(scores).mean(1)})

    parts = {path: _mask(module) for path, module in masks_of(model).items()}
    with looking({part: look(path, mask) for path, (part, mask) in parts.items()}):
        model(images)
    return {path: found[path] for path in parts}


def _mask(module: nn.Module) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """The part of a module that gives the scores, and what makes the mask of them."""
    if isinstance(module, AttentionModule):
        return module.mask.scores, module.normalise  # type: ignore[return-value]
    if isinstance(module, SpatialMask):
        return module.score, module.gate
    assert isinstance(module, HardMask)
    return module.score, lambda score: (torch.sigmoid(score) > 0.5).to(score)


def find(subject: Subject) -> Iterator[Finding]:
    """The masks of every picture."""
    run, stage = subject.run, subject.stage
    paths = [path for path in masks_of(run.model) if stage in (None, path.split(".")[1])]
    if not paths:
        where = f"stage {stage} of {run.model.name}" if stage else run.model.name
        raise DoesNotApply(
            f"{where} lays no masks over places: train a network that does (convarium list 'attention*'), or put them "
            "in with insert_attention(model, 'spatial')"
        )
    drawn = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, MOST_DRAWN).round().astype(int))]
    for picture in subject.pictures:
        masks = {path: mask[0].numpy() for path, mask in soft_masks(run.model, picture.x).items()}
        numbers = {path: _numbers(masks[path]) for path in paths}
        last = _enlarged(masks[paths[-1]], picture.seen.shape[:2])
        figure = _draw(picture.seen, {path: masks[path] for path in drawn})
        yield Finding(picture.name, figure, _say(numbers), numbers, last)


def _enlarged(mask: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    return F.interpolate(torch.from_numpy(mask)[None, None], size, mode="bilinear", align_corners=False)[0, 0].numpy()


def _numbers(mask: np.ndarray) -> dict[str, float]:
    ways = {"mean": mask.mean(), "smallest": mask.min(), "largest": mask.max()}
    return {way: round(float(value), 6) for way, value in ways.items()}


def _say(numbers: dict[str, dict[str, float]]) -> str:
    widest = max(numbers, key=lambda path: numbers[path]["largest"] - numbers[path]["smallest"])
    low, high = numbers[widest]["smallest"], numbers[widest]["largest"]
    return f"masks, each in its own range of colours; {_short(widest)} tells places apart most: {low:.2f} to {high:.2f}"


def _short(path: str) -> str:
    return path.removeprefix("stages.").removesuffix(".attention")


def _draw(seen: np.ndarray, masks: dict[str, np.ndarray]) -> Figure:
    """The image, and each mask over its grey form: from dark, the mask's least, to yellow, its largest."""
    columns = 1 + len(masks)
    across = columns if columns <= 4 else -(-columns // 2)
    figure, axes = new_figure(2.2 * across, 2.1 * -(-columns // across), across, -(-columns // across), squeeze=False)
    for panel in axes.flat:
        panel.set_axis_off()
    show(axes.flat[0], seen, "what the network sees")
    for panel, (path, mask) in zip(axes.flat[1:], masks.items(), strict=False):
        low, high = float(mask.min()), float(mask.max())
        show(panel, grey(seen))
        shades = panel.imshow(
            _enlarged(mask, seen.shape[:2]), cmap="cividis", vmin=low, vmax=max(high, low + 1e-3), alpha=0.75
        )
        panel.set_title(plain(_short(path)), fontsize=9)
        bar = figure.colorbar(shades, ax=panel, shrink=0.75, ticks=[low, high], format="%.2f")
        bar.ax.tick_params(colors=INK, labelsize=8)
        bar.outline.set_visible(False)
    return figure
