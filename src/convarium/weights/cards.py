"""Cards: one for every public file of weights, with what makes it valid. One TOML file per library in ``cards/``."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any

from convarium.errors import DataError, UsageError, nearest


@dataclass(frozen=True)
class Card:
    """One public file of weights.

    Attributes:
        library: whose layout it is written in (a file of ``layouts/``).
        tag: its name there; ``library:tag`` is what users give, with the network's name.
        network: the catalogue's name of the function that the file belongs to.
        url: where it is; none where it lies behind a login or a share, which ``note`` names.
        checksum: ``sha256:``, ``sha1:`` or ``md5:`` and the digits of the file's hash that are published (in
            torchvision's file names, the first eight).
        member: where the address is that of a zip archive, the one file in it that is wanted; the checksum is its own.
        classes: outputs of its classifier.
        labels: the list of class names, such as ``imagenet-1k``.
        background: how many outputs stand before the first class ("background" in TensorFlow's 1001).
        size, crop_pct, interpolation, mean, std: its preprocessing; where white is 1, channels in the order RGB.
        bgr: its first layer takes channels in the order blue, green, red; it is turned round on loading.
        licence: as its publisher says.
        top1_error_percent, top5_error_percent: as published, single crop.
        note: what a user should know.
        recommended: what ``pretrained=True`` takes.
    """

    library: str
    tag: str
    network: str
    size: int
    crop_pct: float
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool = False
    url: str = ""
    checksum: str = ""
    member: str = ""
    classes: int = 1000
    labels: str = "imagenet-1k"
    background: int = 0
    licence: str = ""
    top1_error_percent: float | None = None
    top5_error_percent: float | None = None
    note: str = ""
    recommended: bool = False

    @property
    def name(self) -> str:
        return f"{self.library}:{self.tag}"

    @property
    def file(self) -> str:
        """The name of its file; none where no address is known."""
        return self.member or self.url.rpartition("/")[2]

    @property
    def preprocessing(self) -> tuple[int, Sequence[float], Sequence[float], str, float]:
        """As :meth:`Network.use_preprocessing` takes it."""
        return self.size, self.mean, self.std, self.interpolation, self.crop_pct


@cache
def all_cards() -> tuple[Card, ...]:
    """Every card, in the order of the files."""
    folder = files(__package__).joinpath("cards")
    found: list[Card] = []
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".toml"):
            found += read_cards(file.read_text(encoding="utf-8"), file.name)
    return tuple(found)


def read_cards(text: str, file_name: str) -> list[Card]:
    """The cards of one file: ``[[cards]]``, with what they share under ``[shared]``.

    Raises:
        DataError: text that is not TOML, or a key that is unknown or missing, named with its place.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{file_name} is not TOML: {error}") from None
    library = file_name.removesuffix(".toml")
    return [_card({**data.get("shared", {}), **row, "library": library}, file_name) for row in data.get("cards", [])]


def _card(row: dict[str, Any], file_name: str) -> Card:
    known = [f.name for f in fields(Card)]
    where = f"{file_name}, {row.get('network', '?')}:{row.get('tag', '?')}"
    for key in row:
        if key not in known:
            raise DataError(f"{where}: unknown key {key!r}; keys: {', '.join(known)}")
    for key in ("mean", "std"):
        if key in row:
            row[key] = tuple(row[key])
    try:
        return Card(**row)
    except TypeError as error:
        raise DataError(f"{where}: {str(error).partition(') ')[2]}") from None


def list_weights(network: str) -> list[str]:
    """Names of the cards of a network, the recommended first."""
    return [card.name for card in cards_of(network)]


def cards_of(network: str) -> list[Card]:
    return sorted((c for c in all_cards() if c.network == network), key=lambda card: not card.recommended)


def usual_card(network: str, library: str) -> Card | None:
    """The card that tells how a library's files of a network are mostly used: its recommended one, or its first."""
    return next((card for card in cards_of(network) if card.library == library), None)


def find_card(network: str, name: str) -> Card:
    """The card ``library:tag`` of a network; without a tag, its first of that library.

    Raises:
        UsageError: no such card, with the nearest; or the networks that have it.
    """
    own = cards_of(network)
    for card in own:
        if name in (card.name, card.library):
            return card
    elsewhere = [card.network for card in all_cards() if card.name == name]
    if elsewhere:
        raise UsageError(
            f"the weights {name!r} are of {', '.join(elsewhere[:4])}, not of {network}: ask for that network"
        )
    if not own:
        raise UsageError(
            f"no public weights of {network} are known; convarium weights list shows which networks have some"
        )
    raise UsageError(f"{network} has no weights {name!r}; {nearest(name, [card.name for card in own])}")


def recommended(network: str) -> Card:
    """What ``pretrained=True`` takes.

    Raises:
        UsageError: no public weights of that network are known.
    """
    own = cards_of(network)
    if not own:
        raise UsageError(
            f"no public weights of {network} are known; convarium weights list shows which networks have some"
        )
    return own[0]
