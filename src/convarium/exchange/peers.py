"""The other libraries themselves, where they are installed: each network built by its own, with a file's weights in it.

They are imported here alone, by name and on use: nothing else of this project needs them. ``tests/parity`` builds its
peers here too.
"""

from __future__ import annotations

import os
import warnings
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from convarium.errors import ConvariumError
from convarium.exchange.pairs import PAIRS, Pair
from convarium.weights.layouts import find_layout

if TYPE_CHECKING:
    from convarium.network import Network
    from convarium.weights.files import WeightFile

# Whose layout, to the package that is installed, and the module in it that builds networks.
MODULES = {
    "torchvision": ("torchvision", "torchvision.models"),
    "timm": ("timm", "timm"),
    "cadene": ("pretrainedmodels", "pretrainedmodels"),
    "pytorchcv": ("pytorchcv", "pytorchcv.model_provider"),
    "keras": ("keras", "keras.applications"),
}
CHANNELS = {"timm": "in_chans", "pytorchcv": "in_channels"}  # what the others call it: they have none, or a whole shape


class NotComparable(ConvariumError):
    """The library is not here, or does not build this; the message says which."""


def import_peer(library: str) -> Any:
    """The module of a library that builds its networks.

    Raises:
        NotComparable: it is not installed, or cannot be imported.
    """
    package, module = MODULES[library]
    if library == "keras":
        os.environ.setdefault("KERAS_BACKEND", "torch")  # the one that is surely here
    try:
        with warnings.catch_warnings(action="ignore"):
            return import_module(module)
    except ModuleNotFoundError as error:
        missing = package if error.name in (package, None) else f"{error.name}, which {package} needs,"
        raise NotComparable(f"{missing} is not installed") from None
    except (ImportError, RuntimeError) as error:  # torchvision looks for operators that not every torch has
        raise NotComparable(f"{package} cannot be imported ({str(error).splitlines()[0]})") from None


def build(pair: Pair, **sizes: int) -> nn.Module | Keras:
    """The entry of a library, with weights of its own; ``sizes``: ``classes`` and ``channels``, its usual ones else.

    Raises:
        NotComparable: the library is not here, or has no such form of it.
    """
    module = import_peer(pair.library)
    if pair.library == "keras":
        return Keras(module, pair, **sizes)
    named = {"num_classes": sizes["classes"]} if "classes" in sizes else {}
    if sizes.get("channels", 3) != 3:
        if pair.library not in CHANNELS:
            raise NotComparable(f"{MODULES[pair.library][0]} builds {pair.entry} for three channels only")
        named[CHANNELS[pair.library]] = sizes["channels"]
    with warnings.catch_warnings(action="ignore"):
        made: nn.Module = _construct(module, pair, {**named, **pair.options})
    return made


def _construct(module: Any, pair: Pair, options: dict[str, Any]) -> Any:
    if pair.library == "timm":
        return module.create_model(pair.entry, **options)
    if pair.library == "pytorchcv":
        return module.get_model(pair.entry, **options)
    if pair.entry == "cafferesnet101":  # its function takes the classes from the file that it is given
        its = import_module("pretrainedmodels.models.cafferesnet")
        return its.ResNet(its.Bottleneck, [3, 4, 23, 3], **options)
    if pair.library == "cadene":
        options["pretrained"] = None
    return getattr(module, pair.entry)(**options)


class Keras:
    """A network of Keras, called as torch's are: on images whose channels come first, of any size."""

    def __init__(self, module: Any, pair: Pair, classes: int = 1000, channels: int = 3) -> None:
        entry = getattr(module, pair.entry)
        options = {"weights": None, "classifier_activation": None, "classes": classes, **pair.options}
        self._make = lambda size: entry(input_shape=(size, size, channels), **options)
        self._networks = {pair.size: self._make(pair.size)}
        self.made = self._networks[pair.size]

    def eval(self) -> Keras:
        return self

    def __call__(self, x: Tensor, training: bool = False) -> Tensor:
        size = x.shape[-1]
        if size not in self._networks:
            self._networks[size] = self._make(size)
            self._networks[size].set_weights(self.made.get_weights())
        logits = self._networks[size](x.permute(0, 2, 3, 1).numpy(), training=training)
        return torch.from_numpy(import_module("keras").ops.convert_to_numpy(logits))


def difference(network: Network, library: str, read: WeightFile, *, bgr: bool) -> tuple[str, float]:
    """What a library says with a file's weights, against what ``network`` says with them.

    Args:
        network: with the file's weights, in evaluation mode.
        library: whose layout the file is written in.
        read: the file.
        bgr: the library's images are blue, green, red.

    Returns:
        The library with its version, and the largest difference of logits of two random images, relative to the
        largest logit.

    Raises:
        NotComparable: the library is not here, or has no network that takes this very file.
    """
    if library not in MODULES:
        raise NotComparable(f"no library of this kind can be asked for {library}")
    package = MODULES[library][0]
    pairs = [pair for pair in PAIRS if (pair.library, pair.ours) == (library, network.name)]
    if not pairs:
        raise NotComparable(f"{package} has no network of the function of {network.name}")
    peer, size = _with_weights(pairs, network, read)
    x = torch.randn(2, network.input_size[0], size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = peer(x.flip(1) if bgr else x).flatten(1)
        ours = network(x)
    return f"{package} {version(package)}", float((ours - theirs).abs().max() / theirs.abs().max())


def _with_weights(pairs: list[Pair], network: Network, read: WeightFile) -> tuple[Any, int]:
    """The first of a library's entries that takes the file as it is, and the size of its images."""
    channels = network.input_size[0]
    for pair in pairs:
        peer = build(pair, classes=network.num_classes, channels=channels)
        if isinstance(peer, Keras):
            return _loaded(peer, read.path), pair.size
        theirs = _tensors(pair, read)
        state = peer.state_dict()
        counters = {key for key in state.keys() - theirs.keys() if key.endswith("num_batches_tracked")}
        if state.keys() - counters == theirs.keys() and all(state[key].shape == theirs[key].shape for key in theirs):
            peer.load_state_dict(theirs, strict=False)
            return peer.eval(), pair.size
    package = MODULES[pairs[0].library][0]
    raise NotComparable(f"{package} builds {pairs[0].entry} with other keys or shapes than this file's")


def _tensors(pair: Pair, read: WeightFile) -> dict[str, Tensor]:
    layout = find_layout(pair.library, pair.ours)
    return dict(layout.today(read.tensors)) if layout else read.tensors


def _loaded(peer: Keras, path: Path) -> Keras:
    try:
        peer.made.load_weights(str(path))
    except ValueError as error:
        raise NotComparable(f"keras does not take this file ({' '.join(str(error).split())[:100]})") from None
    return peer
