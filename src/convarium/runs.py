"""A trained model is a folder: ``config.json`` in the hub's layout, ``model.safetensors``, recipe and metrics."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convarium import __version__
from convarium.atomic import replacing, write_text
from convarium.data.preprocess import Preprocessing
from convarium.errors import DataError, UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from convarium.network import Network

CONFIG, WEIGHTS, RECIPE, METRICS = "config.json", "model.safetensors", "recipe.toml", "metrics.jsonl"
EVALUATION, REPORT = "evaluation.json", "report.html"


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
    """A short hash of an ordered class list, stored with the weights."""
    return hashlib.sha256(json.dumps(list(class_names)).encode()).hexdigest()[:16]


def save_run(
    path: Path,
    model: Network,
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    **own: Any,
) -> None:
    """Write ``model.safetensors`` and ``config.json``; ``own`` joins this project's key of the configuration."""
    save_tensors(path / WEIGHTS, model.state_dict(), {"format": "pt", "class_hash": class_hash(class_names)})
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
            "preprocessing": asdict(preprocessing),
            **own,
        },
    }
    try:
        text = json.dumps(config, indent=2)
    except TypeError as error:
        raise UsageError(f"{model.name} was built with an argument that cannot be saved by value: {error}") from None
    write_text(path / CONFIG, text + "\n")


def load_run(path: str | Path) -> Run:
    """Open a run folder: rebuild its network and load its weights strictly.

    Raises:
        DataError: no such folder, no weights in it, or weights and configuration that do not fit.
    """
    from convarium.networks import create_model

    path = Path(path)
    config = read_config(path)
    try:
        name, classes, own = config["architecture"], list(config["label_names"]), config["convarium"]
        settings = own["preprocessing"]
        preprocessing = Preprocessing(**{**settings, "mean": tuple(settings["mean"]), "std": tuple(settings["std"])})
        arguments = config["model_args"]
    except (KeyError, TypeError) as error:
        raise DataError(f"{path / CONFIG} is not a configuration of ours: {error!r} is missing or wrong") from None
    if class_hash(classes) != own.get("class_hash"):
        raise DataError(f"{path / CONFIG}: label_names are not those that the network was trained with")
    model = create_model(name, num_classes=config["num_classes"], **arguments)
    load_weights(model, path)
    return Run(path, model.eval(), preprocessing, classes, config)


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


def load_weights(model: nn.Module, source: str | Path) -> None:
    """Load a run folder's or a ``.safetensors`` file's weights, every key and shape in its place.

    Raises:
        DataError: no such file, a pickle, or keys and shapes that are not this network's, listed from both sides.
    """
    path = Path(source)
    path = path / WEIGHTS if path.is_dir() else path
    found, _ = load_tensors(path)
    wanted = model.state_dict()
    problems = []
    if missing := sorted(wanted.keys() - found.keys()):
        problems.append(f"missing {_some(missing)}")
    if unexpected := sorted(found.keys() - wanted.keys()):
        problems.append(f"unexpected {_some(unexpected)}")
    shapes = [key for key in wanted.keys() & found.keys() if wanted[key].shape != found[key].shape]
    if shapes:
        key = min(shapes)
        problems.append(
            f"{len(shapes)} of another shape ({key}: {tuple(found[key].shape)} for {tuple(wanted[key].shape)})"
        )
    if problems:
        name = getattr(model, "name", type(model).__name__)
        raise DataError(
            f"{path} does not hold the weights of this {name}: {'; '.join(problems)}; build the network they were "
            "trained with (its name, num_classes, in_chans, attention)"
        )
    model.load_state_dict(found)


def _some(keys: list[str]) -> str:
    return f"{len(keys)} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """A safetensors file, written atomically."""
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, temporary, metadata)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        DataError: no such file, a pickle, or a file that is damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise DataError(f"no weights at {path}: a run folder or a .safetensors file is wanted")
    with open(path, "rb") as file:
        start = file.read(4)
    if start[:2] == b"\x80\x02" or start == b"PK\x03\x04":
        raise DataError(
            f"{path} is a pickle, which can run code when it is opened, and is refused: give a .safetensors file"
        )
    try:
        with safe_open(path, "pt") as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise DataError(f"{path} is not a whole safetensors file ({error}): write or download it again") from None


def claim_output(path: Path, *, overwrite: bool, made_of: str = "a run") -> None:
    """Make ``path`` an empty folder of ours, or refuse.

    Raises:
        UsageError: the folder holds something and ``overwrite`` is off, or what it holds is not ours to remove.
    """
    import shutil

    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            ours = path.is_dir() and any((path / name).exists() for name in (CONFIG, RECIPE, "checkpoints"))
            if not ours:
                raise UsageError(f"{path} exists and is not {made_of}: choose another --output")
            if not overwrite:
                raise UsageError(
                    f"{path} already holds {made_of}: add --resume or --overwrite, or choose another --output"
                )
            shutil.rmtree(path)
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {path}: {error.strerror}") from None
