"""``weights list``, ``show`` and ``fetch``: the public weights that are known."""

from __future__ import annotations

import fnmatch
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from convarium.errors import UsageError, nearest
from convarium.networks import check_name
from convarium.weights.cards import Card, all_cards, find_card, recommended

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Cards:
    """Cards that match."""

    cards: list[Card]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def render(self) -> RenderableType:
        from convarium.console import percent, table

        rows = table("network", "weights", ">pixels", ">classes", ">top-1 error", ">top-5 error", "")
        for card in self.cards:
            errors = ["" if e is None else percent(e) for e in (card.top1_error_percent, card.top5_error_percent)]
            mark = "pretrained=True" if card.recommended else ""
            rows.add_row(card.network, card.name, str(card.size), str(card.classes), *errors, mark)
        return rows


@dataclass(frozen=True)
class Shown:
    """One card, and how to use it."""

    card: Card

    def as_dict(self) -> dict[str, Any]:
        return asdict(self.card)

    def render(self) -> RenderableType:
        from rich.console import Group

        from convarium.console import table

        rows = table("", "")
        rows.show_header = False
        for key, value in asdict(self.card).items():
            if value not in ("", None):
                rows.add_row(key, ", ".join(map(str, value)) if isinstance(value, tuple) else str(value))
        use = f"create_model({self.card.network!r}, weights={self.card.name!r})"
        return Group(rows, "", use)


@dataclass(frozen=True)
class Fetched:
    """Where a card's file lies now."""

    card: str
    network: str
    path: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def render(self) -> RenderableType:
        return f"{self.network} {self.card}: {self.path}"


def list_cards(filter: str = "", /) -> Cards:
    """List public weights that are known.

    Args:
        filter: a wildcard over networks and over weights, such as "resnet50*" or "timm:*"; everything when empty.

    Raises:
        UsageError: nothing matches.
    """
    chosen = [card for card in all_cards() if any(fnmatch.fnmatch(name, filter or "*") for name in _names(card))]
    if not chosen:
        known = {name for card in all_cards() for name in _names(card)}
        raise UsageError(f"no weights match {filter!r}; {nearest(filter.strip('*'), sorted(known))}")
    return Cards(chosen)


def _names(card: Card) -> tuple[str, str, str]:
    return card.network, card.name, card.library


def show(network: str, weights: str = "", /) -> Shown:
    """Show one card: address, hash, preprocessing, classes, licence, published errors.

    Args:
        network: a catalogue name.
        weights: such as "torchvision:IMAGENET1K_V2"; the recommended ones when empty.

    Raises:
        UsageError: no such network or weights.
    """
    check_name(network)
    return Shown(find_card(network, weights) if weights else recommended(network))


def fetch(network: str, weights: str = "", /) -> Fetched:
    """Fetch a card's file into the cache, held to its published hash.

    Args:
        network: a catalogue name.
        weights: such as "torchvision:IMAGENET1K_V2"; the recommended ones when empty.

    Raises:
        UsageError: no such network or weights.
        DataError, ConvariumError: a file that cannot be fetched, or is another one.
    """
    from convarium.weights.source import fetch_card

    card = show(network, weights).card
    return Fetched(card.name, network, str(fetch_card(card).path))
