"""From what a user names (``torchvision:IMAGENET1K_V2``, ``hf-hub:owner/name``, a file, a run) to weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convarium.errors import DataError
from convarium.facts import all_facts
from convarium.tensors import WEIGHTS, check_fit
from convarium.weights.cards import Card, all_cards, find_card
from convarium.weights.layouts import LIBRARIES, layouts

if TYPE_CHECKING:
    from torch import Tensor

    from convarium.network import Network
    from convarium.weights.layout import Layout

HUB = "hf-hub:"
CONFIG = "config.json"

Adapt = Callable[[dict[str, "Tensor"]], dict[str, "Tensor"]]


@dataclass(frozen=True)
class Source:
    """A file of weights here, the ``card`` it is if that is known, whether a pickle in it may be read, and the
    ``config.json`` in the hub's layout that lies beside it."""

    path: Path
    card: Card | None = None
    trusted: bool = False
    config: Path | None = None

    @property
    def preprocessing(self) -> tuple[int, Sequence[float], Sequence[float], str, float] | None:
        """What makes the weights valid, as :meth:`Network.use_preprocessing` takes it; ``None`` where nothing says.

        Raises:
            DataError: a configuration that is not one of the hub's.
        """
        if self.card:
            return self.card.size, self.card.mean, self.card.std, self.card.interpolation, self.card.crop_pct
        if self.config is None:
            return None
        try:
            told = self._told()["pretrained_cfg"]
            return told["input_size"][1], told["mean"], told["std"], told["interpolation"], told["crop_pct"]
        except (KeyError, TypeError) as error:
            raise DataError(f"{self.config} does not say how images are prepared ({error}): put it back") from None

    @property
    def network(self) -> str | None:
        """The catalogue name in a configuration of ours; ``None`` where there is none."""
        told = self._told() if self.config else {}
        return told.get("architecture") if "convarium" in told else None

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
    """The card's file, held to its published hash."""
    from convarium.weights.fetch import fetch

    return Source(fetch(card.url, sha256=card.sha256 or None), card, trusted=bool(card.sha256))


def card_by_hash(path: Path) -> Card | None:
    """The card whose published digits the file's sha256 begins with.

    Only a file whose name holds those digits is read for it, as every library names its files by them.
    """
    named = [card for card in all_cards() if card.sha256 and card.sha256[:8] in path.name]
    if not named or not path.is_file():
        return None
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return next((card for card in named if digest.startswith(card.sha256)), None)


def load_source(network: Network, source: Source, adapt: Adapt = lambda tensors: tensors) -> str:
    """Load a file's weights into ``network``, strictly, from whichever layout they are written in.

    Args:
        network: built for these weights, but for what ``adapt`` can bridge.
        source: the file.
        adapt: what is done to the tensors, under our keys, before they are held to the network.

    Returns:
        What is to be said about it in one line; mostly nothing.

    Raises:
        DataError: a file that cannot be read, or that belongs to another network.
    """
    from convarium.weights.files import read_tensors

    if source.card and source.card.network != network.name:
        raise DataError(
            f"{source.path} is {source.card.name}, the weights of {source.card.network}, by its hash: that is another "
            f"function than {network.name}, though a file may fit both; build {source.card.network} for it"
        )
    theirs = read_tensors(source.path, trusted=source.trusted).tensors
    layout = find_writing(network, theirs)
    ours = layout.load(network, theirs, str(source.path), adapt) if layout else adapt(theirs)
    check_fit(network, ours, source.path)
    if source.network not in (None, network.name):
        raise DataError(f"{source.config} says that these are the weights of {source.network}, not of {network.name}")
    own = network.state_dict()
    # Assigned, not copied: the network may stand on the meta device.
    network.load_state_dict({key: tensor.to(own[key].dtype) for key, tensor in ours.items()}, assign=True)
    alike = look_alikes(network.name)
    if source.card or source.network or not alike:
        return ""
    return (
        f"{source.path.name} is read as {network.name}, as asked; as many parameters in the same stages have "
        f"{', '.join(alike)}, which are other functions"
    )


def look_alikes(name: str) -> list[str]:
    """Networks whose files may have the same keys and shapes: as many parameters in stages of the same names."""
    own = all_facts().get(name)
    return [
        other.name
        for other in all_facts().values()
        if own and other.name != name and (other.counts.params, [*other.stages]) == (own.counts.params, [*own.stages])
    ]


def find_writing(network: Network, theirs: Collection[str]) -> Layout | None:
    """The layout that a file with these keys is written in, for ``network``: one of its own first, else one whose keys
    are the same; ``None`` where the keys are ours, or nobody's."""
    if {*theirs} >= {key for key in network.state_dict() if not key.startswith("head.classifier")}:
        return None
    known = [layout for library in LIBRARIES for layout in layouts(library)]
    own = [layout for layout in known if layout.fits(network.name)]
    matching = (layout for layout in [*own, *known] if layout.matches(network, theirs))
    return next(matching, next(iter(own), None))  # where none matches, its own tells best what does not fit
