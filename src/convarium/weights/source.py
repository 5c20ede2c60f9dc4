"""From what a user names (``torchvision:IMAGENET1K_V2``, ``hf-hub:owner/name``, a file, a run) to weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from convarium.errors import DataError
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
            told = json.loads(self.config.read_text(encoding="utf-8"))["pretrained_cfg"]
            return told["input_size"][1], told["mean"], told["std"], told["interpolation"], told["crop_pct"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.config} does not say how images are prepared ({error}): put it back") from None


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
    found = find_writing(network, theirs)
    if found is None:
        ours = adapt(theirs)
        check_fit(network, ours, source.path)
        _assign(network, ours)
        return ""
    library, layout = found
    _assign(network, layout.load(network, theirs, str(source.path), adapt))
    if layout.fits(network.name):
        return ""
    return f"{source.path.name} is read as {network.name}, as asked; {library} writes others with these keys too"


def _assign(network: Network, tensors: dict[str, Tensor]) -> None:
    """Make the tensors the network's own, in its types: they are not copied, and it may stand on the meta device."""
    own = network.state_dict()
    network.load_state_dict({key: tensor.to(own[key].dtype) for key, tensor in tensors.items()}, assign=True)


def find_writing(network: Network, theirs: dict[str, Tensor]) -> tuple[str, Layout] | None:
    """Library and layout that a file is written in, for ``network``: one of its own first, else one whose keys are the
    same; ``None`` where the keys are ours, or nobody's."""
    if theirs.keys() >= {key for key in network.state_dict() if not key.startswith("head.classifier")}:
        return None
    known = [(library, layout) for library in LIBRARIES for layout in layouts(library)]
    own = [(library, layout) for library, layout in known if layout.fits(network.name)]
    matching = [pair for pair in [*own, *known] if pair[1].matches(network, theirs)]
    return next(iter(matching or own), None)
