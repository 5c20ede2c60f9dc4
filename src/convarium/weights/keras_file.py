"""Keras' files, ``.h5``, ``.weights.h5`` and ``.keras``, read through HDF5 alone; no layer is built or run."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convarium.errors import DataError, require

if TYPE_CHECKING:
    import h5py
    from torch import Tensor

WEIGHTS, CONFIG = "model.weights.h5", "config.json"  # all that is read of a .keras archive
CONFIG_LIMIT_BYTES = 64 * 2**20
# Keras 3 numbers a layer's variables; these are their names, by the class that the layer's group is called after.
# A norm of three has no gamma (scale=False), as in all of Keras' own networks that have such norms.
VARIABLES = {
    "conv2d": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
    "depthwise_conv2d": ("kernel", "bias"),
    "separable_conv2d": ("depthwise_kernel", "pointwise_kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}
FILTERS = {1, 2, 3, 32000}  # deflate, shuffle, checksum, lzf: those that need no plugin
LARGEST_EXPANSION = 16  # bytes of tensors per byte of the file


class _Refused(Exception):
    """What the file does that no weight file needs."""


def read_keras(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors as ``layer/variable`` (``conv1_conv/kernel``, ``bn/moving_mean``) in Keras' layouts, layer by layer.

    Names end without TensorFlow's ``:0``. A kernel is (height, width, in, out), a depthwise one (height, width, in,
    multiplier), a dense one (in, out). Layers stand in the file's order; Keras 3's ``.weights.h5`` has none, so there
    they are sorted by class and number (``conv2d_2`` before ``conv2d_10``).

    Raises:
        DataError: a damaged file, one that leads to other files, or no weights of layers in it.
        UsageError: h5py is not installed.
    """
    require("h5py", "weights")
    import h5py

    try:
        if zipfile.is_zipfile(path):
            return _read_archive(path)
        with h5py.File(path, "r") as file:
            return _read_file(file, path.stat().st_size)
    except _Refused as refused:
        raise DataError(f"{path} {refused}, and is refused") from None
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        said = " ".join(str(error).split())
        raise DataError(f"{path} is not a whole Keras file of weights ({said}): download it again") from None


def renumbered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Layers that Keras named by itself, numbered from 0 within their class: ``conv2d_0/kernel``, ``conv2d_1/kernel``.

    Keras goes on counting from network to network, so that a file's own numbers begin anywhere; their order is that in
    which the layers were made.
    """
    own = re.compile(rf"({'|'.join(VARIABLES)})(?:_(\d+))?$")
    found: dict[str, dict[int, str]] = {}
    for key in tensors:
        layer = key.rpartition("/")[0]
        if match := own.match(layer):
            found.setdefault(match[1], {})[int(match[2] or 0)] = layer
    names = {
        layer: f"{kind}_{position}"
        for kind, layers in found.items()
        for position, (_, layer) in enumerate(sorted(layers.items()))
    }
    split = {key: key.rpartition("/") for key in tensors}
    return {f"{names.get(layer, layer)}{slash}{name}": tensors[key] for key, (layer, slash, name) in split.items()}


def _read_archive(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    import h5py

    with zipfile.ZipFile(path) as archive, tempfile.TemporaryFile() as weights:
        with archive.open(WEIGHTS) as packed:
            shutil.copyfileobj(packed, weights, 2**20)
        size_bytes = weights.tell()
        with h5py.File(weights, "r") as file:
            tensors, metadata = _read_file(file, size_bytes)
        order = _order_of_layers(archive)
    place = {name: position for position, name in enumerate(order)}
    tensors = dict(sorted(tensors.items(), key=lambda item: place.get(item[0].rpartition("/")[0], len(place))))
    return tensors, metadata | {"layout": "keras 3 archive"}


def _order_of_layers(archive: zipfile.ZipFile) -> list[str]:
    """Names of the layers as the network's configuration lists them."""
    if CONFIG not in archive.namelist() or archive.getinfo(CONFIG).file_size > CONFIG_LIMIT_BYTES:
        return []
    config = json.loads(archive.read(CONFIG)).get("config", {})
    return [str(layer["config"]["name"]) for layer in config.get("layers", []) if "name" in layer.get("config", {})]


def _read_file(file: h5py.File, size_bytes: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    _check_links(file, set())
    root = file.get("model_weights", file)
    legacy = any(name.startswith("layer_names") for name in root.attrs)
    found = list(_legacy_variables(root) if legacy else _numbered_variables(root))
    if not found:
        raise ValueError("no weights of layers in it")
    unpacked = sum(dataset.size * dataset.dtype.itemsize for _, dataset in found)
    if unpacked > LARGEST_EXPANSION * size_bytes:
        raise _Refused(f"unpacks to {unpacked:,} bytes, which weights do not")
    tensors: dict[str, Tensor] = {}
    for key, dataset in found:
        if key in tensors:
            raise ValueError(f"{key} is there twice")
        tensors[key] = _read_dataset(dataset)
    version = _text(root.attrs.get("keras_version", ""))
    return tensors, {"layout": "keras h5" if legacy else "keras 3 weights.h5", "keras_version": version}


def _check_links(group: h5py.Group, seen: set[int]) -> None:
    """Nothing in the file may stand elsewhere: no link to another place or file, no data kept in another file."""
    import h5py

    address = h5py.h5o.get_info(group.id).addr
    if address in seen:
        raise _Refused(f"has its group {group.name} in two places")
    seen.add(address)
    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise _Refused(f"has a link at {group.name.rstrip('/')}/{name} that leads elsewhere")
        item = group[name]
        if isinstance(item, h5py.Group):
            _check_links(item, seen)
        elif isinstance(item, h5py.Dataset) and (item.is_virtual or item.external):
            raise _Refused(f"keeps the data of {item.name} in another file")


def _legacy_variables(root: h5py.Group) -> Iterator[tuple[str, h5py.Dataset]]:
    """Keras 1 and 2: an attribute lists the layers in order, and one of each layer's group its weights."""
    for layer in _names(root, "layer_names"):
        weights = _names(root[layer], "weight_names")
        variables = [name.rpartition("/")[2].partition(":")[0] for name in weights]
        scopes = {name.rpartition("/")[0] for name in weights}
        datasets = [root[layer][name] for name in weights]
        for name, variable, dataset in zip(weights, _said_plainly(variables), datasets, strict=True):
            # A network within the network is one layer here, and its layers are told apart by their own names.
            yield (name.partition(":")[0] if len(scopes) > 1 else f"{layer}/{variable}"), dataset


def _said_plainly(variables: list[str]) -> list[str]:
    """Keras 3's names of a layer's variables.

    Keras 1 called a kernel ``<layer>_W`` and a bias ``<layer>_b``; Keras 2 called a depthwise convolution's kernel what
    it is still called within a separable one.
    """
    plain = {"W": "kernel", "b": "bias", "running_mean": "moving_mean", "running_std": "moving_variance"}
    if "pointwise_kernel" not in variables:
        plain["depthwise_kernel"] = "kernel"
    ending = re.compile(r".*_(W|b|gamma|beta|running_mean|running_std)(?:_\d+)?$")
    names = [match[1] if (match := ending.match(name)) else name for name in variables]
    return [plain.get(name, name) for name in names]


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """A list of names, which Keras cuts into ``name0``, ``name1``, ... where it is too long for one attribute."""
    if attribute in group.attrs:
        return [_text(name) for name in group.attrs[attribute]]
    parts = takewhile(lambda part: part in group.attrs, (f"{attribute}{i}" for i in count()))
    return [_text(name) for part in parts for name in group.attrs[part]]


def _numbered_variables(root: h5py.Group) -> Iterator[tuple[str, h5py.Dataset]]:
    """Keras 3: a group ``vars`` in each layer's group, its variables numbered, the layer's name in an attribute."""
    import h5py

    def walk(group: h5py.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], h5py.Group]]:
        for name in sorted(group, key=_natural):
            if isinstance(group[name], h5py.Group) and not (not path and name == "optimizer"):
                yield from [(path, group[name])] if name == "vars" else walk(group[name], (*path, name))

    layers = [(path, variables) for path, variables in walk(root, ()) if len(variables)]
    names = [_text(variables.attrs.get("name", "/".join(path))) for path, variables in layers]
    told_apart = len({*names}) == len(names)
    for name, (path, variables) in zip(names, layers, strict=True):
        numbers = sorted(variables, key=int)
        for number, variable in zip(numbers, _variables_of(path[-1] if path else "", len(numbers)), strict=True):
            yield f"{name if told_apart else '/'.join(path)}/{variable}", variables[number]


def _variables_of(group: str, number: int) -> tuple[str, ...]:
    """Names of a layer's variables, from the class its group is called after; their numbers for an unknown class."""
    known = VARIABLES.get(re.sub(r"_\d+$", "", group), ())
    if known[:1] == ("gamma",) and number == len(known) - 1:
        return known[1:]
    return known[:number] if number <= len(known) else tuple(map(str, range(number)))


def _natural(name: str) -> list[tuple[int, str]]:
    """A sorting key under which ``conv2d_2`` stands before ``conv2d_10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _read_dataset(dataset: h5py.Dataset) -> Tensor:
    import numpy as np
    import torch

    plist = dataset.id.get_create_plist()
    filters = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())}
    if filters - FILTERS:
        raise _Refused(f"packs {dataset.name} in a way that needs a plugin")
    if dataset.dtype.kind not in "fiub":
        raise _Refused(f"holds {dataset.dtype} at {dataset.name}, where numbers belong")
    array = np.empty(dataset.shape, dataset.dtype.newbyteorder("="))
    if array.size:
        dataset.read_direct(array)
    return torch.from_numpy(array)
