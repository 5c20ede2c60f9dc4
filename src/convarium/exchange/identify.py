"""``weights identify``: which network a file belongs to, by its hash, its keys and its shapes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convarium.errors import DataError
from convarium.facts import all_facts
from convarium.networks import CATALOGUE, create_on_meta
from convarium.tensors import check_fit
from convarium.weights.layouts import LIBRARIES, find_layout
from convarium.weights.source import Source, find_source, read_source, takes_bgr

if TYPE_CHECKING:
    from rich.console import RenderableType
    from torch import Tensor

    from convarium.network import Network
    from convarium.weights.files import WeightFile
    from convarium.weights.layout import Layout

OURS = "convarium"
Shapes = tuple[tuple[str, tuple[int, ...]], ...]
# The whole of a file against the network's parameters with its usual classifier: another one, running statistics and
# auxiliary heads lie in between.
LEAST, MOST = 0.4, 2.5


@dataclass(frozen=True)
class Candidate:
    """A network that a file fits, key by key and shape by shape.

    ``library`` is whose layout the file is written in; ``writes`` says whether that library has this very function
    under these keys, or only another one with the same; ``bgr``, whether its first layer is taken to be for images
    whose channels are blue, green, red.
    """

    network: str
    library: str
    classes: int
    channels: int
    writes: bool
    bgr: bool


@dataclass(frozen=True)
class Identified:
    """What is known of a file: the ``card`` it is by its hash, else the networks that it fits, likeliest first."""

    file: str
    kind: str
    tensors: int
    numbers: int
    card: str
    candidates: list[Candidate]

    @property
    def certain(self) -> Candidate | None:
        """The one network that it belongs to, if there is but one."""
        written = [candidate for candidate in self.candidates if candidate.writes]
        return written[0] if len(written) == 1 and (self.card or len(self.candidates) == 1) else None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def render(self) -> RenderableType:
        first = self.candidates[0]
        lines = [f"{self.file}: {self.kind}, {self.tensors} tensors, {self.numbers:,} numbers"]
        lines.append(
            f"{first.network}, as {first.library} writes it: {first.classes} classes, {first.channels} input channels"
        )
        if self.card:
            lines.append(f"by its hash it is {self.card}")
        elif first.bgr:
            lines.append(
                f"its images are taken to be blue, green, red, as {first.library}'s own of this network are; the file "
                "does not say so: where they are red, green, blue, convarium weights convert FILE --no-bgr"
            )
        others = [candidate.network for candidate in self.candidates[1:]]
        if others and not self.card:
            lines.append(
                f"the same keys and shapes have: {', '.join(others)}; the file does not say which of these functions "
                "it was trained as: name the one you mean, create_model(NAME, weights=FILE)"
            )
        return "\n".join(lines)


def identify(file: Path, /, *, trust: bool = False) -> Identified:
    """Say which network a file of weights belongs to, and who wrote it.

    Args:
        file: a file of any library's, or a run folder.
        trust: read a pickle whose hash is nobody's; it is read as tensors only, in a process of its own.

    Raises:
        DataError: a file that cannot be read, or that fits no network of the catalogue.
    """
    source = find_source("", str(file))
    source = replace(source, trusted=source.trusted or trust)
    return identify_source(source, read_source(source), str(file))


def identify_source(source: Source, read: WeightFile, file: str) -> Identified:
    """The same of what is read already; ``file`` names it.

    Raises:
        DataError: what fits no network of the catalogue.
    """
    numbers = sum(tensor.numel() for tensor in read.tensors.values())
    names: Iterable[str] = [source.card.network] if source.card else CATALOGUE
    candidates = list(find_candidates(read.tensors, names))
    if not candidates:
        shown = ", ".join(list(read.tensors)[:3])
        raise DataError(
            f"{file} fits no network of the catalogue: {len(read.tensors)} tensors, {numbers:,} numbers, beginning "
            f"with {shown}"
        )
    candidates.sort(key=lambda candidate: not candidate.writes)
    card = source.card.name if source.card else ""
    return Identified(file, read.kind, len(read.tensors), numbers, card, candidates)


def find_candidates(tensors: dict[str, Tensor], names: Iterable[str]) -> Iterable[Candidate]:
    """Every network of ``names`` that the tensors fit: those that a library writes so, or we do, then those that have
    the same keys and shapes as one of them."""
    from convarium.console import counting

    numbers = sum(tensor.numel() for tensor in tensors.values())
    near = [name for name in names if LEAST < numbers / all_facts()[name].counts.params < MOST]
    found: dict[Shapes, Candidate] = {}
    shapes: dict[str, Shapes] = {}
    written = set()
    with counting("comparing", len(near)) as tick:
        for done, name in enumerate(near, 1):
            network = create_on_meta(name)
            shapes[name] = tuple((key, tuple(tensor.shape)) for key, tensor in network.state_dict().items())
            for candidate in _written(network, tensors):
                found.setdefault(shapes[name], candidate)
                written.add(name)
                yield candidate
            tick(done)
    for name in near:
        if name not in written and shapes[name] in found:
            alike = found[shapes[name]]
            yield replace(alike, network=name, writes=alike.library == OURS, bgr=takes_bgr(name, alike.library))


def _written(network: Network, tensors: dict[str, Tensor]) -> Iterable[Candidate]:
    """The network as we write it, or as the first library does that has it."""
    if tensors.keys() == network.state_dict().keys():
        yield from _sized(network.name, OURS, None, tensors)
        return
    for library in LIBRARIES:
        layout = find_layout(library, network.name)
        if layout and layout.matches(network, tensors):
            yield from _sized(network.name, library, layout, tensors)
            return


def _sized(name: str, library: str, layout: Layout | None, tensors: dict[str, Tensor]) -> Iterable[Candidate]:
    """The network with the file's own numbers of classes and channels, if all shapes then fit."""
    network = create_on_meta(name)
    classes, channels = _size_of(network, "head.classifier", layout, tensors, 0), _channels(network, layout, tensors)
    try:
        network = create_on_meta(name, num_classes=classes, in_chans=channels)
        ours = layout.load(network, tensors, "") if layout else tensors
        check_fit(network, ours, "")
    except (DataError, RuntimeError):
        return
    writes = layout is None or layout.fits(name)
    yield Candidate(name, library, classes, channels, writes, takes_bgr(name, library))


def _channels(network: Network, layout: Layout | None, tensors: dict[str, Tensor]) -> int:
    return _size_of(network, network.pretrained_cfg["first_conv"], layout, tensors, 1)


def _size_of(network: Network, module: str, layout: Layout | None, tensors: dict[str, Tensor], axis: int) -> int:
    """Length of the weight of the first module below ``module``, as the file has it."""
    wanted = network.state_dict()
    key = next(key for key in wanted if key.startswith(module) and wanted[key].ndim > 1)
    if layout is None:
        return tensors[key].shape[axis]
    found: int = layout.form(key).load(layout.today(tensors)[layout.keys(network)[key]], wanted[key]).shape[axis]
    return found
