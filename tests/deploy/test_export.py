"""Every kind of exported file: what torch gives, opened without this project, or no file at all."""

import shutil

import numpy as np
import pytest
import torch

from convarium import export
from convarium.deploy import export as exporting
from convarium.deploy.openvino import load_openvino
from convarium.deploy.predictor import Predictor
from convarium.deploy.program import METADATA
from convarium.errors import ConvariumError, DataError, GateError, UsageError
from convarium.runs import load_run

from .conftest import NAMES, noise

SHAPES = [(8, 8), (32, 32), (400, 300), (20, 500)]


def logits_of_run(run, image):
    return Predictor(run, threads=1)._logits(image[None])


def relative(received, expected):
    return np.abs(received - expected).max() / max(1, np.abs(expected).max())


@pytest.mark.long
def test_openvino_alone_opens_it(small_run, ir_file):
    """With nothing of this project: uint8 in any size and number, names in its information."""
    import json

    import openvino

    core = openvino.Core()
    model = core.read_model(ir_file)
    assert json.loads(model.get_rt_info(["framework", "names"]).astype(str)) == NAMES
    assert model.inputs[0].element_type == openvino.Type.u8
    constants = {op.get_element_type() for op in model.get_ops() if op.get_type_name() == "Constant"}
    assert openvino.Type.f16 not in constants
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for shape in SHAPES:
        image = noise(*shape)
        assert relative(compiled(image[None])[0], logits_of_run(small_run, image)) < 1e-5
    assert compiled(np.stack([noise(9, 7)] * 5))[0].shape == (5, 4)


@pytest.mark.long
def test_openvino_opens_both_files_alike(onnx_file, ir_file):
    for path in (onnx_file, ir_file):
        network, names, preprocessing = load_openvino(path, threads=1)
        assert (names, preprocessing.size, preprocessing.mean) == (NAMES, 32, (0.5,) * 3)
        assert network(noise(40, 50)[None]).shape == (1, 4)


@pytest.mark.long
def test_two_answers_do_not_share_their_memory(ir_file):
    network, *_ = load_openvino(ir_file, threads=1)
    first = network(noise(32, 32)[None])
    kept = first.copy()
    network(noise(32, 32, seed=1)[None])
    assert (first == kept).all()


@pytest.mark.long
def test_torch_alone_opens_its_program(small_run, tmp_path):
    path = tmp_path / "model.pt2"
    exported = export(small_run, format="torch", output=path)
    assert exported.largest_relative_difference < 1e-5 and exported.opset is None
    found = {METADATA: ""}
    network = torch.export.load(path, extra_files=found).module()
    assert "bee" in found[METADATA]
    for shape in SHAPES:
        image = noise(*shape)
        with torch.no_grad():
            assert relative(network(torch.from_numpy(image)[None]).numpy(), logits_of_run(small_run, image)) < 1e-5
    with pytest.raises(UsageError, match="opens in torch alone"):
        Predictor(path)


FILES = pytest.mark.parametrize(("format", "suffix"), [("onnx", ".onnx"), ("openvino", ".xml"), ("torch", ".pt2")])


def in_its_runtime(path, batch):
    """Logits by the runtime alone."""
    if path.suffix == ".onnx":
        import onnxruntime

        return onnxruntime.InferenceSession(path).run(None, {"tensor": batch})[0]
    if path.suffix == ".xml":
        import openvino

        return openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})({"tensor": batch})[0]
    return torch.export.load(path).module()(torch.from_numpy(batch)).detach().numpy()


@pytest.mark.long
@FILES
def test_a_raw_file_takes_what_is_prepared_already(small_run, tmp_path, format, suffix):
    copied = tmp_path / "run"
    shutil.copytree(small_run, copied)
    exported = export(copied, format=format, raw=True)
    path = copied / f"raw{suffix}"
    assert exported.path == str(path) and exported.raw and exported.largest_relative_difference < 1e-5
    run = load_run(copied)
    tensors = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        assert relative(in_its_runtime(path, tensors.numpy()), run.model.eval()(tensors).numpy()) < 1e-5
    assert "takes prepared tensors, float32" in exported.render() and "predict" not in exported.render()
    if format != "torch":
        with pytest.raises(DataError, match="takes prepared tensors, not images: for images, write it with convarium"):
            Predictor(path)


@pytest.mark.long
def test_a_raw_file_says_how_to_prepare_images(small_run, tmp_path):
    import onnxruntime

    path = tmp_path / "raw.onnx"
    export(small_run, raw=True, output=path)
    session = onnxruntime.InferenceSession(path)
    assert [(each.name, each.type, each.shape) for each in session.get_inputs()] == [
        ("tensor", "tensor(float)", ["batch", 3, 32, 32])
    ]
    said = session.get_modelmeta().custom_metadata_map
    assert said["input_size"] == "[3, 32, 32]" and said["mean"] == "[0.5, 0.5, 0.5]" and said["std"] == str([0.25] * 3)
    image = noise(32, 32)
    by_hand = ((image / 255 - 0.5) / 0.25).transpose(2, 0, 1)[None].astype(np.float32)
    assert relative(session.run(None, {"tensor": by_hand})[0], logits_of_run(small_run, image)) < 1e-5


@pytest.mark.long
@pytest.mark.parametrize("raw", [False, True])
@FILES
def test_a_file_that_disagrees_is_not_kept(small_run, tmp_path, monkeypatch, format, suffix, raw):
    kind = exporting.FORMATS[format]

    def wrong(*args):
        network = kind.open(*args)
        return lambda images: network(images) * 1.01

    monkeypatch.setitem(exporting.FORMATS, format, kind._replace(open=wrong))
    for part in kind.suffixes:
        (tmp_path / f"model{part}").write_text("an earlier file")
    with pytest.raises(GateError, match="does not agree with torch, and is not kept"):
        export(small_run, format=format, raw=raw, output=tmp_path / f"model{suffix}")
    assert {path.name for path in tmp_path.iterdir()} == {f"model{part}" for part in kind.suffixes}
    assert (tmp_path / f"model{suffix}").read_text() == "an earlier file"


def test_refusals(small_run, tmp_path):
    with pytest.raises(UsageError, match=r"--output must be a file that ends in \.xml"):
        export(small_run, format="openvino", output=tmp_path / "model.onnx")
    with pytest.raises(UsageError, match="--format must be one of onnx, openvino, torch; got 'tflite'"):
        export(small_run, format="tflite")
    with pytest.raises(ConvariumError, match=r"cannot write .*model\.pt2: No such file"):
        export(small_run, format="torch", output=tmp_path / "nowhere" / "model.pt2")


@pytest.mark.parametrize(("content", "said"), [("", "is not a file"), ("<net/>", "is not a file"), ("x", "is not a")])
def test_a_file_that_is_not_openvinos(content, said, tmp_path):
    (tmp_path / "model.xml").write_text(content)
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(DataError, match=said) as caught:
        load_openvino(tmp_path / "model.xml")
    assert "\n" not in str(caught.value)


def test_a_model_of_someone_else(tmp_path):
    import openvino
    from openvino import opset13

    value = opset13.parameter([1, 3], np.float32)
    openvino.save_model(openvino.Model([opset13.relu(value)], [value]), tmp_path / "model.xml")
    with pytest.raises(DataError, match=r"does not say how to use it \(no 'names' in its metadata\)"):
        load_openvino(tmp_path / "model.xml")
