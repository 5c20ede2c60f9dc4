"""``train``: from a data set to a run folder."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convarium import __version__
from convarium.atomic import write_text
from convarium.data.datasets import EMBEDDED, Dataset, open_dataset
from convarium.errors import UsageError, nearest
from convarium.networks import ATTENTION, check_name, create_model
from convarium.recipe import (
    Optimizer,
    Recipe,
    Schedule,
    check_same,
    default_recipe,
    read_recipe,
    resolve,
    write_recipe,
)
from convarium.runs import EVALUATION, RECIPE, REPORT, claim_output, save_run

if TYPE_CHECKING:
    from rich.console import RenderableType

    from convarium.data.loading import ImageStore
    from convarium.data.preprocess import Preprocessing
    from convarium.evaluation.evaluate import Evaluation
    from convarium.network import Network


@dataclass(frozen=True)
class Trained:
    """A finished training: where it is, and how it does on the held-out images."""

    output: Path
    recipe: Recipe
    evaluation: Evaluation

    def as_dict(self) -> dict[str, Any]:
        return {"output": str(self.output), "recipe": asdict(self.recipe), "evaluation": self.evaluation.as_dict()}

    def render(self) -> RenderableType:
        return (
            f"{self.recipe.model} on {self.recipe.data}: top-1 error {self.evaluation.top1_error_percent:.2f} % of "
            f"{self.evaluation.images} held-out images\nrun: {self.output}   report: {self.output / REPORT}\n"
            f"next: convarium predict {self.output} IMAGE...   convarium export {self.output}"
        )


def train(
    data: str,
    /,
    *,
    model: str,
    output: Path | None = None,
    image_size: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    optimizer: Optimizer | None = None,
    learning_rate: float | None = None,
    schedule: Schedule | None = None,
    warmup_epochs: float | None = None,
    momentum: float | None = None,
    weight_decay: float | None = None,
    label_smoothing: float | None = None,
    clip_norm: float | None = None,
    ema: float | None = None,
    rotation: float | None = None,
    scale: float | None = None,
    shift: float | None = None,
    flip: bool | None = None,
    attention: str | None = None,
    seed: int | None = None,
    threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Trained:
    """Train a network on images and write a run folder: weights, recipe, metrics, checkpoints and a report.

    The same seed and number of threads give the same weights, bit for bit, on the same machine. What is not given is
    chosen to suit the data, and written to the run's recipe.toml.

    Args:
        data: "digits", or a folder: root/<class>/* or root/{train,val[,test]}/<class>/*.
        model: a catalogue name (convarium list).
        output: the run folder; runs/<model>-<data> when not given.
        image_size: side of the square input; the network's own when not given.
        epochs: passes over the training images.
        batch_size: images per step.
        optimizer: sgd, adamw or rmsprop.
        learning_rate: at its highest.
        schedule: cosine, or step: a tenth at half and at three quarters of the epochs.
        warmup_epochs: epochs of rising learning rate.
        momentum: of SGD and RMSProp; the first beta of AdamW.
        weight_decay: of weights; norms and biases are spared.
        label_smoothing: part of the target spread over all classes.
        clip_norm: the gradient is shortened to this norm; 0 to leave it.
        ema: decay of the weights' moving average, such as 0.998; 0 for none.
        rotation: augmentation, degrees to either side.
        scale: augmentation, largest magnification.
        shift: augmentation, part of the side.
        flip: augmentation, mirror half of the images.
        attention: a gate at the end of every branch, such as "se".
        seed: of everything random.
        threads: of one operation; measured when not given.
        resume: go on with the run in the output folder.
        overwrite: replace the run in the output folder.

    Raises:
        UsageError: a name, option or folder that cannot be used.
        DataError: data that cannot be used.
        Interrupted: Ctrl-C, after a checkpoint.
    """
    given = {
        key: value for key, value in locals().items() if key not in ("output", "resume", "overwrite")
    }  # fmt: skip
    check_name(model)
    if attention and attention not in ATTENTION:
        raise UsageError(f"no attention named {attention!r}; {nearest(attention, ATTENTION)}")
    if resume and overwrite:
        raise UsageError("--resume goes on with a run and --overwrite replaces it: give one of them")
    folder = output or Path("runs") / f"{model}-{Path(data).name}"
    stored = None
    if resume:
        stored, record = read_recipe(folder / RECIPE)
        check_same(stored, given)
    dataset = open_dataset(data, stored.seed if stored else seed or 0)
    for note in dataset.notes:
        print(note, file=sys.stderr)
    if stored:
        if record["data_hash"] != dataset.fingerprint:
            raise UsageError(f"{data} has changed since the run in {folder} began: train anew with --overwrite")
        recipe = stored
    else:
        recipe = _recipe(dataset, given)
        _build(recipe, dataset)  # refuses what cannot run before anything is written
        claim_output(folder, overwrite=overwrite)
    return _train(dataset, recipe, folder, resumed=stored is not None)


def _recipe(dataset: Dataset, given: dict[str, Any]) -> Recipe:
    own_size = create_meta(given["model"]).input_size[1]
    natural = dataset.name not in EMBEDDED
    default = default_recipe(given["model"], given["data"], len(dataset.splits["train"]), own_size, natural)
    return resolve(default, given)


def create_meta(name: str, **arguments: Any) -> Network:
    """A catalogue network without weights: for its sizes alone."""
    import torch

    with torch.device("meta"):
        return create_model(name, **arguments)


def _build(recipe: Recipe, dataset: Dataset) -> Network:
    """The network under the recipe's seed, having seen that it takes images of the recipe's size."""
    import torch

    from convarium.network import run_on_meta

    arguments: dict[str, Any] = {"num_classes": len(dataset.class_names), "attention": recipe.attention or None}
    probe = create_meta(recipe.model, **arguments)
    run_on_meta(probe, torch.empty(1, probe.input_size[0], recipe.image_size, recipe.image_size, device="meta"))
    torch.manual_seed(recipe.seed)
    return create_model(recipe.model, **arguments)


def _train(dataset: Dataset, recipe: Recipe, folder: Path, *, resumed: bool) -> Trained:
    import torch

    from convarium.evaluation.evaluate import evaluate_model
    from convarium.report.page import write_report
    from convarium.training.loop import fit
    from convarium.training.progress import TrainingProgress

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = _build(recipe, dataset)
    train_store, val_store, preprocessing = _stores(dataset, recipe, model)
    if not recipe.threads:
        recipe = replace(recipe, threads=_choose_threads(model, train_store, recipe))
    threads_before = torch.get_num_threads()
    torch.set_num_threads(recipe.threads)
    try:
        if not resumed:
            write_recipe(folder / RECIPE, recipe, _record(dataset, device))
        command = ["convarium", "train", recipe.data, "--model", recipe.model, "--output", str(folder), "--resume"]
        with TrainingProgress(recipe.epochs, folder) as progress:
            progress.say(_summary(dataset, recipe, train_store, val_store, device))
            kept = fit(
                model, recipe, preprocessing, train_store, val_store, folder, progress, shlex.join(command), device
            )
        trained = kept.cpu().eval()
        evaluation = evaluate_model(trained, preprocessing, dataset, split="val")
        save_run(
            folder,
            trained,  # type: ignore[arg-type]
            preprocessing,
            dataset.class_names,
            data={"name": dataset.name, "fingerprint": dataset.fingerprint, "seed": recipe.seed},
            metrics=evaluation.summary(),
        )
        write_text(folder / EVALUATION, json.dumps(evaluation.as_dict(), indent=2) + "\n")
        write_report(folder / REPORT, [folder], title=f"{recipe.model} on {Path(recipe.data).name}")
    finally:
        torch.set_num_threads(threads_before)
    return Trained(folder, recipe, evaluation)


def _stores(dataset: Dataset, recipe: Recipe, model: Network) -> tuple[ImageStore, ImageStore, Preprocessing]:
    """Training images as uint8 at the size before cropping; held-out images as the network is to see them."""
    import torch

    from convarium.console import counting
    from convarium.data.loading import ImageStore
    from convarium.data.preprocess import Preprocessing
    from convarium.data.resize import Preprocess, resize_to

    channels = model.input_size[0]
    plain = Preprocessing(
        size=recipe.image_size, channels=channels, mean=(0.0,) * channels, std=(1.0,) * channels,
        crop_pct=model.crop_pct, interpolation=model.interpolation,
    )  # fmt: skip

    def cached(image: np.ndarray) -> torch.Tensor:
        return resize_to(torch.from_numpy(image), plain, size=plain.resize_size)

    train_positions, val_positions = dataset.splits["train"], dataset.splits["val"]
    with counting("reading images", len(train_positions)) as tick:
        train_store = ImageStore(dataset, train_positions, channels, cached, tick=tick)
    mean, std = _statistics(train_store, channels)
    preprocessing = replace(plain, mean=mean, std=std)
    preprocess = Preprocess(preprocessing)
    with counting("reading held-out images", len(val_positions)) as tick:
        val_store = ImageStore(
            dataset, val_positions, channels, lambda image: preprocess(torch.from_numpy(image)[None])[0], tick=tick
        )
    return train_store, val_store, preprocessing


def _statistics(store: ImageStore, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, where white is 1, over at most 4,096 evenly spaced images."""
    import torch

    places = torch.arange(0, len(store), max(1, len(store) // 4096))
    total, squares, count = torch.zeros(channels).double(), torch.zeros(channels).double(), 0
    for images in store.batches(places.split(256)):
        values = images.double().div(255).transpose(0, 1).reshape(channels, -1)
        total, squares, count = total + values.sum(1), squares + values.square().sum(1), count + values.shape[1]
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=1e-4).sqrt()
    return tuple(round(v, 6) for v in mean.tolist()), tuple(round(v, 6) for v in std.tolist())


def _choose_threads(model: Network, store: ImageStore, recipe: Recipe) -> int:
    import torch

    from convarium.training.threads import calibrate

    places = torch.arange(min(recipe.batch_size, len(store)))
    images = next(store.batches([places])).float() / 255
    size = recipe.image_size
    chosen, medians = calibrate(model, images[..., :size, :size], store.labels[places])
    if len(medians) > 1:
        timings = ", ".join(f"{count}: {1000 * seconds:.1f} ms" for count, seconds in medians.items())
        print(f"threads: {chosen} (measured, per step: {timings})", file=sys.stderr)
    return chosen


def _summary(dataset: Dataset, recipe: Recipe, train: ImageStore, val: ImageStore, device: str) -> str:
    return (
        f"{recipe.model} on {dataset.name}: {len(train):,} images to train on, {len(val):,} held out, "
        f"{len(dataset.class_names)} classes, {recipe.image_size} pixels; {recipe.epochs} epochs of {recipe.optimizer} "
        f"at {recipe.learning_rate}, batch {recipe.batch_size}, seed {recipe.seed}, threads {recipe.threads}, {device}"
    )


def _record(dataset: Dataset, device: str) -> dict[str, Any]:
    import platform

    import torch

    return {
        "command": shlex.join(["convarium", *sys.argv[1:]]),
        "convarium": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {device}",
        "data_hash": dataset.fingerprint,
    }
