"""Sealed files: any byte that changes is found, and other programs see nothing of the seal."""

import shutil

import numpy as np
import onnx
import pytest

from convarium.deploy.onnx import load_onnx
from convarium.deploy.predictor import Predictor
from convarium.deploy.seal import MARK, check_seal, seal
from convarium.errors import DataError


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.fixture(params=["onnx_file", "ir_file"])
def sealed(request, tmp_path):
    """An exported file, and what lies beside it, that may be damaged."""
    source = request.getfixturevalue(request.param)
    for part in source.parent.iterdir():
        shutil.copyfile(part, tmp_path / part.name)
    return tmp_path / source.name


@pytest.mark.long
def test_any_flipped_bit_is_found(sealed):
    check_seal(sealed)
    files = [sealed] if sealed.suffix == ".onnx" else [sealed, sealed.with_suffix(".bin")]
    for file in files:
        mark = file.read_bytes().find(MARK)
        size = file.stat().st_size
        for place in {*np.random.default_rng(0).integers(0, size, 40).tolist(), 0, size - 1, size // 2}:
            if mark <= place < mark + len(MARK):
                continue  # whoever removes the mark has removed the seal
            flip(file, place)
            with pytest.raises(DataError, match="was altered since it was written"):
                check_seal(sealed)
            flip(file, place)
    check_seal(sealed)


@pytest.mark.long
def test_the_predictor_refuses_it(sealed):
    flip(sealed if sealed.suffix == ".onnx" else sealed.with_suffix(".bin"), 5000)
    with pytest.raises(DataError, match="was altered since it was written: export it again, or restore it"):
        Predictor(sealed, threads=1)


def test_a_seal_that_was_copied_is_replaced(onnx_file, tmp_path):
    """As a quantiser copies the metadata of the file it begins from."""
    other = tmp_path / "other.onnx"
    model = onnx.load(onnx_file)
    model.graph.node[0].doc_string = "changed"
    onnx.save(model, other)
    with pytest.raises(DataError, match="was altered"):
        check_seal(other)
    seal(other)
    check_seal(other)
    assert [entry.key for entry in onnx.load(other).metadata_props].count("seal") == 1


def test_the_file_is_still_valid_and_says_the_same(onnx_file):
    onnx.checker.check_model(str(onnx_file), full_check=True)
    session, names, _ = load_onnx(onnx_file)
    assert len(names) == 4
    assert session.get_modelmeta().custom_metadata_map["seal"].startswith(MARK.decode())


def test_files_of_others_pass(tmp_path):
    for content in (b"", b"anything"):
        (tmp_path / "file.onnx").write_bytes(content)
        check_seal(tmp_path / "file.onnx")
    check_seal(tmp_path / "absent.onnx")


@pytest.mark.long
def test_weights_that_are_not_beside_it(ir_file, tmp_path):
    shutil.copyfile(ir_file, tmp_path / "model.xml")
    with pytest.raises(DataError, match=r"lacks its weights: model\.bin belongs beside it"):
        check_seal(tmp_path / "model.xml")
