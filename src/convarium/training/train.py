"""``train``: from a data set to a run folder."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convarium import __version__
from convarium.atomic import write_text
from convarium.console import stderr
from convarium.data.datasets import Dataset, is_embedded, open_dataset
from convarium.errors import Interrupted, Terminated, UsageError
from convarium.networks import check_name, create_model, create_on_meta, find_attention
from convarium.recipe import (
    FROM_WEIGHTS,
    Optimizer,
    Recipe,
    Schedule,
    check_options,
    check_same,
    default_recipe,
    read_recipe,
    resolve,
    write_recipe,
)
from convarium.runs import EVALUATION, RECIPE, REPORT, check_output, clear_output, save_run
from convarium.training.transfer import Base, freeze_parts, read_base

if TYPE_CHECKING:
    from rich.console import RenderableType

    from convarium.data.loading import ImageStore
    from convarium.data.preprocess import Preprocessing
    from convarium.evaluation.evaluate import Evaluation
    from convarium.network import Network
    from convarium.training.distil import Teachers


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
    model: str | None = None,
    output: Path | None = None,
    weights: str | None = None,
    freeze: str | None = None,
    stage_lr_decay: float | None = None,
    in_chans: int | None = None,
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
    snapshots: str | None = None,
    teacher: str | None = None,
    temperature: float | None = None,
    distill_weight: float | None = None,
    hints: float | None = None,
    int8: bool | None = None,
    seed: int | None = None,
    threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Trained:
    """Train a network on images and write a run folder: weights, recipe, metrics, checkpoints and a report.

    The same seed and number of threads give the same weights, bit for bit, on the same machine. What is not given is
    chosen to suit the data, and written to the run's recipe.toml.

    Args:
        data: "digits", "glyphs" (or "glyphs:side=64,train=20000"), or a folder: root/<class>/* or
            root/{train,val[,test]}/<class>/*.
        model: a catalogue name (convarium list); not needed where the weights are a run folder.
        output: the run folder; runs/<model>-<data> when not given.
        weights: what to begin from: a run folder, public weights by name (convarium weights list), or a file. Their
            preprocessing is kept, another number of classes gets a fresh classifier, the learning rate is lower.
        freeze: stages to hold as they are, such as "conv1,conv2_x" or "layer*"; "features" for all but the head.
        stage_lr_decay: a stage's learning rate over that of the next one; the head has the whole.
        in_chans: 1 for grey or 3 for RGB; the weights' or the network's own when not given.
        image_size: side of the square input; the weights' or the network's own when not given.
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
        attention: se, spatial, hard or scale, at the end of every branch.
        snapshots: epochs after which the weights are kept too, such as "1,2,5,10" (0: before training), or "all": for
            explain --method evolution and gradient-flow.
        teacher: a run to learn from beside the labels, or several with commas between, whose probabilities are
            averaged. They see the same augmented images, at their own size; their classes are the data's.
        temperature: what the logits of teacher and student are divided by: the higher, the more of the teacher's
            smaller probabilities is learnt.
        distill_weight: part of the teacher in the loss; the labels have the rest.
        hints: learn from the teachers' last maps too: how alike they are for every two images of a batch; the weight of
            that in the loss, such as 100.
        int8: round what is multiplied to eight bits, for weights that int8 costs too much (from --weights RUN).
        seed: of everything random.
        threads: of one operation; measured when not given.
        resume: go on with the run in the output folder.
        overwrite: replace the run in the output folder.

    Raises:
        UsageError: a name, option or folder that cannot be used.
        DataError: data that cannot be used.
        Interrupted: Ctrl-C, after a checkpoint.
    """
    data, weights, teacher = str(data), *(None if path is None else str(path) for path in (weights, teacher))
    given = {key: value for key, value in locals().items() if key not in ("output", "resume", "overwrite")}
    model = check_name(model or _named_by(weights))
    if attention:
        find_attention(attention)
    if resume and overwrite:
        raise UsageError("--resume goes on with a run and --overwrite replaces it: give one of them")
    check_options(given)
    folder = Path(output) if output else Path("runs") / f"{model}-{Path(data).name.replace(':', '-')}"
    stored, record = None, None
    if resume:
        stored, record = read_recipe(folder / RECIPE)
        check_same(stored, given)
    else:
        check_output(folder, data=None if not data or is_embedded(data) else Path(data), overwrite=overwrite)
        _check_apart(folder, "the weights lie", [weights or ""])
        _check_apart(folder, "the teacher lies", (teacher or "").split(","))
    dataset = open_dataset(data, stored.seed if stored else seed or 0)
    dataset.positions("train")  # refuses data that is for judging only
    for note in dataset.notes:
        stderr().print(note)
    if record and record.get("data_hash") != dataset.fingerprint:
        raise UsageError(f"{data} has changed since the run in {folder} began: train anew with --overwrite")
    recipe = stored or _recipe(dataset, {**given, "model": model})
    command = shlex.join(["convarium", "train", recipe.data, "--model", model, "--output", str(folder), "--resume"])
    return _train(dataset, recipe, folder, command, record)


def _check_apart(folder: Path, said: str, paths: list[str]) -> None:
    """Refuse to replace a folder that holds what the new run begins with."""
    for path in (Path(name.strip()) for name in paths if name.strip()):
        if path.exists() and path.resolve().is_relative_to(folder.resolve()):
            raise UsageError(f"{said} in {folder}, which the new run is to replace: choose another --output")


def _named_by(weights: str | None) -> str:
    """The network of a training that names none but begins from ``weights``."""
    if not weights:
        raise UsageError(
            "no network to train: give --model NAME (convarium list), or --weights RUN to begin from a run"
        )
    base = read_base(weights)
    if base is None:
        raise UsageError(f"the weights {weights} do not name their network as a run folder does: add --model NAME")
    return base.model


def _recipe(dataset: Dataset, given: dict[str, Any]) -> Recipe:
    """The settings where the user says nothing: from the weights, the network and the number of images."""
    from convarium.network import ConvHead

    base = _base(given["model"], given["weights"], given["attention"])
    network = create_on_meta(given["model"], **_arguments(base, dataset))
    freeze_parts(network, given["freeze"] or "")
    if given["freeze"] and not given["weights"]:
        raise UsageError("--freeze holds stages at the weights they have: name them with --weights")
    natural = not is_embedded(dataset.name)
    images = len(dataset.splits["train"])
    optimizer: Optimizer = given["optimizer"] or "sgd"
    image_size = base.size if base else network.input_size[1]
    recipe = default_recipe(given["model"], given["data"], images, image_size, natural, optimizer)
    recipe = replace(recipe, in_chans=network.input_size[0])
    if optimizer == "sgd":
        recipe = replace(recipe, learning_rate=recipe.learning_rate * network.step_scale)
    if base:
        recipe = replace(recipe, attention=base.arguments.get("attention", ""))
    if isinstance(network.head, ConvHead):
        # NIN and SqueezeNet end in rectifiers: a large step at the start shuts a class for ever, as it then gets no
        # gradient.
        recipe = replace(recipe, learning_rate=recipe.learning_rate / 10, warmup_epochs=5.0)
    elif given["weights"] and any(parameter.requires_grad for parameter in network.stages.parameters()):
        recipe = replace(recipe, learning_rate=recipe.learning_rate / FROM_WEIGHTS)
    return resolve(recipe, given)


def _base(model: str, weights: str | None, attention: str | None) -> Base | None:
    """What is known of the weights, having seen that they are of the network that is asked for."""
    base = read_base(weights, model) if weights else None
    if base and base.model != model:
        raise UsageError(f"{weights} holds the weights of {base.model}, not of {model}: leave --model out")
    if base and attention and attention != base.arguments.get("attention"):
        own = base.arguments.get("attention", "no attention")
        raise UsageError(f"{weights} was trained with {own}, not with {attention}: leave --attention out")
    return base


def _arguments(base: Base | None, dataset: Dataset) -> dict[str, Any]:
    return {**(base.arguments if base else {}), "num_classes": len(dataset.class_names)}


def _build(recipe: Recipe, dataset: Dataset) -> Network:
    """The network under the recipe's seed, with the weights it begins from, having seen that it takes images of the
    recipe's size."""
    import torch

    from convarium.network import run_on_meta

    base = _base(recipe.model, recipe.weights, recipe.attention)
    arguments = _arguments(base, dataset) | {"attention": recipe.attention or None, "in_chans": recipe.in_chans or None}
    probe = create_on_meta(recipe.model, **arguments)
    if base:
        base.prepare(probe)
    run_on_meta(probe, torch.empty(1, probe.input_size[0], recipe.image_size, recipe.image_size, device="meta"))
    torch.manual_seed(recipe.seed)
    network = create_model(recipe.model, **arguments, weights=recipe.weights or None)
    if base:
        base.prepare(network)
        if base.differs_in_classes(dataset.class_names):
            stderr().print(f"{recipe.model}: a fresh classifier: the weights' own is for {_few(base.class_names)}")
            torch.manual_seed(recipe.seed)
            if network.plan:
                network.reset_classifier(len(dataset.class_names))
            else:
                network.head.classifier = create_model(recipe.model, **arguments).head.classifier
    freeze_parts(network, recipe.freeze)
    return network


def _few(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _train(dataset: Dataset, recipe: Recipe, folder: Path, command: str, record: dict[str, Any] | None) -> Trained:
    """Nothing is written before the network is built and every image is read; ``command`` is what resumes, ``record``
    what was written when the run began, if it did."""
    import torch

    from convarium.tensors import digest
    from convarium.training.distil import load_teachers
    from convarium.training.prepare import choose_threads, image_stores

    device = "cuda" if torch.cuda.is_available() else "cpu"
    teachers, model = load_teachers(recipe, dataset), _build(recipe, dataset)
    hashes = {
        "weights_hash": digest(model.state_dict())[:16] if recipe.weights else "",
        "teacher_hash": teachers.digest if teachers else "",
    }
    for name, source in (("weights_hash", recipe.weights), ("teacher_hash", recipe.teacher)):
        if record and record.get(name, "") != hashes[name]:
            raise UsageError(f"{source} has changed since the run in {folder} began: train anew with --overwrite")
    stores = image_stores(dataset, recipe, model)
    if not recipe.threads:
        recipe = replace(recipe, threads=choose_threads(model, stores[0], recipe))
    if record is None:
        clear_output(folder)
        write_recipe(folder / RECIPE, recipe, _record(dataset, device) | hashes)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(recipe.threads)
    try:
        return _fit_and_finish(dataset, recipe, folder, command, model, *stores, device, teachers)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; to go on: {command}") from None
    except Terminated as stop:
        raise stop if command in str(stop) else Terminated(f"stopped; to go on: {command}") from None
    finally:
        torch.set_num_threads(threads_before)


def _fit_and_finish(
    dataset: Dataset,
    recipe: Recipe,
    folder: Path,
    command: str,
    model: Network,
    train_store: ImageStore,
    val_store: ImageStore,
    preprocessing: Preprocessing,
    device: str,
    teachers: Teachers | None,
) -> Trained:
    from convarium.evaluation.evaluate import evaluate_model
    from convarium.report.page import write_report
    from convarium.training.loop import fit
    from convarium.training.progress import TrainingProgress

    with TrainingProgress(recipe.epochs, folder) as progress:
        progress.say(_summary(dataset, recipe, train_store, val_store, device))
        trained = fit(model, recipe, preprocessing, train_store, val_store, folder, progress, command, device, teachers)
    trained.cpu().eval()
    evaluation = evaluate_model(trained, preprocessing, dataset, split="val")
    save_run(
        folder,
        trained,
        preprocessing,
        dataset.class_names,
        data={"name": dataset.name, "fingerprint": dataset.fingerprint, "seed": recipe.seed},
        threads=recipe.threads,
        metrics=evaluation.summary(),
    )
    write_text(folder / EVALUATION, json.dumps(evaluation.as_dict(), indent=2) + "\n")
    write_report(folder / REPORT, [folder], title=f"{recipe.model} on {Path(recipe.data).name}")
    return Trained(folder, recipe, evaluation)


def _summary(dataset: Dataset, recipe: Recipe, train: ImageStore, val: ImageStore, device: str) -> str:
    begins = f", from {recipe.weights}" if recipe.weights else ""
    frozen = f", {recipe.freeze} frozen" if recipe.freeze else ""
    taught = f", taught by {recipe.teacher}" if recipe.teacher else ""
    return (
        f"{recipe.model} on {dataset.name}: {len(train):,} images to train on, {len(val):,} held out, "
        f"{len(dataset.class_names)} classes, {recipe.image_size} pixels; {recipe.epochs} epochs of {recipe.optimizer} "
        f"at {recipe.learning_rate}, batch {recipe.batch_size}, seed {recipe.seed}, threads {recipe.threads}, "
        f"{device}{begins}{frozen}{taught}"
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
