"""A recipe: everything that decides the result of a training, as plain data, in a file beside the weights."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

from convarium.atomic import write_text
from convarium.errors import DataError, UsageError, check_choice

Optimizer = Literal["sgd", "adamw", "rmsprop"]
Schedule = Literal["cosine", "step"]

# What suits each optimiser where the user says nothing.
USUAL: dict[str, dict[str, float]] = {
    "sgd": {"learning_rate": 0.05, "weight_decay": 1e-3},
    "adamw": {"learning_rate": 0.002, "weight_decay": 0.02},
    "rmsprop": {"learning_rate": 0.001, "weight_decay": 1e-4},
}
# What the usual learning rate is divided by where a training begins from weights and changes them. By ten, a fresh
# classifier learns so little in few steps that it would be better to begin from nothing.
FROM_WEIGHTS = 2.5


@dataclass(frozen=True)
class Between:
    """The least and the greatest value of a number."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training, resolved: no field is left to be decided.

    ``weights`` are what it begins from ("": nothing), ``freeze`` the stages that stay as they are, ``stage_lr_decay`` a
    stage's learning rate over that of the next, ``in_chans`` input channels (0: the network's own); ``rotation`` in
    degrees, ``shift`` in parts of the side, ``scale`` as the largest magnification (and its inverse the smallest);
    ``teacher`` are the runs it learns from ("": none), at a ``temperature``, with a ``distill_weight`` in the loss, and
    with ``hints`` as the weight of their last maps; ``clip_norm`` is the largest norm of the whole gradient (0: any);
    ``ema`` the decay of the weights' moving average (0: none); ``warmup_epochs`` of rising learning rate; ``snapshots``
    the epochs after which weights are kept ("": none); ``int8`` rounds what is multiplied to eight bits; ``threads`` of
    one operation (0: yet to be measured).
    """

    model: str
    data: str
    weights: str = ""
    freeze: str = ""
    stage_lr_decay: Annotated[float, Between(0.001, 1)] = 1.0
    in_chans: Annotated[int, Between(1, 3)] = 0
    image_size: Annotated[int, Between(1, 4096)]
    epochs: Annotated[int, Between(1, 100_000)]
    batch_size: Annotated[int, Between(2, 65_536)]  # batch norm needs two
    optimizer: Optimizer
    learning_rate: Annotated[float, Between(0, 100)]
    schedule: Schedule = "cosine"
    warmup_epochs: Annotated[float, Between(0, 100_000)] = 1.0
    momentum: Annotated[float, Between(0, 0.9999)] = 0.9
    weight_decay: Annotated[float, Between(0, 1)]
    label_smoothing: Annotated[float, Between(0, 1)] = 0.1
    clip_norm: Annotated[float, Between(0, 1e9)] = 1.0
    ema: Annotated[float, Between(0, 1)] = 0.0
    rotation: Annotated[float, Between(0, 180)] = 5.0
    scale: Annotated[float, Between(1, 10)] = 1.1
    shift: Annotated[float, Between(0, 1)] = 0.06
    flip: bool
    attention: str = ""
    snapshots: str = ""
    teacher: str = ""
    temperature: Annotated[float, Between(0.1, 1000)] = 4.0
    distill_weight: Annotated[float, Between(0, 1)] = 0.9
    hints: Annotated[float, Between(0, 1e6)] = 0.0
    int8: bool = False
    seed: Annotated[int, Between(0, 2**32 - 1)] = 0
    threads: Annotated[int, Between(0, 1024)] = 0


LIMITS: dict[str, Between] = {
    name: hint.__metadata__[0]
    for name, hint in get_type_hints(Recipe, include_extras=True).items()
    if hasattr(hint, "__metadata__")
}
LATER = {  # what older recipes lack
    *("weights", "freeze", "stage_lr_decay", "in_chans", "snapshots"),
    *("teacher", "temperature", "distill_weight", "hints", "int8"),
}


def check_options(given: dict[str, Any]) -> None:
    """Refuse values out of their range.

    Raises:
        UsageError: names the option, what it takes and what it got.
    """
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        if name in LIMITS and value is not None:
            limits = LIMITS[name]
            if not isinstance(value, int | float) or not limits.low <= value <= limits.high:
                raise UsageError(f"{option} must be between {limits.low} and {limits.high}; got {value!r}")
    for name in ("weights", "freeze", "snapshots", "teacher"):
        if given.get(name) == "":
            raise UsageError(f"--{name} is empty: name what it is to be, or leave it out")
    for name, choices in (("optimizer", get_args(Optimizer)), ("schedule", get_args(Schedule))):
        if given.get(name) is not None:
            check_choice(f"--{name}", given[name], choices)


def default_recipe(model: str, data: str, images: int, image_size: int, natural: bool, optimizer: Optimizer) -> Recipe:
    """Sensible settings for ``images`` training images; ``natural`` images may be mirrored, characters may not."""
    return Recipe(
        model=model,
        data=data,
        image_size=image_size,
        epochs=max(5, min(60, round(40_000 / images))),
        batch_size=32 if images < 10_000 else 128,
        optimizer=optimizer,
        learning_rate=USUAL[optimizer]["learning_rate"],
        weight_decay=USUAL[optimizer]["weight_decay"],
        flip=natural,
    )


def resolve(default: Recipe, given: dict[str, Any]) -> Recipe:
    """``default`` with what the user gave (what is not ``None``).

    Raises:
        UsageError: a value out of its range.
    """
    check_options(given)
    recipe = replace(default, **{key: value for key, value in given.items() if value is not None})
    snapshot_epochs(recipe)
    teacher_paths(recipe)
    for name in ("temperature", "distill_weight", "hints"):
        if given.get(name) is not None and not recipe.teacher:
            raise UsageError(f"--{name.replace('_', '-')} is of learning from a teacher: name one with --teacher RUN")
    return replace(recipe, warmup_epochs=min(recipe.warmup_epochs, recipe.epochs / 2))


def snapshot_epochs(recipe: Recipe) -> set[int]:
    """After which epochs the weights are kept; 0 is before the first.

    Raises:
        UsageError: what is no list of epochs of this training.
    """
    if recipe.snapshots == "all":
        return set(range(recipe.epochs + 1))
    asked = [part.strip() for part in recipe.snapshots.split(",")] if recipe.snapshots else []
    for part in asked:
        if not (part.isascii() and part.isdigit() and int(part) <= recipe.epochs):
            raise UsageError(
                f"--snapshots takes epochs from 0 (before training) to {recipe.epochs} (the last) with commas between, "
                f'or "all"; got {part!r}'
            )
    return {int(part) for part in asked}


def teacher_paths(recipe: Recipe) -> list[str]:
    """The run folders that are learnt from.

    Raises:
        UsageError: nothing between two commas.
    """
    paths = [part.strip() for part in recipe.teacher.split(",")] if recipe.teacher else []
    if not all(paths):
        raise UsageError(f"--teacher takes run folders with commas between; got {recipe.teacher!r}")
    return paths


def check_same(stored: Recipe, given: dict[str, Any]) -> None:
    """Refuse to resume under options that differ from those the run began with.

    Raises:
        UsageError: names the option and both values.
    """
    for name, value in given.items():
        begun = getattr(stored, name)
        if name != "data" and value is not None and value != begun:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"the run began with {option} {begun}, and a resumed run keeps it; got {value}")


def write_recipe(path: Path, recipe: Recipe, record: dict[str, Any]) -> None:
    """``recipe.toml``: the recipe, and a record of the circumstances (command, versions, data hash)."""
    import tomli_w

    write_text(path, tomli_w.dumps({"recipe": asdict(recipe), "record": record}))


def read_recipe(path: Path) -> tuple[Recipe, dict[str, Any]]:
    """The recipe and the record of a run.

    Raises:
        DataError: no such file, or one that does not hold a recipe.
    """
    try:
        stored = tomllib.loads(path.read_text(encoding="utf-8"))
        settings = {f.name: f.default for f in fields(Recipe) if f.name in LATER} | stored["recipe"]
        return Recipe(**{f.name: settings[f.name] for f in fields(Recipe)}), dict(stored["record"])
    except OSError:
        raise DataError(f"no recipe at {path}: {path.parent} is not a run that can be resumed") from None
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} does not hold a whole recipe: {error}") from None
