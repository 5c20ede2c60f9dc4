"""From what a user names (``torchvision:IMAGENET1K_V2``, ``hf-hub:owner/name``, a file, a run) to weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convarium.errors import DataError, UsageError
from convarium.tensors import WEIGHTS
from convarium.weights.cache import digest_of
from convarium.weights.cards import Card, all_cards, find_card, usual_card

if TYPE_CHECKING:
    from convarium.weights.files import WeightFile

HUB = "hf-hub:"
CONFIG = "config.json"


@dataclass(frozen=True)
class Source:
    """A file of weights here.

    Attributes:
        path: the file.
        card: whose it is by its hash, if that is known.
        trusted: a pickle in it may be read.
        config: the ``config.json`` in the hub's layout that lies beside it.
        bgr: its first layer takes channels in the order blue, green, red; ``None`` where nobody said.
    """

    path: Path
    card: Card | None = None
    trusted: bool = False
    config: Path | None = None
    bgr: bool | None = None

    @property
    def preprocessing(self) -> tuple[int, Sequence[float], Sequence[float], str, float] | None:
        """What makes the weights valid, as :meth:`Network.use_preprocessing` takes it; ``None`` where nothing says.

        Raises:
            DataError: a configuration that is not one of the hub's.
        """
        if self.card:
            return self.card.preprocessing
        if self.config is None:
            return None
        try:
            told = self._told()["pretrained_cfg"]
            return told["input_size"][1], told["mean"], told["std"], told["interpolation"], told["crop_pct"]
        except (KeyError, TypeError) as error:
            raise DataError(f"{self.config} does not say how images are prepared ({error}): put it back") from None

    def takes_bgr(self, network: str, library: str) -> bool:
        """Whether its first layer takes blue, green, red: as was said, as its card says, or as its library's mostly
        do."""
        if self.bgr is not None:
            return self.bgr
        return self.card.bgr if self.card else takes_bgr(network, library)

    @property
    def network(self) -> str | None:
        """The catalogue name in a configuration of ours; ``None`` where there is none."""
        told = self._told() if self.config else {}
        return told.get("architecture") if "convarium" in told else None

    @property
    def plan(self) -> dict[str, Any]:
        """How a network that was compressed differs from the catalogue's (:mod:`convarium.plan`); mostly empty."""
        own = self._told().get("convarium") if self.config else None
        return own.get("plan", {}) if isinstance(own, dict) else {}

    @property
    def classes(self) -> int:
        """How many classes its configuration says the weights are for.

        Raises:
            DataError: it does not say.
        """
        told = self._told().get("num_classes") if self.config else None
        if not isinstance(told, int) or told < 0:
            raise DataError(f"{self.config} does not say how many classes there are (num_classes): put it back")
        return told

    def _told(self) -> dict[str, Any]:
        assert self.config is not None
        try:
            return dict(json.loads(self.config.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{self.config} is not a configuration ({error}): put it back") from None


def named_card(network: str, weights: str) -> Card | None:
    """The card that ``weights`` names; ``None`` where it is a file, a folder or a hub's repository.

    Raises:
        UsageError: a card that the network does not have.
    """
    known = {card.library for card in all_cards()}
    return find_card(network, weights) if weights.partition(":")[0] in known else None


def find_source(network: str, weights: str) -> Source:
    """The file that ``weights`` names for ``network``, fetched if it is not here yet.

    Raises:
        UsageError: no such card.
        DataError, ConvariumError: what cannot be fetched.
    """
    if card := named_card(network, weights):
        return fetch_card(card)
    if weights.startswith(HUB):
        from convarium.weights.fetch import fetch, hf_url

        repository = weights.removeprefix(HUB)
        return Source(fetch(hf_url(repository, WEIGHTS)), config=fetch(hf_url(repository, CONFIG)))
    path = Path(weights)
    if path.is_dir():
        return Source(path / WEIGHTS, config=path / CONFIG if (path / CONFIG).exists() else None)
    card = card_by_hash(path)
    return Source(path, card, trusted=card is not None)


def fetch_card(card: Card) -> Source:
    """The card's file, held to its published hash.

    Raises:
        UsageError: no address is known.
        DataError, ConvariumError: what cannot be fetched.
    """
    from convarium.weights.archive import fetch_member
    from convarium.weights.fetch import fetch

    if not card.url:
        raise UsageError(f"no address of {card.network} {card.name} is known: it is {card.note}")
    path = fetch_member(card.url, card.member, card.checksum or None) if card.member else None
    return Source(path or fetch(card.url, checksum=card.checksum or None), card, trusted=bool(card.checksum))


def card_by_hash(path: Path) -> Card | None:
    """The card whose published digits the file's hash begins with.

    Only a file that is called as its library calls it, or whose name holds those digits, is read for it; others have
    no card, and need none to be loaded.
    """
    if not path.is_file():
        return None
    named = [card for card in all_cards() if card.checksum and _is_called(path.name, card)]
    digests: dict[str, str] = {}
    for card in named:
        algorithm, _, digits = card.checksum.partition(":")
        if algorithm not in digests:
            digests[algorithm] = digest_of(path, algorithm)
        if digests[algorithm].startswith(digits):
            return card
    return None


def _is_called(name: str, card: Card) -> bool:
    return name == card.file or card.checksum.partition(":")[2][:8] in name


def read_source(source: Source) -> WeightFile:
    """What a source holds.

    Raises:
        DataError: a file that cannot be read, or that says itself that it is of a function that nobody has here.
    """
    from convarium.weights.files import read_tensors
    from convarium.weights.layouts.caffe import other_function

    read = read_tensors(source.path, trusted=source.trusted)
    if reason := other_function(read.metadata.get("order", [])):
        raise DataError(f"{source.path} {reason}")
    return read


def takes_bgr(network: str, library: str) -> bool:
    """Whether a library's files of a network are mostly for images whose channels are blue, green, red."""
    usual = usual_card(network, library)
    return usual is not None and usual.bgr
