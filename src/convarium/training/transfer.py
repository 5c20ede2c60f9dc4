"""Transfer: training that begins from weights. Which network they are of, and which stages stay or move slowly."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convarium.errors import DataError, UsageError
from convarium.runs import CONFIG, read_config

if TYPE_CHECKING:
    from torch import nn

    from convarium.network import Network
    from convarium.weights.cards import Card

FEATURES = ("all", "features")  # every stage; the head is left to train


@dataclass(frozen=True)
class Base:
    """What is known of weights to begin from.

    Attributes:
        model: the catalogue name of their network.
        size, mean, std, interpolation, crop_pct: the preprocessing that they were trained with.
        pool: their head's global pool; "" where it is the network's own.
        class_names: in the order of their logits; none where only a number is known.
        synsets: the same classes by their WordNet ids, as ImageNet's folders are called; none where they have none.
        arguments: the builder's, with ``in_chans``, and ``attention`` where they have one.
    """

    model: str
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    pool: str = ""
    class_names: list[str] = field(default_factory=list)
    synsets: list[str] = field(default_factory=list)
    arguments: dict[str, Any] = field(default_factory=dict)

    def prepare(self, network: Network) -> None:
        """Have ``network`` see its images, and pool its last map, as these weights did."""
        from convarium.network import GlobalPool

        if self.pool:
            network.head.pool = GlobalPool(self.pool)
        network.use_preprocessing(self.size, self.mean, self.std, self.interpolation, self.crop_pct)

    def differs_in_classes(self, names: list[str]) -> bool:
        """Whether ``names`` are as many classes as these weights know, and others."""
        return len(self.class_names) == len(names) and names not in (self.class_names, self.synsets)


def read_base(weights: str, model: str | None = None) -> Base | None:
    """What a run folder, a hub's repository or a card says of its weights; ``None`` where nothing is known of them.

    Args:
        weights: as :func:`convarium.create_model` takes them.
        model: the network they are for; without it a card that is of one network alone is found, and what is not of
            ours is not.

    Raises:
        UsageError: a card that this network does not have.
        DataError: a folder that is not a whole run.
        ConvariumError: a repository that cannot be fetched.
    """
    from convarium.weights.source import HUB, card_by_hash, find_source, named_card

    path = Path(weights)
    if path.is_dir():
        return _read_folder(path, model)
    if weights.startswith(HUB):
        config = find_source(model or "", weights).config
        return _read_folder(config.parent, model) if config else None
    card = (named_card(model, weights) if model else _card_of_one_network(weights)) or card_by_hash(path)
    return _of_card(card) if card else None


def _of_card(card: Card) -> Base:
    from convarium.weights.labels import class_names, synset_names

    names = list(class_names(card.labels, card.background))
    synsets = names[: card.background] + list(synset_names(card.labels))
    prepared = (card.size, card.mean, card.std, card.interpolation, card.crop_pct)
    return Base(card.network, *prepared, class_names=names, synsets=synsets)


def _card_of_one_network(name: str) -> Card | None:
    from convarium.weights.cards import all_cards

    cards = [card for card in all_cards() if card.name == name]
    return cards[0] if len(cards) == 1 else None


def _read_folder(path: Path, model: str | None) -> Base | None:
    """What a folder in the hub's layout says; one that is not ours does not name the network, which ``model`` does."""
    config = read_config(path)
    ours = "convarium" in config
    if not ours and model is None:
        return None
    try:
        prepared = config["pretrained_cfg"]
        return Base(
            model=config["architecture"] if ours else str(model),
            size=int(prepared["input_size"][1]),
            mean=tuple(prepared["mean"]),
            std=tuple(prepared["std"]),
            interpolation=prepared["interpolation"],
            crop_pct=prepared["crop_pct"],
            pool=config["global_pool"] if ours else "",
            class_names=list(config["label_names"] if ours else config.get("label_names", [])),
            arguments=dict(config["model_args"]) if ours else {},
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(f"{path / CONFIG} is not a whole configuration: {error}") from None


def freeze_parts(network: Network, patterns: str) -> list[str]:
    """Hold parts of a network as they are: no gradients, batch norm and dropout as in evaluation.

    Batch norm in a frozen stage keeps its statistics: with those of each batch, the same weights would be another
    function in every step, and the averages that are kept would drift. What stands before the first part that learns
    needs no backward pass, so that autograd keeps none of its maps.

    Args:
        network: its stages, and the dense layers before its classifier, can be frozen.
        patterns: their names, separated by commas; wildcards (``conv2_x,conv3*``); ``"features"`` or ``"all"`` for
            every stage.

    Returns:
        The names of the frozen parts.

    Raises:
        UsageError: a name that is not there, or nothing left to train.
    """
    parts = {**dict(network.stages.items()), **dict(network.head.hidden.named_children())}
    chosen = _matching(network, [pattern.strip() for pattern in patterns.split(",")], list(parts)) if patterns else []
    for name in chosen:
        parts[name].requires_grad_(False).eval()
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UsageError(
            f"--freeze {patterns} leaves nothing of {network.name} to train: its classifier has no weights"
        )
    return chosen


def _matching(network: Network, patterns: list[str], names: list[str]) -> list[str]:
    chosen: set[str] = set()
    for pattern in patterns:
        if pattern in ("head", "classifier"):
            raise UsageError(
                f"--freeze {pattern} would leave no classifier to train: freeze stages ({', '.join(names)})"
            )
        found = list(network.stages) if pattern in FEATURES else fnmatch.filter(names, pattern)
        if not found:
            raise UsageError(f"{network.name} has no stage {pattern!r} to freeze; it has: {', '.join(names)}")
        chosen.update(found)
    return [name for name in names if name in chosen]


def stage_rates(network: Network, decay: float) -> dict[nn.Parameter, float]:
    """Parts of the learning rate: the head's is 1, that of each stage with weights ``decay`` times the next one's.

    (J. Howard, S. Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018, Section 3.2.)
    """
    stages = [parameters for stage in network.stages.values() if (parameters := list(stage.parameters()))]
    return {p: decay**steps for steps, stage in enumerate(reversed(stages), start=1) for p in stage}
