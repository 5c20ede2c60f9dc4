"""Class names of public weights, in the order of their outputs: a line per class, its synset and its first word."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def synset_names(labels: str) -> dict[str, str]:
    """What stands before each name of ``labels`` (a WordNet id in ``imagenet-1k``) to that name, in order."""
    text = files(__package__).joinpath(f"{labels}.txt").read_text(encoding="utf-8")
    return {key: name for key, _, name in (line.partition(" ") for line in text.splitlines())}


@cache
def class_names(labels: str, background: int = 0) -> tuple[str, ...]:
    """The names of ``labels`` (``imagenet-1k``), after ``background`` outputs that stand before the first class."""
    return ("background",) * background + tuple(synset_names(labels).values())
