"""Caffe's ``.caffemodel``: a protobuf message, read by the field numbers of its published schema.

The numbers are those of ``caffe.proto`` (BVLC/caffe). Of its messages only the names, types and blobs of layers are
wanted, so the wire format is walked here over the mapped file: no copy of the weights is made but the tensors.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convarium.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types

NET_NAME, NET_LAYERS_V1, NET_LAYER = 1, 2, 100
NET_FIELDS = {1: BYTES, 2: BYTES, 3: BYTES, 4: VARINT, 5: VARINT, 6: BYTES, 7: VARINT, 8: BYTES, 100: BYTES}
# name, type and blobs: of LayerParameter, and of V1LayerParameter before it, whose field 1 is a layer still older
LAYER_FIELDS = {NET_LAYER: (1, 2, 7), NET_LAYERS_V1: (4, 5, 6)}
V1_OLDER_LAYER = 1
V1_TYPES = {4: "Convolution", 14: "InnerProduct", 39: "Deconvolution"}  # those that have blobs
BLOB_SHAPE = 7
BLOB_DATA: dict[int, np.dtype[Any]] = {5: np.dtype("<f4"), 8: np.dtype("<f8")}  # Caffe packs its numbers
BLOB_LEGACY_SHAPE = (1, 2, 3, 4)  # num, channels, height, width
SHAPE_DIM = 1
MOST_BLOBS = 100_000


class _Damaged(Exception):
    """The bytes are not the message that they should be."""


def is_caffe(path: Path) -> bool:
    """Whether a whole file reads as a network's message with layers; such files have no signature."""
    layers = 0
    try:
        for number, wire, _ in _fields(_mapped(path)):
            if wire not in (NET_FIELDS.get(number), BYTES) or number not in NET_FIELDS:
                return False
            layers += number in LAYER_FIELDS
    except _Damaged:
        return False
    return layers > 0


def read_caffe(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Blobs as ``layer/0``, ``layer/1``, ... in the file's order and shapes, the types of layers that have some, and
    the names of all layers in order.

    A shape is the blob's ``shape``, or the four numbers (num, channels, height, width) of older files. The third blob
    of a BatchNorm layer is the factor that divides its other two; it is left as it is.

    Raises:
        DataError: a damaged file, a blob whose data do not fill its shape, or layers of the first format.
    """
    try:
        return _read_net(_mapped(path))
    except (_Damaged, UnicodeDecodeError) as error:
        raise DataError(f"{path} is a damaged .caffemodel ({error}): download it again") from None


def _mapped(path: Path) -> memoryview:
    with open(path, "rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _read_net(whole: memoryview) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors: dict[str, Tensor] = {}
    layers: dict[str, str] = {}
    order: list[str] = []
    name = ""
    for number, wire, value in _fields(whole):
        if number == NET_NAME and wire == BYTES:
            name = str(value, "utf-8")
        elif number in LAYER_FIELDS and wire == BYTES:
            layer, kind, blobs = _read_layer(value, number)
            order.append(layer)
            if not blobs:
                continue
            if layer in layers:
                raise _Damaged(f"layer {layer!r} has weights twice")
            layers[layer] = kind
            tensors |= {f"{layer}/{i}": blob for i, blob in enumerate(blobs)}
            if len(tensors) > MOST_BLOBS:
                raise _Damaged(f"more than {MOST_BLOBS:,} blobs")
            _forget(whole)
    return tensors, {"name": name, "layers": layers, "order": order}


def _forget(whole: memoryview) -> None:
    """Let go of the pages that were read; they would count as memory beside the tensors made of them."""
    if hasattr(mmap, "MADV_DONTNEED"):
        whole.obj.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


def _read_layer(message: memoryview, message_field: int) -> tuple[str, str, list[Tensor]]:
    name_field, type_field, blobs_field = LAYER_FIELDS[message_field]
    name, kind = "", ""
    blobs: list[Tensor] = []
    for number, wire, value in _fields(message):
        if number == name_field and wire == BYTES:
            name = str(value, "utf-8")
        elif number == type_field:
            kind = str(value, "utf-8") if wire == BYTES else V1_TYPES.get(value, f"type {value}")
        elif number == blobs_field and wire == BYTES:
            blobs.append(_read_blob(value, f"{name}/{len(blobs)}"))
        elif message_field == NET_LAYERS_V1 and number == V1_OLDER_LAYER:
            raise _Damaged("its layers are of Caffe's first format, which upgrade_net_proto_binary of Caffe makes new")
    return name, kind, blobs


def _read_blob(message: memoryview, key: str) -> Tensor:
    import torch

    legacy: dict[int, int] = {}
    shape: list[int] | None = None
    data: np.ndarray | None = None
    for number, wire, value in _fields(message):
        if number == BLOB_SHAPE and wire == BYTES:
            shape = _read_shape(value)
        elif number in BLOB_DATA and wire == BYTES and data is None and len(value) % BLOB_DATA[number].itemsize == 0:
            data = np.frombuffer(value, BLOB_DATA[number])
        elif number in BLOB_DATA:
            raise _Damaged(f"the data of blob {key} are not one packed run of numbers")
        elif number in BLOB_LEGACY_SHAPE and wire == VARINT:
            legacy[number] = value
    if shape is None:
        shape = [legacy.get(field, 0) for field in BLOB_LEGACY_SHAPE]
    found = 0 if data is None else data.size
    if data is None or found != math.prod(shape):
        raise _Damaged(f"blob {key} has {found:,} numbers for its shape {tuple(shape)}")
    return torch.from_numpy(data.astype(np.float32)).reshape(shape)


def _read_shape(message: memoryview) -> list[int]:
    dims: list[int] = []
    for number, wire, value in _fields(message):
        if number == SHAPE_DIM and wire == VARINT:
            dims.append(value)
        elif number == SHAPE_DIM and wire == BYTES:
            at = 0
            while at < len(value):
                dim, at = _varint(value, at)
                dims.append(dim)
    return dims


def _fields(message: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Field number, wire type and value of a message's fields; all but a varint as bytes in place."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise _Damaged("a field without a number")
        if wire == VARINT:
            value, at = _varint(message, at)
            yield number, wire, value
            continue
        if wire == BYTES:
            length, at = _varint(message, at)
        elif wire in (FIXED32, FIXED64):
            length = 4 if wire == FIXED32 else 8
        else:
            raise _Damaged(f"wire type {wire}")
        if at + length > len(message):
            raise _Damaged("it ends within a field")
        yield number, wire, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """An integer of at most 64 bits, seven to a byte, and where it ends."""
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(message):
            raise _Damaged("it ends within a number")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _Damaged("a number of more than 64 bits")
