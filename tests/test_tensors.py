"""Safetensors as they are read here, against the library's own reader."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from convarium import tensors
from convarium.errors import DataError
from convarium.tensors import load_tensors

SHAPES = {"a": (3, 5), "empty": (0, 4), "scalar": (), "large": (40, 50), "z": (7,), **{f"m{i}": (i,) for i in range(9)}}
KINDS = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


@pytest.fixture
def file(tmp_path):
    drawn = {f"{name}.{kind}": (torch.randn(shape) * 50).to(kind) for name, shape in SHAPES.items() for kind in KINDS}
    save_file(drawn, tmp_path / "x.safetensors", {"said": "so"})
    return tmp_path / "x.safetensors"


@pytest.mark.parametrize(("part", "most"), [(2**24, 512), (64, 512), (1000, 2), (1, 1)])
def test_every_tensor_is_as_the_library_reads_it(file, monkeypatch, part, most):
    monkeypatch.setattr(tensors, "PART", part)
    monkeypatch.setattr(tensors, "MOST_PIECES", most)
    found, said = load_tensors(file)
    expected = load_file(file)
    assert found.keys() == expected.keys() and said == {"said": "so"}
    for key, value in expected.items():
        assert found[key].dtype == value.dtype and torch.equal(found[key], value)


def test_what_is_read_does_not_change_with_the_file(file):
    found, _ = load_tensors(file)
    before = {key: value.clone() for key, value in found.items()}
    with open(file, "r+b") as opened:
        opened.seek(-64, 2)
        opened.write(bytes(64))
    assert all(torch.equal(found[key], before[key]) for key in before)


def test_a_file_that_is_cut_while_it_is_read_is_refused(file, monkeypatch):
    room_for = tensors._room_for

    def cut(like):
        with open(file, "r+b") as opened:
            opened.truncate(file.stat().st_size - 1)
        return room_for(like)

    monkeypatch.setattr(tensors, "_room_for", cut)
    with pytest.raises(DataError, match="was cut while it was read: read it again"):
        load_tensors(file)
