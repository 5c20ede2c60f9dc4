"""Class names of public weights, in the order of their outputs: a line per class, its synset and its first word."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def class_names(labels: str, background: int = 0) -> tuple[str, ...]:
    """The names of ``labels`` (``imagenet-1k``), after ``background`` outputs that stand before the first class."""
    text = files(__package__).joinpath(f"{labels}.txt").read_text(encoding="utf-8")
    named = tuple(line.partition(" ")[2] for line in text.splitlines())
    return ("background",) * background + named
