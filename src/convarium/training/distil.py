"""Distillation: a network learns, beside the labels, what trained ones say of the same images (G. Hinton, O. Vinyals,
J. Dean, "Distilling the Knowledge in a Neural Network", NIPS 2014 workshop, arXiv 1503.02531, Section 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convarium.console import stderr
from convarium.data.resize import Preprocess, resize_weights
from convarium.errors import DataError, nearest
from convarium.recipe import Recipe, teacher_paths
from convarium.runs import Run, load_run
from convarium.tensors import digest

if TYPE_CHECKING:
    from convarium.data.datasets import Dataset

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue in grey, as images are read


class Teacher(nn.Module):
    """A trained network as it judges the images that another one trains on.

    Maps ``(N, C, side, side)`` of 0..255 to ``(N, classes)`` logits, in the order of ``class_names``. The images are
    resized to the teacher's own side and normalised as it knows them; grey and colour become one another.
    """

    def __init__(self, run: Run, class_names: Sequence[str]) -> None:
        super().__init__()
        self.network = run.model.requires_grad_(False).eval()
        self.preprocess = Preprocess(run.preprocessing)
        self.register_buffer("order", torch.tensor([run.class_names.index(name) for name in class_names]))

    def forward(self, images: Tensor) -> Tensor:
        return self.judge(self.last_map(images))

    def last_map(self, images: Tensor) -> Tensor:
        """``(N, C, h, w)`` before the head."""
        settings = self.preprocess.preprocessing
        images = _with_channels(images, settings.channels)
        if (side := images.shape[-1]) != settings.size:
            weights = resize_weights(side, settings.size, 0, settings.size, settings.interpolation, images.device)
            images = (weights @ images @ weights.T).clamp(0, 255)
        return self.network.forward_features(self.preprocess.normalise(images))

    def judge(self, last_map: Tensor) -> Tensor:
        return self.network.forward_head(last_map).index_select(1, self.get_buffer("order"))


def _with_channels(images: Tensor, channels: int) -> Tensor:
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1)
    return (images * images.new_tensor(LUMA).view(-1, 1, 1)).sum(1, keepdim=True)


class Lesson(NamedTuple):
    """What teachers say of ``N`` images: ``probabilities`` ``(N, classes)`` at the temperature, and how alike they find
    them, ``likeness`` ``(N, N)``; the means of all teachers."""

    probabilities: Tensor
    likeness: Tensor


class Teachers(nn.ModuleList):
    """One teacher or several: ``(N, C, side, side)`` of 0..255 to a :class:`Lesson`, their logits divided by a
    temperature."""

    def __init__(self, teachers: Sequence[Teacher], temperature: float) -> None:
        super().__init__(teachers)
        self.temperature = temperature

    @torch.no_grad()
    def forward(self, images: Tensor) -> Lesson:
        teachers: list[Teacher] = [*self]
        maps = [teacher.last_map(images) for teacher in teachers]
        logits = [teacher.judge(own) for teacher, own in zip(teachers, maps, strict=True)]
        probabilities = torch.stack([(own / self.temperature).softmax(1) for own in logits]).mean(0)
        return Lesson(probabilities, torch.stack([likeness(own) for own in maps]).mean(0))

    @property
    def digest(self) -> str:
        """A short hash of all weights."""
        return digest(self.state_dict())[:16]


def likeness(maps: Tensor) -> Tensor:
    """``(N, N)``: products of the maps ``(N, C, h, w)`` of every two images, each row brought to length 1. Networks of
    other widths and depths can be held to it (F. Tung, G. Mori, "Similarity-Preserving Knowledge Distillation", ICCV
    2019, Eqs. 1 and 3)."""
    flat = maps.flatten(1)
    return F.normalize(flat @ flat.T, dim=1)


def hint_loss(maps: Tensor, lesson: Lesson) -> Tensor:
    """The mean squared difference of likenesses (the same paper, Eq. 4)."""
    return (likeness(maps) - lesson.likeness).square().mean()


def load_teachers(recipe: Recipe, dataset: Dataset) -> Teachers | None:
    """The teachers of a recipe, for a data set's classes; ``None`` where it has none. One that has seen images which
    this training holds out is told of on stderr.

    Raises:
        DataError: no such run, or one of other classes than the data's.
    """
    if not recipe.teacher:
        return None
    runs = [load_run(path) for path in teacher_paths(recipe)]
    for run in runs:
        _check_classes(run, dataset)
        theirs = run.own["data"]
        same_images = theirs["fingerprint"] == dataset.fingerprint and not dataset.brings_splits
        if same_images and theirs["seed"] != recipe.seed:
            stderr().print(
                f"the teacher {run.path} has seen images that are held out here, and passes on what it knows of them: "
                f"with --seed {theirs['seed']} the same are held out"
            )
    return Teachers([Teacher(run, dataset.class_names) for run in runs], recipe.temperature)


def _check_classes(run: Run, dataset: Dataset) -> None:
    theirs, ours = {*run.class_names}, {*dataset.class_names}
    if unknown := sorted(ours - theirs):
        hint = nearest(unknown[0], run.class_names)
        raise DataError(f"the teacher {run.path} does not know {unknown[0]!r}, a class of {dataset.name}; {hint}")
    if other := sorted(theirs - ours):
        raise DataError(
            f"the teacher {run.path} knows {other[0]!r}, which is no class of {dataset.name}: a teacher and its "
            "student have the same classes"
        )


def criterion(labels: Tensor, soft: Tensor | None, recipe: Recipe) -> Callable[[Tensor], Tensor]:
    """The loss of logits ``(N, classes)`` against ``labels`` ``(N,)``: cross entropy; with ``soft`` targets, the
    probabilities of a :class:`Lesson`, ``(1 - w)`` times that and ``w T^2`` times the divergence from the student's.

    Gradients of the divergence shrink with the temperature's square, which the factor takes back.
    """

    def loss(logits: Tensor) -> Tensor:
        hard = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        if soft is None:
            return hard
        own = (logits / recipe.temperature).log_softmax(1)
        divergence = recipe.temperature**2 * F.kl_div(own, soft, reduction="batchmean")
        return (1 - recipe.distill_weight) * hard + recipe.distill_weight * divergence

    return loss
