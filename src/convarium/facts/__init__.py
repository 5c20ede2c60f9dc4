"""Facts as data: one TOML file per paper holds what was published, where its networks come from, and checked counts.

Published, implemented by us and measured by us are three separate things. A file here holds the first, and the
reference counts (of the paper, a peer's network or a hand count, as ``counts.source`` says) that ours are held to.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from convarium.errors import DataError, nearest

TABLES = ("paper", "networks", "claims")  # of a fact file; facts/claims.py reads the last


@dataclass(frozen=True)
class Paper:
    """Where networks were published: its short ``name``, its ``idea`` in a line, the network that stands for it."""

    name: str
    title: str
    authors: str
    venue: str
    year: int
    idea: str
    lead: str


@dataclass(frozen=True)
class Published:
    """One figure of a paper: ``value`` in ``unit``, and as ``printed`` where its digits tell how it was rounded.

    ``note`` says why the reference count does not round to it.
    """

    quantity: str
    value: float
    unit: str
    where: str
    printed: str = ""
    protocol: str = ""
    note: str = ""


@dataclass(frozen=True)
class Counts:
    """Reference counts for the paper's input, and who counted."""

    params: int
    macs: int
    source: str


@dataclass(frozen=True)
class NetworkFacts:
    """What is known of one network of the catalogue.

    ``parents`` are catalogue names; ``changed`` says in one line what it changed over them; ``departures`` lists how
    well-known implementations differ, with the cost; ``input`` is (channels, height, width), and ``stages`` the map
    after each stage of the paper's table for it, in the same order of sides.
    """

    name: str
    paper: Paper
    parents: tuple[str, ...]
    changed: str
    input: tuple[int, int, int]
    stages: dict[str, tuple[int, ...]]
    counts: Counts
    published: tuple[Published, ...] = ()
    departures: tuple[str, ...] = ()

    def printed(self, quantity: str) -> Published | None:
        """The first published figure of that quantity."""
        return next((fact for fact in self.published if fact.quantity == quantity), None)


def find_facts(name: str) -> NetworkFacts | None:
    """The facts of one network, or ``None`` for a network outside the catalogue."""
    return all_facts().get(name)


@cache
def all_facts() -> dict[str, NetworkFacts]:
    """Every network's facts by name, in the order of the files."""
    return read_folder(files(__name__))


def read_folder(folder: Traversable) -> dict[str, NetworkFacts]:
    """The networks of every fact file of a folder.

    Raises:
        DataError: a file that cannot be read as facts, or a parent that no file has.
    """
    by_file = {
        file.name: read_facts(file.read_text(encoding="utf-8"), file.name)
        for file in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if file.name.endswith(".toml")
    }
    found = {name: facts for networks in by_file.values() for name, facts in networks.items()}
    for file_name, networks in by_file.items():
        for name, facts in networks.items():
            for parent in facts.parents:
                if parent not in found:
                    raise DataError(
                        f"{file_name}, {name}: no network named {parent!r}, its parent; {nearest(parent, found)}"
                    )
    return found


def read_facts(text: str, file_name: str) -> dict[str, NetworkFacts]:
    """The networks of one fact file.

    Raises:
        DataError: text that is not TOML, with its line; a key that is unknown or missing, named with its place; a
            paper led by a network that it does not have.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{file_name} is not TOML: {error}") from None
    for key in data:
        if key not in TABLES:
            raise DataError(f"{file_name}: unknown table {key!r}; tables: {', '.join(TABLES)}")
    if set(data) == {"claims"}:  # of no one paper
        return {}
    missing = [key for key in ("paper", "networks") if key not in data]
    if missing:
        raise DataError(f"{file_name}: no [{missing[0]}]")
    paper = _build(Paper, data["paper"], f"{file_name}, paper")
    if paper.lead not in data["networks"]:
        raise DataError(
            f"{file_name}, paper: no network named {paper.lead!r} to lead it; {nearest(paper.lead, data['networks'])}"
        )
    networks = {}
    for name, entry in data["networks"].items():
        where = f"{file_name}, {name}"
        entry = dict(entry, name=name, paper=paper)
        entry["counts"] = _build(Counts, entry.get("counts", {}), f"{where}, counts")
        entry["stages"] = {stage: tuple(shape) for stage, shape in entry.get("stages", {}).items()}
        published = entry.get("published", [])
        entry["published"] = tuple(_build(Published, row, f"{where}, published") for row in published)
        for key in ("parents", "input", "departures"):
            entry[key] = tuple(entry.get(key, ()))
        networks[name] = _build(NetworkFacts, entry, where)
    return networks


def _build(kind: Any, entry: dict[str, Any], where: str) -> Any:
    known = [f.name for f in fields(kind)]
    for key in entry:
        if key not in known:
            raise DataError(f"{where}: unknown key {key!r}; keys: {', '.join(known)}")
    try:
        return kind(**entry)
    except TypeError as error:
        raise DataError(f"{where}: {str(error).partition(') ')[2]}") from None
