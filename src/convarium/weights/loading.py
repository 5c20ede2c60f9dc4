"""A source's weights into a network: whose layout they are in, that they fit, and what makes them valid."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from convarium.errors import DataError
from convarium.facts import all_facts
from convarium.tensors import check_fit
from convarium.weights.cards import usual_card
from convarium.weights.layouts import LIBRARIES, layouts
from convarium.weights.source import Source, read_source

if TYPE_CHECKING:
    from torch import Tensor

    from convarium.network import Network
    from convarium.weights.files import WeightFile
    from convarium.weights.layout import Layout

Adapt = Callable[[dict[str, "Tensor"]], dict[str, "Tensor"]]


def load_source(
    network: Network, source: Source, adapt: Adapt = lambda tensors: tensors, read: WeightFile | None = None
) -> list[str]:
    """Load a file's weights into ``network``, strictly, from whichever layout they are written in, and have it see its
    images as they were trained on.

    Args:
        network: built for these weights, but for what ``adapt`` can bridge.
        source: the file.
        adapt: what is done to the tensors, under our keys, before they are held to the network.
        read: what the file holds, where it is read already.

    Returns:
        What is to be said about it, a line each; mostly nothing.

    Raises:
        DataError: a file that cannot be read, or that belongs to another network.
    """
    if source.card and source.card.network != network.name:
        raise DataError(
            f"{source.path} is {source.card.name}, the weights of {source.card.network}, by its hash: that is another "
            f"function than {network.name}, though a file may fit both; build {source.card.network} for it"
        )
    theirs = (read or read_source(source)).tensors
    library, layout = find_writing(network, theirs)
    bgr = source.takes_bgr(network.name, library)
    if layout:
        ours = layout.load(network, theirs, str(source.path), adapt, bgr=bgr)
    else:
        ours = adapt(theirs)
        check_fit(network, ours, source.path)
    if source.network not in (None, network.name):
        raise DataError(f"{source.config} says that these are the weights of {source.network}, not of {network.name}")
    own = network.state_dict()
    # Assigned, not copied: the network may stand on the meta device.
    network.load_state_dict({key: tensor.to(own[key].dtype) for key, tensor in ours.items()}, assign=True)
    return _told_function(network, source) + _prepare(network, source, library)


def _told_function(network: Network, source: Source) -> list[str]:
    alike = look_alikes(network.name)
    if source.card or source.network or not alike:
        return []
    return [
        f"{source.path.name} is read as {network.name}, as asked; as many parameters in the same stages have "
        f"{', '.join(alike)}, which are other functions"
    ]


def _prepare(network: Network, source: Source, library: str) -> list[str]:
    """Have a network see its images as the file was trained on them; where the file does not say how, as its library's
    own files mostly were, which is then said."""
    if source.preprocessing:
        network.use_preprocessing(*source.preprocessing)
        return []
    usual = usual_card(network.name, library)
    if usual:
        network.use_preprocessing(network.input_size[1], *usual.preprocessing[1:])
    told = f"{source.path.name} does not say how its images are prepared: taken as for "
    told += f"{usual.name}" if usual else f"{network.name} itself"
    if usual and usual.bgr and source.bgr is None:
        command = f"convarium weights convert {source.path} --network {network.name} --no-bgr --output RUN"
        told += f", blue, green, red; where they are red, green, blue: {command}"
    elif source.bgr is not None:
        told += ", but blue, green, red" if source.bgr else ", but red, green, blue"
    return [told]


def look_alikes(name: str) -> list[str]:
    """Networks whose files may have the same keys and shapes: as many parameters in stages of the same names."""
    own = all_facts().get(name)
    return [
        other.name
        for other in all_facts().values()
        if own and other.name != name and (other.counts.params, [*other.stages]) == (own.counts.params, [*own.stages])
    ]


def find_writing(network: Network, theirs: Collection[str]) -> tuple[str, Layout | None]:
    """The library and the layout that a file with these keys is written in, for ``network``: one of its own first, else
    one whose keys are the same; ``""`` and ``None`` where the keys are ours, or nobody's."""
    if {*theirs} >= {key for key in network.state_dict() if not key.startswith("head.classifier")}:
        return "", None
    known = [(library, layout) for library in LIBRARIES for layout in layouts(library)]
    own = [(library, layout) for library, layout in known if layout.fits(network.name)]
    matching = (each for each in [*own, *known] if each[1].matches(network, theirs))
    return next(matching, next(iter(own), ("", None)))  # where none matches, its own tells best what does not fit
