"""Whether a map names the pixels that matter: V. Petsiuk, A. Das and K. Saenko, "RISE: Randomized Input Sampling for
Explanation of Black-box Models", BMVC 2018, Section 4.3. Pixels are taken out of the image, or put into a blurred one,
those that a map calls strongest first; the class's probability should fall, or rise, at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from convarium.console import counting
from convarium.explanation import occlusion
from convarium.explanation.gradcam import grad_cam
from convarium.explanation.gradients import gradient, guided, integrated_gradients, strongest_channel
from convarium.explanation.subject import Finding, Picture, Subject
from convarium.network import Network
from convarium.report.figures import COLOURS, INK, new_figure

Attribution = Callable[[Network, Tensor, Tensor], Tensor]  # network, images, targets -> (N, H, W)

# The maps that are compared, by the name of their method.
ATTRIBUTIONS: dict[str, Attribution] = {
    "gradcam": grad_cam,
    "occlusion": occlusion.heat,
    "gradient": lambda model, images, targets: strongest_channel(gradient(model, images, targets)),
    "guided": lambda model, images, targets: strongest_channel(guided(model, images, targets)),
    "integrated": lambda model, images, targets: integrated_gradients(model, images, targets).sum(1),
}
RANDOM, DRAWS = "random", 3  # maps of noise, and how many of them for each picture
STEPS = 20  # of equal parts of the pixels
BLUR = 1 / 10  # of the side, the standard deviation: twice the paper's, since small letters outlive that
IMAGES_AT_ONCE = 16


def deletion(model: Network, image: Tensor, target: int, heat: np.ndarray, steps: int = STEPS) -> np.ndarray:
    """The class's probability as pixels become the mean that was subtracted, a grey, the strongest in ``heat`` first.

    Args:
        model: in evaluation mode.
        image: ``(1, C, H, W)``, preprocessed.
        target: the class's position.
        heat: ``(H, W)``; equal pixels come in an order drawn once for all.
        steps: how many equal parts of the pixels.

    Returns:
        ``(steps + 1,)``, with no pixel taken first and all of them last.
    """
    return _replacing(model, image, torch.zeros_like(image), target, heat, steps)


def insertion(model: Network, image: Tensor, target: int, heat: np.ndarray, steps: int = STEPS) -> np.ndarray:
    """As :func:`deletion`, but pixels of the image are put into a blurred one."""
    return _replacing(model, blurred(image), image, target, heat, steps)


def area(curve: np.ndarray) -> float:
    """Under a curve over 0..1, by trapezoids: the mean probability on the way."""
    return float((curve[1:] + curve[:-1]).mean() / 2)


def blurred(image: Tensor) -> Tensor:
    """Smoothed by a Gauss filter, the edge's pixels going on outside."""
    sigma = max(1.0, BLUR * image.shape[3])
    reach = min(round(2 * sigma), min(image.shape[2:]) - 1)
    weights = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2))
    weights = (weights / weights.sum()).to(image).expand(image.shape[1], 1, -1)
    x = F.pad(image, (reach,) * 4, mode="replicate")
    x = F.conv2d(x, weights[:, :, None], groups=image.shape[1])
    return F.conv2d(x, weights[..., None], groups=image.shape[1])


def _replacing(model: Network, begin: Tensor, end: Tensor, target: int, heat: np.ndarray, steps: int) -> np.ndarray:
    """The class's probability while ``begin`` becomes ``end``, pixel by pixel."""
    flat = heat.ravel()
    rank = np.empty(flat.size, dtype=np.int64)
    rank[np.lexsort((np.random.default_rng(0).random(flat.size), -flat))] = np.arange(flat.size)
    counts = torch.linspace(0, flat.size, steps + 1).round().view(-1, 1, 1, 1)
    taken = torch.from_numpy(rank).view(heat.shape) < counts
    with torch.no_grad():
        parts = [model(torch.where(some, end, begin)).softmax(1)[:, target] for some in taken.split(IMAGES_AT_ONCE)]
    return torch.cat(parts).numpy()


# -- what explain shows ------------------------------------------------------------------------------------------


def find(subject: Subject) -> Iterator[Finding]:
    """Both curves of every map, averaged over the pictures, beside those of noise."""
    curves: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in (*ATTRIBUTIONS, RANDOM)}
    with counting("judging maps", len(subject.pictures) * len(curves)) as tick:
        for picture in subject.pictures:
            for name in curves:
                curves[name].append(_curves(subject.run.model, picture, subject.target(picture), name))
                tick(sum(map(len, curves.values())))
    mean = {name: tuple(np.mean(each, axis=0)) for name, each in curves.items()}
    areas = {name: {"deletion": area(out), "insertion": area(into)} for name, (out, into) in mean.items()}
    best = min(ATTRIBUTIONS, key=lambda name: areas[name]["deletion"] - areas[name]["insertion"])
    count = len(subject.pictures)
    says = (
        f"mean over {count} image{'s' if count > 1 else ''}; the sooner the left curve falls and the right one rises, "
        f"the better the map knows what the network rests on; areas farthest apart: {best}"
    )
    yield Finding("curves", _draw(mean, areas), says, {"images": count, "areas": areas})


def _curves(model: Network, picture: Picture, target: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Deletion's and insertion's; of noise the mean over some draws, the same for every picture and run."""
    if name == RANDOM:
        draws = np.random.default_rng(0)
        heats: Sequence[np.ndarray] = [draws.random(tuple(picture.x.shape[2:])) for _ in range(DRAWS)]
    else:
        heats = [ATTRIBUTIONS[name](model, picture.x, torch.tensor([target]))[0].numpy()]
    out, into = (
        np.mean([replace(model, picture.x, target, heat) for heat in heats], axis=0)
        for replace in (deletion, insertion)
    )
    return out, into


def _draw(curves: dict[str, tuple[np.ndarray, ...]], areas: dict[str, dict[str, float]]) -> Figure:
    figure, (left, right, bars) = new_figure(12, 3.6, columns=3)
    colours = dict(zip(curves, COLOURS, strict=False)) | {RANDOM: INK}
    for axes, place, title in ((left, 0, "deletion: lower is better"), (right, 1, "insertion: higher is better")):
        for name, pair in curves.items():
            style = "--" if name == RANDOM else "-"
            axes.plot(np.linspace(0, 100, len(pair[place])), 100 * pair[place], style, color=colours[name], label=name)
        axes.set(xlim=(0, 100), ylim=(0, 100), xlabel="pixels replaced, %")
        axes.set_title(title, fontsize=10)
    left.set_ylabel("probability of the class, %", color=INK)
    _areas(bars, areas, colours)
    return figure


def _areas(axes: Any, areas: dict[str, dict[str, float]], colours: dict[str, str]) -> None:
    """For each method a line from deletion's area to insertion's; it is the legend of the curves, too."""
    for row, (name, both) in enumerate(areas.items()):
        low, high = 100 * both["deletion"], 100 * both["insertion"]
        axes.plot([low, high], [row, row], color=colours[name], linewidth=2, linestyle="--" if name == RANDOM else "-")
        axes.plot([low], [row], "o", color=colours[name], markerfacecolor="none")
        axes.plot([high], [row], "o", color=colours[name])
        axes.text(max(low, high) + 4, row, f"{low:.0f} to {high:.0f}", va="center", fontsize=8, color=INK)
    axes.set_yticks(range(len(areas)), list(areas))
    axes.set(xlim=(0, 118), xticks=[0, 50, 100], ylim=(len(areas) - 0.5, -0.5), xlabel="area under the curve, %")
    axes.set_title("deletion (ring) to insertion (dot)", fontsize=10)
