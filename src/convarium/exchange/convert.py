"""``weights convert``: a file of another library's to a run folder; a run to a file of another library's."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convarium.data.preprocess import Preprocessing
from convarium.errors import DataError, UsageError, check_choice
from convarium.exchange.identify import OURS, Candidate, find_candidates, identify_source
from convarium.networks import check_name, create_model
from convarium.runs import check_output, clear_output, load_run, save_run
from convarium.weights.labels import class_names
from convarium.weights.layouts import find_layout
from convarium.weights.loading import load_source, look_alikes
from convarium.weights.source import Source, find_source, read_source, takes_bgr

if TYPE_CHECKING:
    from rich.console import RenderableType

    from convarium.network import Network
    from convarium.weights.cards import Card
    from convarium.weights.files import WeightFile

IMAGENET = "imagenet-1k"


@dataclass(frozen=True)
class Converted:
    """What was read as which network, and what was written."""

    source: str
    network: str
    library: str
    output: str
    classes: int
    notes: list[str]
    asked: str = ""  # the library that was asked for the same logits, with its version
    difference: float | None = None  # the largest of its logits and ours, relative to the largest logit

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def render(self) -> RenderableType:
        first = f"{self.source}: {self.network}, {self.classes} classes, as {self.library} writes it"
        lines = [first, *self.notes]
        if self.difference is not None:
            largest = f"{self.difference:.1g} of the largest logit"
            lines.append(f"largest difference of logits against {self.asked}: {largest}")
        return "\n".join([*lines, f"written to {self.output}"])


def convert(
    file: Path, /, *, output: Path, network: str | None = None, to: str | None = None, trust: bool = False,
    bgr: bool | None = None, overwrite: bool = False,
) -> Converted:  # fmt: skip
    """Make a run folder of a file of weights, for predict, evaluate, explain, export and train; or, with --to, make of
    a run folder a file that another library opens.

    Args:
        file: a file of any library's, or with --to a run folder.
        output: the run folder to write; with --to the .safetensors file.
        network: the catalogue name, where the file's keys and shapes are those of several networks.
        to: the library to write for, such as timm.
        trust: read a pickle whose hash is nobody's; it is read as tensors only, in a process of its own.
        bgr: the file's first layer takes channels in the order blue, green, red (--no-bgr: red, green, blue); as its
            library's own files of the network do when not given.
        overwrite: replace the run in the output folder.

    Raises:
        UsageError: a network that must be named, or a library that does not have the network.
        DataError: a file that cannot be read or fits no network.
    """
    if to is not None:
        return _write_for(to, file, output, bgr)
    check_output(output, data=None, overwrite=overwrite)
    if network:
        check_name(network)
    source = find_source("", str(file))
    source = replace(source, trusted=source.trusted or trust, bgr=bgr)
    read = read_source(source)
    candidate = _candidate(source, read, str(file), network)
    model = create_model(candidate.network, num_classes=candidate.classes, in_chans=candidate.channels).eval()
    told = load_source(model, source, read=read)
    labels, named = _class_names(candidate.classes, source.card)
    bgr = source.takes_bgr(model.name, candidate.library)
    asked, difference, compared = _ask(model, candidate.library, read, bgr)
    clear_output(output)
    save_run(
        output, model, _preprocessing(model), labels,
        data={"name": source.card.name if source.card else str(file), "fingerprint": "", "seed": 0},
        converted={"file": Path(file).name, "library": candidate.library},
    )  # fmt: skip
    notes = [*told, *named, *compared]
    return Converted(
        str(file), candidate.network, candidate.library, str(output), candidate.classes, notes, asked, difference
    )


def _candidate(source: Source, read: WeightFile, file: str, network: str | None) -> Candidate:
    """The network that the file is read as: the named one, if it fits, else the only one that does."""
    if network:
        # A file is written for it or for one of the same keys and shapes: the rest of the catalogue need not be tried.
        near = [source.card.network] if source.card else [network, *look_alikes(network)]
        named = (each for each in find_candidates(read.tensors, near) if each.network == network)
        if fitting := next(named, None):
            return fitting
    found = identify_source(source, read, file)
    names = ", ".join(each.network for each in found.candidates)
    if network:
        raise DataError(f"{file} does not fit {network}; it fits {names}")
    if found.certain is None:
        raise UsageError(f"{file} fits several networks, which are different functions: add --network, one of {names}")
    return found.certain


def _ask(model: Network, library: str, read: WeightFile, bgr: bool) -> tuple[str, float | None, list[str]]:
    """The library that was asked for the same logits and how far they are from ours; or, in a line, why it was not."""
    from convarium.console import stderr
    from convarium.exchange.peers import NotComparable, difference

    if library == OURS:
        return "", None, []
    try:
        with stderr().status(f"asking {library} for its logits"):
            return *difference(model, library, read, bgr=bgr), []
    except NotComparable as reason:
        return "", None, [f"logits not compared: {reason}"]


def _preprocessing(model: Network) -> Preprocessing:
    channels, size, _ = model.input_size
    return Preprocessing(size, channels, model.mean, model.std, model.crop_pct, model.interpolation)


def _class_names(classes: int, card: Card | None) -> tuple[list[str], list[str]]:
    """Names of the classes, and what was assumed."""
    background = card.background if card else classes - 1000
    if card or classes in (1000, 1001):
        names = list(class_names(card.labels if card else IMAGENET, background))
        return names, [] if card else [f"class names: ImageNet's, as there are {classes} outputs"]
    return [f"class {i}" for i in range(classes)], ["class names: numbers; the file does not say its own"]


def _write_for(library: str, run: Path, output: Path, bgr: bool | None) -> Converted:
    from convarium.exchange.peers import MODULES
    from convarium.tensors import save_tensors

    check_choice("--to", library, MODULES)
    if output.is_dir():
        raise UsageError(f"--output must be a .safetensors file with --to; {output} is a folder")
    loaded = load_run(run)
    layout = find_layout(library, loaded.model.name)
    if layout is None:
        raise UsageError(f"{library} does not have {loaded.model.name}")
    bgr = takes_bgr(loaded.model.name, library) if bgr is None else bgr
    save_tensors(output, layout.save(loaded.model, bgr=bgr), {"format": "pt"})
    return Converted(str(run), loaded.model.name, library, str(output), len(loaded.class_names), [])
