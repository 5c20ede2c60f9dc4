"""A layout: how another library writes the weights of a network, as data that works both ways.

``rules`` are applied to each of our keys in turn, as plain text, each where it is found; what comes out is their key.
Since the network is at hand, the way back is the same list read from the other side. ``values`` says for which of our
keys, by wildcard, the numbers are written in another form. Loading is strict: every key of ours is found, every key of
theirs is used or named in ``spare``, every shape fits.
"""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convarium.adaptation import first_kernel
from convarium.tensors import check_fit, tell_misfits

Tensors = dict[str, Tensor]
Adapt = Callable[[Tensors], Tensors]
Rules = tuple[tuple[str | re.Pattern[str], str], ...]


@dataclass(frozen=True)
class Form:
    """A form of one tensor: ``load`` makes ours from theirs, given the tensor that ours will take the place of;
    ``save`` makes theirs."""

    load: Callable[[Tensor, Tensor], Tensor]
    save: Callable[[Tensor], Tensor]


def _same(theirs: Tensor, ours: Tensor) -> Tensor:
    return theirs


FORMS: dict[str, Form] = {
    "same": Form(_same, lambda ours: ours),
    # A dense layer as a 1x1 convolution.
    "1x1": Form(lambda theirs, ours: theirs.flatten(1), lambda ours: ours[:, :, None, None]),
    # One that reads a flattened map of 7x7 as a convolution.
    "7x7": Form(lambda theirs, ours: theirs.flatten(1), lambda ours: ours.unflatten(1, (-1, 7, 7))),
    # TensorFlow's kernels: height, width, in, out; those of depthwise convolutions: height, width, in, 1.
    "hwio": Form(lambda theirs, ours: theirs.permute(3, 2, 0, 1), lambda ours: ours.permute(2, 3, 1, 0)),
    "hwoi": Form(lambda theirs, ours: theirs.permute(2, 3, 0, 1), lambda ours: ours.permute(2, 3, 0, 1)),
    "transposed": Form(lambda theirs, ours: theirs.T, lambda ours: ours.T),
    "hwio 1x1": Form(lambda theirs, ours: theirs[0, 0].T, lambda ours: ours.T[None, None]),
    # Caffe's blobs of the first years, all of four dimensions: (1, 1, 1, n), and (1, 1, out, in) of dense layers.
    "vector": Form(lambda theirs, ours: theirs.flatten(), lambda ours: ours),
    "rows": Form(lambda theirs, ours: theirs.flatten(0, -2), lambda ours: ours),
    # A dense layer over a 7x7 map that was flattened height by width by channels, where torch's channels come first.
    "over 7x7 hwc": Form(
        lambda theirs, ours: theirs.T.unflatten(1, (7, 7, -1)).permute(0, 3, 1, 2).flatten(1),
        lambda ours: ours.unflatten(1, (-1, 7, 7)).permute(2, 3, 1, 0).flatten(0, 2),
    ),
}


@dataclass(frozen=True)
class Layout:
    """How a library writes the networks whose names match one of ``networks``.

    Attributes:
        networks: wildcards of catalogue names.
        rules: pairs of text in our keys, or of a pattern over them, and of what stands there in theirs.
        values: pairs of a wildcard over our keys and the name of one of :data:`FORMS`.
        leaves: our prefix and theirs (``"features."``), where their key numbers layers in the order they run in.
        numbered: pairs of a wildcard over our modules and a text with ``{}`` that takes their place before the rules,
            where their layers are numbered in the order they were made; the first wildcard that fits counts.
        optional: wildcards over our keys that their files may lack, and the number that then stands there.
        absent: the same, of keys that their files never have. Gains of batch norms among them are put into the kernels
            before them on the way back.
        idle_biases: their convolutions have biases where a batch norm of ours follows, which takes them off its means.
        spare: wildcards over their keys that have no place here, such as those of auxiliary heads.
        eps: of their batch norms, where it is not ours: the gains make up for the difference. (So could the variances,
            but a channel that is dead there would have a negative one, of few digits.)
        factors: pairs of a wildcard over our keys and what their numbers are multiplied by, where that makes up for
            another constant in their function.
        older: pairs of how a key of theirs began in older files and how it does now; these are read, never written.
        read: what else makes one set of keys of those that the library's files have.
    """

    networks: tuple[str, ...]
    rules: Rules
    values: tuple[tuple[str, str], ...] = ()
    leaves: tuple[str, str] | None = None
    numbered: tuple[tuple[str, str], ...] = ()
    optional: tuple[tuple[str, float], ...] = (("*.num_batches_tracked", 0),)
    absent: tuple[tuple[str, float], ...] = ()
    idle_biases: bool = False
    spare: tuple[str, ...] = ()
    eps: float | None = None
    factors: tuple[tuple[str, float], ...] = ()
    older: tuple[tuple[str, str], ...] = ()
    read: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict

    def fits(self, name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.networks)

    def keys(self, network: nn.Module) -> dict[str, str]:
        """Our key to theirs, for every tensor of ``network`` that their files have."""
        names = self._names(network)
        ours = [key for key in network.state_dict() if _number(self.absent, key) is None]
        found = {key: self._rename(key, names) for key in ours}
        if len({*found.values()}) < len(found):
            raise AssertionError("two of our keys become one of theirs")
        return found

    def biases(self, network: nn.Module) -> dict[str, str]:
        """The running means that take idle biases, by our key, to their key of the bias."""
        if not self.idle_biases:
            return {}
        names = self._names(network)
        return {f"{norm}.running_mean": self._rename(f"{conv}.bias", names) for conv, norm in _normed(network)}

    def _names(self, network: nn.Module) -> dict[str, str]:
        leaves = _leaf_numbers(network, *self.leaves) if self.leaves else {}
        return leaves | _numbers(network, self.numbered)

    def _rename(self, key: str, names: Mapping[str, str]) -> str:
        module, _, leaf = key.rpartition(".")
        key = f"{names.get(module, module)}.{leaf}"
        for ours, theirs in self.rules:
            key = key.replace(ours, theirs, 1) if isinstance(ours, str) else ours.sub(theirs, key, count=1)
        return key

    def form(self, key: str) -> Form:
        return FORMS[next((form for pattern, form in self.values if fnmatch.fnmatchcase(key, pattern)), "same")]

    # -- both ways ----------------------------------------------------------------------------------------------

    def load(
        self,
        network: nn.Module,
        theirs: Mapping[str, Tensor],
        source: str,
        adapt: Adapt = lambda tensors: tensors,
        *,
        bgr: bool = False,
    ) -> Tensors:
        """Our tensors from theirs, for ``load_state_dict``.

        Args:
            network: what they are to fit.
            theirs: under their keys.
            source: names the file in errors.
            adapt: what is done to the tensors, under our keys, before their shapes are held to the network's.
            bgr: theirs takes images whose channels are blue, green, red; ours take red, green, blue.

        Raises:
            DataError: keys that are missing or left over, or shapes that do not fit, listed from both sides.
        """
        theirs, keys, biases = self.today(theirs), self.keys(network), self.biases(network)
        missing = self._needed(keys, biases) - theirs.keys()
        left = theirs.keys() - {*keys.values(), *biases.values()}
        unexpected = {key for key in left if not _matches(key, self.spare)}
        tell_misfits(network, source, missing, unexpected)
        loaded: Tensors = {}
        for key, like in network.state_dict().items():
            default = self._default(key)
            if keys.get(key) in theirs:
                loaded[key] = _in_form(self.form(key), theirs[keys[key]], like)
            elif default is not None:
                loaded[key] = torch.full_like(like, default, device="cpu")
            if key in biases:
                loaded[key] = loaded[key] - theirs[biases[key]]
            if factor := _number(self.factors, key):
                loaded[key] = loaded[key] * factor
        loaded = adapt(_turned(network, loaded) if bgr else loaded)
        check_fit(network, loaded, source)
        return self._with_eps(network, loaded, load=True)

    def matches(self, network: nn.Module, theirs: Collection[str]) -> bool:
        """Whether the keys are those of ``network`` in this layout, all of them and none more."""
        found = self.today(dict.fromkeys(theirs)).keys()
        if not self._begins_and_ends_alike(network, found):
            return False
        keys, biases = self.keys(network), self.biases(network)
        left = found - {*keys.values(), *biases.values()}
        return self._needed(keys, biases) <= found and all(_matches(key, self.spare) for key in left)

    def save(self, network: nn.Module, *, bgr: bool = False) -> Tensors:
        """Their tensors from ours: what their library would write; ``bgr`` as for :meth:`load`."""
        keys = self.keys(network)
        ours = self._with_eps(network, dict(network.state_dict()), load=False)
        ours = _turned(network, ours) if bgr else ours
        for key in ours:
            if factor := _number(self.factors, key):
                ours[key] = ours[key] / factor
        for conv, norm in _normed(network):
            if f"{norm}.weight" not in keys:
                gains = ours[f"{norm}.weight"]
                ours[f"{conv}.weight"] = ours[f"{conv}.weight"] * gains[:, None, None, None]
                ours[f"{norm}.running_mean"] = ours[f"{norm}.running_mean"] * gains
        idle = {theirs: torch.zeros_like(ours[mean]) for mean, theirs in self.biases(network).items()}
        return {keys[key]: self.form(key).save(ours[key]).contiguous() for key in keys} | idle

    def _needed(self, keys: Mapping[str, str], biases: Mapping[str, str]) -> set[str]:
        return {keys[key] for key in keys if self._default(key) is None} | {*biases.values()}

    def _begins_and_ends_alike(self, network: nn.Module, found: Collection[str]) -> bool:
        """Whether the first and the last key are there: this sorts out most layouts at once."""
        names = self._names(network)
        ours = [k for k in network.state_dict() if _number(self.absent, k) is None and self._default(k) is None]
        return all(self._rename(key, names) in found for key in (ours[0], ours[-1]))

    def today(self, theirs: Mapping[str, Any]) -> Mapping[str, Any]:
        """A file's tensors, or what else stands under its keys, by the keys that the rules lead to."""
        return self.read({_renewed(key, self.older): value for key, value in theirs.items()})

    def _default(self, key: str) -> float | None:
        return _number(self.optional + self.absent, key)

    def _with_eps(self, network: nn.Module, tensors: Tensors, load: bool) -> Tensors:
        if self.eps is not None:
            for path, module in network.named_modules():
                if isinstance(module, nn.BatchNorm2d):
                    variance, gains = tensors[f"{path}.running_var"], tensors[f"{path}.weight"]
                    ratio = ((variance + module.eps) / (variance + self.eps)).sqrt()
                    tensors[f"{path}.weight"] = gains * ratio if load else gains / ratio
        return tensors


def _turned(network: nn.Module, tensors: Tensors) -> Tensors:
    """With the first kernels' three channels in the other order."""
    key = first_kernel(network)
    return tensors | {key: tensors[key].flip(1)} if tensors[key].ndim == 4 and tensors[key].shape[1] == 3 else tensors


def _in_form(form: Form, theirs: Tensor, like: Tensor) -> Tensor:
    """Ours from theirs; theirs as it is where it has too few or too many dimensions, to be told as misshapen."""
    try:
        return form.load(theirs, like)
    except (IndexError, RuntimeError):
        return theirs


def _leaf_numbers(network: nn.Module, ours: str, theirs: str) -> dict[str, str]:
    """Path of each layer below ``ours`` to ``theirs`` with its number; empty slots are no layers."""
    leaves = [
        path
        for path, module in network.named_modules()
        if path.startswith(ours) and not list(module.children()) and not isinstance(module, nn.Identity)
    ]
    return {path: f"{theirs}{number}" for number, path in enumerate(leaves)}


def _numbers(network: nn.Module, numbered: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Path of each module that a wildcard fits to its text, with how many it fitted before."""
    counts: Counter[str] = Counter()
    names = {}
    for path, _ in network.named_modules():
        fitting = ((pattern, text) for pattern, text in numbered if fnmatch.fnmatchcase(path, pattern))
        for pattern, text in list(fitting)[:1]:
            names[path] = text.format(counts[pattern])
            counts[pattern] += 1
    return names


def _normed(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Paths of each convolution without a bias that a batch norm follows, and of that norm."""
    for path, module in network.named_modules():
        conv, norm = getattr(module, "conv", None), getattr(module, "norm", None)
        if isinstance(conv, nn.Conv2d) and conv.bias is None and isinstance(norm, nn.BatchNorm2d):
            yield f"{path}.conv", f"{path}.norm"


def _renewed(key: str, older: tuple[tuple[str, str], ...]) -> str:
    """A key of an older file as it is today."""
    return next((new + key.removeprefix(old) for old, new in older if key.startswith(old)), key)


def _number(pairs: tuple[tuple[str, float], ...], key: str) -> float | None:
    """What stands for ``key`` in pairs of wildcards and numbers."""
    return next((value for pattern, value in pairs if fnmatch.fnmatchcase(key, pattern)), None)


def _matches(key: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)
