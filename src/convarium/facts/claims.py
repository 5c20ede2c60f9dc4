"""The figures that can be recomputed, beside those of a network's ``published``: tables, ratios, rules of thumb.

They stand as ``[[claims]]`` in the file of the paper that printed them, and in ``popular.toml`` where no paper did.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from convarium.facts import Paper, _build


@dataclass(frozen=True)
class Claim:
    """One figure as ``published``, its digits and all, in ``unit``, and ``ours``: the measure that recomputes it.

    ``kilo`` is what K, M and G are powers of; ``cause`` says why ours does not round to it; ``paper`` is ``None`` for
    what several texts repeat.
    """

    claim: str
    where: str
    published: str
    unit: str
    ours: dict[str, Any]
    cause: str = ""
    kilo: int = 1000
    paper: Paper | None = None


@cache
def all_claims() -> tuple[Claim, ...]:
    """The claims of every fact file, in the order of the files."""
    found: list[Claim] = []
    for file in sorted(files("convarium.facts").iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".toml"):
            found += read_claims(file.read_text(encoding="utf-8"), file.name)
    return tuple(found)


def read_claims(text: str, file_name: str) -> list[Claim]:
    """The claims of one fact file.

    Raises:
        DataError: a key that is unknown or missing, named with its place.
    """
    data = tomllib.loads(text)
    paper = _build(Paper, data["paper"], f"{file_name}, paper") if "paper" in data else None
    return [
        _build(Claim, {**row, "paper": paper}, f"{file_name}, claim {row.get('claim', number)!r}")
        for number, row in enumerate(data.get("claims", []), 1)
    ]
