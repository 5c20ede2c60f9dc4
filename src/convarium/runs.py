"""A trained model is a folder: ``config.json`` in the hub's layout, ``model.safetensors``, recipe and metrics."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convarium import __version__
from convarium.atomic import write_text
from convarium.data.preprocess import Preprocessing
from convarium.errors import ConvariumError, DataError, UsageError
from convarium.tensors import WEIGHTS, load_weights, save_tensors

if TYPE_CHECKING:
    from convarium.network import Network

CONFIG, RECIPE, METRICS = "config.json", "recipe.toml", "metrics.jsonl"
EVALUATION, REPORT, CHECKPOINTS = "evaluation.json", "report.html", "checkpoints"
EXPORTS = {"model.onnx", "model.xml", "model.bin", "model.pt2"}
# All that a run folder holds; whatever else lies there is not ours to remove.
OURS = {CONFIG, WEIGHTS, RECIPE, METRICS, EVALUATION, REPORT, CHECKPOINTS, *EXPORTS, "explanations", "tensorboard"}


@dataclass
class Run:
    """A loaded run: the network in evaluation mode, and what makes its output valid."""

    path: Path
    model: Network
    preprocessing: Preprocessing
    class_names: list[str]
    config: dict[str, Any] = field(repr=False)

    @property
    def own(self) -> dict[str, Any]:
        """What this project adds to the hub's layout."""
        return self.config["convarium"]


def class_hash(class_names: Sequence[str]) -> str:
    """A short hash of an ordered class list, stored beside the weights' own."""
    return hashlib.sha256(json.dumps(list(class_names)).encode()).hexdigest()[:16]


def save_run(
    path: Path,
    model: Network,
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    *,
    data: dict[str, Any],
    threads: int | None = None,
    **own: Any,
) -> None:
    """Write ``model.safetensors`` and ``config.json``.

    Args:
        path: the run folder.
        model: a network of the catalogue.
        preprocessing: what makes its input.
        class_names: in the order of the logits.
        data: ``name``, ``fingerprint`` and split ``seed`` of what it was trained on.
        threads: the number that was quickest in training.
        own: more for this project's key of the configuration.

    Raises:
        UsageError: the network was built with an argument that has no form in JSON.
    """
    from convarium.surgery import write_plan

    if model.plan:
        write_plan(model)  # it may have got another classifier since
    # One key alone: safetensors writes several in any order, and equal weights are to be equal files.
    save_tensors(path / WEIGHTS, model.state_dict(), {"format": "pt"})
    asked = {key: value for key, value in model.arguments.items() if key not in ("num_classes", "in_chans")}
    config = {
        "architecture": model.name,
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        "global_pool": model.head.pool.kind,
        "label_names": list(class_names),
        "model_args": {"in_chans": preprocessing.channels, **asked},
        "pretrained_cfg": {
            **model.pretrained_cfg,
            "input_size": (preprocessing.channels, preprocessing.size, preprocessing.size),
            "mean": preprocessing.mean,
            "std": preprocessing.std,
            "interpolation": preprocessing.interpolation,
            "crop_pct": preprocessing.crop_pct,
        },
        "convarium": {
            "version": __version__,
            "class_hash": class_hash(class_names),
            "weights_sha256": _file_hash(path / WEIGHTS),
            "preprocessing": asdict(preprocessing),
            "data": data,
            "threads": threads,
            **({"plan": model.plan} if model.plan else {}),
            **own,
        },
    }
    try:
        text = json.dumps(config, indent=2)
    except TypeError as error:
        raise UsageError(f"{model.name} was built with an argument that cannot be saved by value: {error}") from None
    write_text(path / CONFIG, text + "\n")


def _file_hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_run(path: str | Path) -> Run:
    """Open a run folder: rebuild its network and load its weights strictly.

    Raises:
        DataError: no such folder, no weights in it, or weights and configuration that do not fit.
    """
    from convarium.networks import create_model
    from convarium.plan import apply_plan

    path = Path(path)
    config = read_config(path)
    try:
        name, count, pool = str(config["architecture"]), int(config["num_classes"]), config["global_pool"]
        classes, arguments, own = list(config["label_names"]), dict(config["model_args"]), config["convarium"]
        settings, known_hash, weights_hash = own["preprocessing"], own["class_hash"], own["weights_sha256"]
        preprocessing = Preprocessing(**{**settings, "mean": tuple(settings["mean"]), "std": tuple(settings["std"])})
        own["data"]["name"], own["data"]["fingerprint"], own["data"]["seed"]
    except KeyError as error:
        raise DataError(f"{path / CONFIG} lacks {error}: it is not a whole configuration of ours") from None
    except (TypeError, ValueError) as error:
        raise DataError(f"{path / CONFIG} is not a configuration of ours: {error}") from None
    if class_hash(classes) != known_hash:
        raise DataError(f"{path / CONFIG}: label_names are not those the network was trained with: put them back")
    model = create_model(name, num_classes=count, global_pool=pool, **arguments)
    apply_plan(model, own.get("plan", {}))
    load_weights(model, path)
    if _file_hash(path / WEIGHTS) != weights_hash:
        raise DataError(f"{path / WEIGHTS} was altered since {CONFIG} was written: train again, or restore it")
    return Run(path, model.eval(), preprocessing, classes, config)


def find_run(name: str) -> Run | None:
    """The run folder that ``name`` is, or ``None`` where it is a catalogue name (``./name`` is the folder so called).

    Raises:
        UsageError: neither a network nor a folder.
        DataError: a folder that is not a whole run.
    """
    from convarium.networks import CATALOGUE, check_name

    if name in CATALOGUE:
        return None
    if not (Path(name).exists() or Path(name).parent.name or name.startswith("/")):
        check_name(name)
    return load_run(name)


def read_config(path: Path) -> dict[str, Any]:
    """``config.json`` of a run folder.

    Raises:
        DataError: no folder, no configuration, or one that is not JSON.
    """
    if not path.is_dir():
        raise DataError(f"no run folder {path}: train one first (convarium train DATA --model NAME --output {path})")
    file = path / CONFIG
    if not file.is_file():
        unfinished = (path / "checkpoints").is_dir()
        hint = "its training is not finished: resume it (convarium train ... --resume)" if unfinished else "not a run"
        raise DataError(f"{path} holds no {CONFIG}: {hint}")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file} is not JSON: {error}") from None


def check_output(path: Path, *, data: Path | None, overwrite: bool) -> None:
    """Refuse an output folder that must not be written or replaced; nothing is changed yet.

    Raises:
        UsageError: a file; a folder that holds something else than a run; a run, while ``overwrite`` is off; a
            folder that holds the data, or lies inside it.
    """
    target = path.resolve()
    if data and (data.resolve().is_relative_to(target) or target.is_relative_to(data.resolve())):
        raise UsageError(f"the output {path} and the data {data} must not lie in one another: choose another --output")
    if path.is_dir():
        names = [entry.name for entry in path.iterdir() if not entry.name.endswith(".part")]
        if not names:
            return
        foreign = sorted(set(names) - OURS)
        if foreign or not (RECIPE in names or _is_converted(path)):
            raise UsageError(f"{path} holds what is not a run's ({(foreign or names)[0]}): choose another --output")
        if not overwrite:
            raise UsageError(f"{path} already holds a run: add --resume or --overwrite, or choose another --output")
    elif path.exists() or path.is_symlink():
        raise UsageError(f"{path} is not a folder: choose another --output")


def _is_converted(path: Path) -> bool:
    """Whether a folder is a run that was not trained here, which has no recipe."""
    return (path / CONFIG).is_file() and "convarium" in read_config(path)


def check_job(folder: Path, what: str, ours: str, *, data: Path | None, overwrite: bool) -> None:
    """:func:`check_output` for a folder of several runs, such as a race; ``ours`` is a pattern of all that it holds.

    Raises:
        UsageError: a file, a folder that holds something else, such a job while ``overwrite`` is off, a folder that
            holds the data or lies in it.
    """
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    foreign = [name for name in names if not re.fullmatch(ours, name) and not name.endswith(".part")]
    if foreign:
        raise UsageError(f"{folder} holds what is not a {what}'s ({foreign[0]}): choose another --output")
    if names and not overwrite:
        raise UsageError(f"{folder} already holds a {what}: add --resume or --overwrite, or choose another --output")
    if not names:
        check_output(folder, data=data, overwrite=False)


def clear_output(path: Path, first: str | None = None) -> None:
    """Make ``path`` an empty folder; what the checks above let pass is removed, the file ``first`` before all else.

    Raises:
        ConvariumError: the folder cannot be made or emptied.
    """
    import shutil

    try:
        path.mkdir(parents=True, exist_ok=True)
        if first:
            (path / first).unlink(missing_ok=True)
        for entry in path.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    except OSError as error:
        raise ConvariumError(f"cannot make the folder {path}: {error.strerror}") from None
