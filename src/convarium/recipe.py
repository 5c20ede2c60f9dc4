"""A recipe: everything that decides the result of a training, as plain data, in a file beside the weights."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

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


@dataclass(frozen=True)
class Recipe:
    """A training, resolved: no field is left to be decided.

    ``rotation`` in degrees, ``shift`` in parts of the side, ``scale`` as the largest magnification (and its inverse the
    smallest); ``clip_norm`` is the largest norm of the whole gradient (0: any); ``ema`` is the decay of the weights'
    moving average (0: none); ``warmup_epochs`` of rising learning rate; ``threads`` of one operation.
    """

    model: str
    data: str
    image_size: int
    epochs: int
    batch_size: int
    optimizer: Optimizer
    learning_rate: float
    schedule: Schedule
    warmup_epochs: float
    momentum: float
    weight_decay: float
    label_smoothing: float
    clip_norm: float
    ema: float
    rotation: float
    scale: float
    shift: float
    flip: bool
    attention: str
    seed: int
    threads: int


# The least and the greatest value of each number.
LIMITS: dict[str, tuple[float, float]] = {
    "image_size": (1, 4096),
    "epochs": (1, 100_000),
    "batch_size": (2, 65_536),  # batch norm needs two
    "learning_rate": (0, 100),
    "warmup_epochs": (0, 100_000),
    "momentum": (0, 0.9999),
    "weight_decay": (0, 1),
    "label_smoothing": (0, 1),
    "clip_norm": (0, 1e9),
    "ema": (0, 1),
    "rotation": (0, 180),
    "scale": (1, 10),
    "shift": (0, 1),
    "seed": (0, 2**32 - 1),
    "threads": (0, 1024),
}


def check_options(given: dict[str, Any]) -> None:
    """Refuse values out of their range.

    Raises:
        UsageError: names the option, what it takes and what it got.
    """
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        if name in LIMITS and value is not None:
            low, high = LIMITS[name]
            if not isinstance(value, int | float) or not low <= value <= high:
                raise UsageError(f"{option} must be between {low} and {high}; got {value!r}")
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
        **USUAL[optimizer],
        schedule="cosine",
        warmup_epochs=1.0,
        momentum=0.9,
        label_smoothing=0.1,
        clip_norm=1.0,
        ema=0.0,
        rotation=5.0,
        scale=1.1,
        shift=0.06,
        flip=natural,
        attention="",
        seed=0,
        threads=0,
    )


def resolve(default: Recipe, given: dict[str, Any]) -> Recipe:
    """``default`` with what the user gave (what is not ``None``).

    Raises:
        UsageError: a value out of its range.
    """
    check_options(given)
    recipe = replace(default, **{key: value for key, value in given.items() if value is not None})
    return replace(recipe, warmup_epochs=min(recipe.warmup_epochs, recipe.epochs / 2))


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
        return Recipe(**{f.name: stored["recipe"][f.name] for f in fields(Recipe)}), dict(stored["record"])
    except OSError:
        raise DataError(f"no recipe at {path}: {path.parent} is not a run that can be resumed") from None
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} does not hold a whole recipe: {error}") from None
