"""Caffe's messages, for tests that write its files."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# As caffe.proto publishes them: message, then field, type and number; "*" for repeated ones, numbers packed.
SCHEMA = {
    "BlobShape": "dim* int64 1",
    "BlobProto": "num int64 1, channels int64 2, height int64 3, width int64 4, data* float 5, diff* float 6, "
    "shape BlobShape 7, double_data* double 8",
    "LayerParameter": "name string 1, type string 2, bottom* string 3, loss_weight* float 5, blobs* BlobProto 7",
    "V0LayerParameter": "name string 1, type string 2, blobs* BlobProto 50",
    "V1LayerParameter": "layer V0LayerParameter 1, bottom* string 2, name string 4, type int32 5, blobs* BlobProto 6",
    "NetParameter": "name string 1, layers* V1LayerParameter 2, input* string 3, input_dim* int64 4, "
    "layer* LayerParameter 100",
}


@pytest.fixture(scope="session")
def caffe() -> SimpleNamespace:
    """The schema's ``NetParameter``, made by Google's protobuf, and ``blob(tensor)``, which makes a ``BlobProto``."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    for message, lines in SCHEMA.items():
        made = file.message_type.add(name=message)
        for key, kind, number in (line.split() for line in lines.split(", ")):
            label = field.LABEL_REPEATED if key.endswith("*") else field.LABEL_OPTIONAL
            new = made.field.add(name=key.rstrip("*"), number=int(number), label=label)
            if kind in SCHEMA:
                new.type, new.type_name = field.TYPE_MESSAGE, f".caffe.{kind}"
            else:
                new.type = getattr(field, f"TYPE_{kind.upper()}")
                new.options.packed = key in ("dim*", "data*", "diff*", "double_data*")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    net, blob = (
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}"))
        for name in ("NetParameter", "BlobProto")
    )
    return SimpleNamespace(NetParameter=net, blob=_maker_of_blobs(blob))


def _maker_of_blobs(message: Callable) -> Callable:
    def blob(tensor: torch.Tensor, *, legacy: bool = False, double: bool = False):
        """``legacy``: four dimensions, as in the first years; ``double``: numbers of 64 bits."""
        # The field as it is packed, parsed: to give it millions of numbers one by one would take minutes.
        numbers = tensor.double() if double else tensor
        whole = message(**{"double_data" if double else "data": [0.0]}).SerializeToString()
        packed = numbers.contiguous().numpy().tobytes()
        made = message.FromString(whole[:1] + _varint(len(packed)) + packed)
        if legacy:
            made.num, made.channels, made.height, made.width = [1] * (4 - tensor.ndim) + list(tensor.shape)
        else:
            made.shape.dim.extend(tensor.shape)
        return made

    return blob


def _varint(value: int) -> bytes:
    """Seven bits to a byte, the lowest first; all but the last have the highest bit set."""
    parts = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([*(part | 0x80 for part in parts[:-1]), parts[-1]])
