"""The training loop. Every random number is keyed on the seed and a position (epoch, image, step), so a run that was
stopped anywhere goes on to the same weights, bit for bit, on the same machine with the same number of threads."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convarium.atomic import write_text
from convarium.data.augment import Augmentation, augment, draw, shuffle
from convarium.data.loading import ImageStore
from convarium.data.preprocess import Preprocessing
from convarium.errors import Diverged
from convarium.network import Network
from convarium.recipe import Recipe, snapshot_epochs
from convarium.runs import CHECKPOINTS, METRICS
from convarium.snapshots import save_snapshot
from convarium.training.auxiliary import WithAuxiliary
from convarium.training.checkpoint import load_checkpoint, save_checkpoint
from convarium.training.distil import Lesson, Teachers, criterion, hint_loss
from convarium.training.eight_bits import EightBits
from convarium.training.interrupt import stop_on_signals
from convarium.training.optimizer import learning_rate, make_average, make_optimizer
from convarium.training.transfer import freeze_parts

CHECKPOINT_SECONDS = 300.0


class Reporter(Protocol):
    """Who is told how the training goes."""

    def on_step(self, epoch: int, step: int, steps: int, totals: Totals) -> None: ...

    def on_epoch(self, row: dict[str, Any]) -> None: ...

    def say(self, line: str) -> None: ...


@dataclass
class Totals:
    """Sums over the part of an epoch that is done."""

    images: int = 0
    loss: float = 0.0
    correct: int = 0
    seconds: float = 0.0

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor, seconds: float) -> None:
        self.images += len(labels)
        self.loss += loss.item() * len(labels)
        self.correct += int((logits.argmax(1) == labels).sum())
        self.seconds += seconds

    @property
    def mean_loss(self) -> float:
        return self.loss / max(1, self.images)

    @property
    def error_percent(self) -> float:
        return 100 - 100 * self.correct / max(1, self.images)


@dataclass
class Progress:
    """Where a training stands; what a checkpoint holds beside tensors."""

    epoch: int = 0
    step: int = 0
    totals: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


def fit(
    network: Network,
    recipe: Recipe,
    preprocessing: Preprocessing,
    train: ImageStore,
    val: ImageStore,
    folder: Path,
    reporter: Reporter,
    how_to_resume: str,
    device: str = "cpu",
    teachers: Teachers | None = None,
) -> Network:
    """Train ``network``, going on from the last checkpoint in ``folder`` when there is one.

    Args:
        network: as the recipe begins with it; its auxiliary heads are made here, and left here.
        recipe: how.
        preprocessing: mean and standard deviation to normalise by.
        train: uint8 images ``(C, side, side)``.
        val: preprocessed images ``(C, size, size)``.
        folder: the run folder.
        reporter: told after every step and epoch.
        how_to_resume: the command to name when the training is stopped.
        device: where the arithmetic runs.
        teachers: whom the network learns from beside the labels.

    Returns:
        The network to keep: the moving average where the recipe has one.

    Raises:
        Interrupted: stopped by a signal, after a checkpoint.
        Diverged: the loss became NaN or infinite; nothing of that step is saved.
    """
    torch.manual_seed(recipe.seed + 1)
    freeze_parts(network, recipe.freeze)
    model = WithAuxiliary(network, recipe.image_size).to(device).train()
    freeze_parts(network, recipe.freeze)  # again: train() woke its batch norm
    optimizer, average = make_optimizer(model, recipe), make_average(model, recipe)
    kept: Network = average.module.network if average else network  # type: ignore[assignment]
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer} | ({"average": average} if average else {})
    teachers = teachers.to(device) if teachers else None
    checkpoints = folder / CHECKPOINTS
    stored, damaged = load_checkpoint(checkpoints, parts)
    for line in damaged:
        reporter.say(f"{line}; going on from the one before")
    progress = Progress(**{key: stored[key] for key in asdict(Progress())}) if stored else Progress()
    if progress.epoch == recipe.epochs:
        reporter.say("all epochs are done; judging and reporting once more")
    elif stored:
        reporter.say(f"going on from epoch {progress.epoch + 1}, step {progress.step + 1}")

    steps = max(1, min(round(len(train) / recipe.batch_size), len(train) // 2))  # batch norm needs two images
    normalise = _normaliser(preprocessing, device)
    how = Augmentation(recipe.rotation, (1 / recipe.scale, recipe.scale), recipe.shift, recipe.flip)

    def log() -> None:
        rows = (json.dumps(row, allow_nan=False) + "\n" for row in progress.history)
        write_text(folder / METRICS, "".join(rows))

    def save(totals: Totals) -> None:
        state = asdict(Progress(progress.epoch, progress.step, asdict(totals), progress.history))
        save_checkpoint(checkpoints, progress.epoch * steps + progress.step, parts, state)

    def keep() -> None:
        """Before the checkpoint of its epoch: a run that stops in between goes back, and keeps the same bits again."""
        if progress.epoch in snapshot_epochs(recipe):
            save_snapshot(checkpoints, progress.epoch, kept)

    log()  # as the checkpoint has it, whatever an interruption left
    if stored is None:
        keep()
    saved = time.monotonic()
    with stop_on_signals() as request, _deterministic():
        while progress.epoch < recipe.epochs:
            totals = Totals(**progress.totals)
            draws = draw(recipe.seed, progress.epoch, len(train))
            # Batches of equal size, give or take one image.
            order = shuffle(recipe.seed, progress.epoch, len(train)).tensor_split(steps)[progress.step :]
            began = time.perf_counter()
            for places, images in zip(order, train.batches(order), strict=True):
                moment = progress.epoch + progress.step / steps
                torch.manual_seed(recipe.seed + 2**32 * (progress.epoch * steps + progress.step))
                moved = augment(images.float(), draws[places], how, recipe.image_size)
                labels = train.labels[places].to(device)
                lesson = teachers(moved.to(device)) if teachers else None
                loss, logits, gradient = _step(model, optimizer, normalise(moved), labels, recipe, moment, lesson)
                _check_finite(loss.item(), "loss", progress.epoch, recipe)
                _check_finite(gradient.item(), "gradient", progress.epoch, recipe)
                if average:
                    average.update_parameters(model)
                progress.step += 1
                totals.add(loss, logits, labels, time.perf_counter() - began)
                began = time.perf_counter()
                reporter.on_step(progress.epoch, progress.step, steps, totals)
                if request.signal or time.monotonic() - saved > CHECKPOINT_SECONDS:
                    save(totals)
                    saved = time.monotonic()
                    request.raise_if_asked(f"stopped; a checkpoint is written; to go on: {how_to_resume}")
            row = _row(progress, totals, kept, val, recipe, device)
            _check_finite(row["val_loss"], "held-out loss", progress.epoch, recipe)
            progress.history.append(row)
            progress.epoch, progress.step, progress.totals = progress.epoch + 1, 0, {}
            log()
            keep()
            save(Totals())
            reporter.on_epoch(row)
            request.raise_if_asked(f"stopped; a checkpoint is written; to go on: {how_to_resume}")
    return kept


def _step(
    model: WithAuxiliary,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    moment: float,
    lesson: Lesson | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, logits and the gradient's norm; the step is taken only when the norm is finite."""
    for group in optimizer.param_groups:
        group["lr"] = group["rate"] * learning_rate(recipe, moment)
    with EightBits() if recipe.int8 else nullcontext():
        last_map, logits = model.map_and_logits(images)
    loss = model.loss(logits, criterion(labels, lesson.probabilities if lesson else None, recipe))
    if lesson and recipe.hints:
        loss = loss + recipe.hints * hint_loss(last_map, lesson)
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm or math.inf)
    if torch.isfinite(norm):
        optimizer.step()
    return loss.detach(), logits[0].detach(), norm


def _check_finite(value: float, what: str, epoch: int, recipe: Recipe) -> None:
    if not math.isfinite(value):
        raise Diverged(
            f"the {what} became {value} in epoch {epoch + 1}: train anew (--overwrite) with a lower --learning-rate "
            f"(now {recipe.learning_rate}) or a higher --warmup-epochs; the last checkpoint is whole"
        )


def _row(
    progress: Progress, totals: Totals, model: nn.Module, val: ImageStore, recipe: Recipe, device: str
) -> dict[str, Any]:
    loss, top1, top5 = validate(model, val, device)
    return {
        "epoch": progress.epoch + 1,
        "learning_rate": learning_rate(recipe, progress.epoch),
        "train_loss": round(totals.mean_loss, 6),
        "train_top1_error_percent": round(totals.error_percent, 4),
        "val_loss": round(loss, 6),
        "val_top1_error_percent": round(top1, 4),
        "val_top5_error_percent": round(top5, 4),
        "images_per_second": round(totals.images / max(totals.seconds, 1e-9), 1),
        "seconds": round(totals.seconds, 3),
    }


@torch.no_grad()
def validate(model: nn.Module, store: ImageStore, device: str = "cpu") -> tuple[float, float, float]:
    """Mean cross entropy, top-1 and top-5 error in per cent, over preprocessed images."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    loss, wrong1, wrong5 = 0.0, 0, 0
    order = torch.arange(len(store)).split(128)
    for places, images in zip(order, store.batches(order), strict=True):
        logits, labels = model(images.to(device)), store.labels[places].to(device)
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        ranked = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
        wrong1 += int((~ranked[:, 0]).sum())
        wrong5 += int((~ranked.any(1)).sum())
    for module in training:  # not all: what is frozen stays in evaluation mode
        module.training = True
    return loss / len(store), 100 * wrong1 / len(store), 100 * wrong5 / len(store)


def _normaliser(preprocessing: Preprocessing, device: str) -> Callable[[Tensor], Tensor]:
    mean = 255 * torch.tensor(preprocessing.mean).view(-1, 1, 1)
    std = 255 * torch.tensor(preprocessing.std).view(-1, 1, 1)
    return lambda images: ((images - mean) / std).to(device)


class _deterministic:
    """Deterministic algorithms within the block; an operation that has none only warns."""

    def __enter__(self) -> None:
        self.before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(True, warn_only=True)

    def __exit__(self, *_: object) -> None:
        torch.use_deterministic_algorithms(self.before)
