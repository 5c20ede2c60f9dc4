"""Exported files: right in onnxruntime and OpenVINO at every size, and none at all when they are not right."""

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from convarium import create_model
from convarium.data.preprocess import Preprocessing
from convarium.data.resize import Preprocess
from convarium.deploy import onnx as deployed
from convarium.deploy.onnx import OPSET, export_onnx, load_onnx
from convarium.deploy.parity import TOLERANCE, compare
from convarium.errors import ConvariumError, DataError, GateError, UsageError

NAMES = ["ant", "bee", "cät", "d\n", 'e"'] + [f"class {i}" for i in range(5)]
BICUBIC = Preprocessing(32, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25), 0.875, "bicubic")
GREY = Preprocessing(32, 1, (0.1307,), (0.3081,))
# Smaller than the crop, equal, many times it, long and thin, odd, one pixel; batches.
SHAPES = [(1, 8, 8), (3, 32, 32), (1, 3000, 2000), (1, 20, 1000), (1, 1000, 20), (2, 37, 61), (1, 60, 4001), (1, 1, 1)]


def noise(shape, channels):
    return np.random.default_rng(0).integers(0, 256, (*shape, channels), dtype=np.uint8)


class Exported:
    def __init__(self, name, preprocessing, path):
        torch.manual_seed(0)
        self.model = create_model(name, in_chans=preprocessing.channels).eval()
        self.preprocessing, self.path = preprocessing, path
        images = [noise((height, width), preprocessing.channels) for height, width in ((24, 24), (50, 70))]
        metadata = {"architecture": name}
        self.parity = export_onnx(self.model, preprocessing, NAMES, path, metadata=metadata, parity_images=images)

    def torch_logits(self, images):
        with torch.no_grad():
            return nn.Sequential(Preprocess(self.preprocessing), self.model)(torch.from_numpy(images)).numpy()


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("resnet20_cifar", BICUBIC), id="resnet20_cifar", marks=pytest.mark.long),
        pytest.param(("lenet5_modern", GREY), id="lenet5_modern"),
    ],
)
def exported(request, tmp_path_factory):
    return Exported(*request.param, tmp_path_factory.mktemp("export") / "model.onnx")


def relative_difference(received, expected):
    return np.abs(received - expected).max() / max(1, np.abs(expected).max())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_onnxruntime_gives_what_torch_gives(exported, shape):
    session, *_ = load_onnx(exported.path)
    images = noise(shape, exported.preprocessing.channels)
    (logits,) = session.run(None, {"image": images})
    assert relative_difference(logits, exported.torch_logits(images)) < 1e-5


def test_openvino_gives_what_torch_gives(exported):
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(str(exported.path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for shape in SHAPES:
        images = noise(shape, exported.preprocessing.channels)
        assert relative_difference(compiled(images)[0], exported.torch_logits(images)) < 1e-5, shape


def test_openvino_keeps_positions_in_the_precision_it_prefers(exported):
    # bfloat16 where the processor has it: positions held in floats were off by many pixels in long images.
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(str(exported.path), "CPU")
    for shape in SHAPES:
        images = noise(shape, exported.preprocessing.channels)
        assert relative_difference(compiled(images)[0], exported.torch_logits(images)) < 0.08, shape


def test_the_file_says_how_to_use_it(exported):
    session, names, preprocessing = load_onnx(exported.path, threads=1)
    assert (names, preprocessing) == (NAMES, exported.preprocessing)
    (image,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type) == ("image", "tensor(uint8)")
    assert image.shape == ["batch", "height", "width", preprocessing.channels]
    assert (logits.name, logits.shape) == ("logits", ["batch", 10])
    properties = session.get_modelmeta().custom_metadata_map
    assert set(properties) == {
        "architecture", "names", "input_size", "mean", "std", "crop_pct", "interpolation", "task",
    }  # fmt: skip
    assert properties["input_size"] == f"[{preprocessing.channels}, 32, 32]"


def test_the_file_is_one_and_holds_no_paths_of_this_machine(exported):
    assert [path.name for path in exported.path.parent.iterdir()] == ["model.onnx"]
    assert b".py" not in exported.path.read_bytes()
    assert [entry.version for entry in onnx.load(exported.path).opset_import] == [OPSET]


def test_parity_is_reported(exported):
    parity = exported.parity
    assert parity.images == 2 + 7
    assert 0 <= parity.largest_difference < parity.tolerance == TOLERANCE
    assert parity.bytes == exported.path.stat().st_size


# -- the gate, on the smallest of models ------------------------------------------------------------------------


def tiny():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 3))


def export_tiny(path, model=None, names=NAMES[:3]):
    preprocessing = Preprocessing(8, 3, (0.5,) * 3, (0.25,) * 3)
    return export_onnx(model or tiny(), preprocessing, names, path, metadata={}, parity_images=[])


def wrong_weights(graph, convert):
    other = copy.deepcopy(graph)
    with torch.no_grad():
        other[1][0].weight += 0.01
    return convert(other)


def not_a_number(graph, convert):
    other = copy.deepcopy(graph)
    with torch.no_grad():
        other[1][0].bias[0] = torch.nan
    return convert(other)


def without_antialias(graph, convert):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "sym_max", lambda length, resized: resized)
        return convert(graph)


def an_operator_that_does_not_exist(graph, convert):
    program = convert(graph)
    next(iter(program.model.graph)).op_type = "Nonsense"
    return program


@pytest.mark.long
@pytest.mark.parametrize("spoil", [wrong_weights, not_a_number, without_antialias, an_operator_that_does_not_exist])
def test_a_wrong_file_is_refused_and_nothing_is_touched(spoil, tmp_path, monkeypatch):
    convert = deployed._convert
    monkeypatch.setattr(deployed, "_convert", lambda graph, p: spoil(graph, lambda graph: convert(graph, p)))
    absent, present = tmp_path / "absent.onnx", tmp_path / "present.onnx"
    present.write_bytes(b"an earlier file")
    for path in (absent, present):
        with pytest.raises(GateError, match=r"^the exported file (is not valid|does not agree)") as caught:
            export_tiny(path)
        assert caught.value.exit_code == 4
        assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["present.onnx"]
    assert present.read_bytes() == b"an earlier file"


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        ([[0.0, 2.00006]], [[0.0, 2.0]]),
        ([[0.0, 200.006]], [[0.0, 200.0]]),  # relative to the largest logit
        ([[1.0, 1.00005]], [[1.00004, 1.0]]),  # the best two too close for torch to tell
        ([[1.0]], [[1.0]]),
    ],
)
def test_differences_within_tolerance_pass(received, expected):
    received, expected = (np.array(logits, dtype=np.float32) for logits in (received, expected))
    assert compare(received, expected, (1, 4, 4, 3)) <= TOLERANCE


@pytest.mark.parametrize(
    ("received", "expected", "message"),
    [
        ([[0.0, 2.001]], [[0.0, 2.0]], r"differ by 5.0e-04 .*\(at most 1e-04 is allowed\) and 0 have"),
        ([[0.99991, 1.00001]], [[1.0, 0.99985]], "and 1 have another best class"),
        ([[0.0, np.nan]], [[0.0, 2.0]], "differ by nan"),
    ],
)
def test_differences_beyond_it_do_not(received, expected, message):
    received, expected = (np.array(logits, dtype=np.float32) for logits in (received, expected))
    with pytest.raises(GateError, match=message):
        compare(received, expected, (1, 4, 4, 3))


def test_an_earlier_file_is_replaced_and_the_terminal_stays_quiet(tmp_path, capfd, recwarn):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"an earlier file")
    export_tiny(path)
    assert load_onnx(path)[1] == NAMES[:3]
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


class Branches(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


def test_a_model_that_cannot_be_exported_is_one_line(tmp_path, capfd):
    with pytest.raises(ConvariumError, match=r"torch cannot export this model to ONNX: .*data-dependent") as caught:
        export_tiny(tmp_path / "model.onnx", Branches())
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_names_must_be_as_many_as_logits(tmp_path):
    with pytest.raises(UsageError, match="the model has 3 outputs for 2 class names"):
        export_tiny(tmp_path / "model.onnx", names=["a", "b"])


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ConvariumError, match=r"cannot write .*model\.onnx: No such file or directory"):
        export_tiny(tmp_path / "nowhere" / "model.onnx")


# -- files that are not ours ------------------------------------------------------------------------------------


def edited(source: Path, target: Path, **properties: str | None) -> Path:
    """A copy of an exported file with other metadata; ``None`` removes a key."""
    model = onnx.load(source)
    kept = {entry.key: entry.value for entry in model.metadata_props} | properties
    onnx.helper.set_model_props(model, {key: value for key, value in kept.items() if value is not None})
    onnx.save(model, target)
    return target


@pytest.mark.parametrize("content", [b"", b"not ONNX at all\n" * 20, b"\x80\x02}q\x00."])
def test_a_file_that_is_not_onnx(content, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"model\.onnx is not an ONNX file that can be run") as caught:
        load_onnx(path)
    assert "\n" not in str(caught.value)


def test_a_file_cut_short(exported, tmp_path):
    path = tmp_path / "half.onnx"
    content = exported.path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="is not an ONNX file that can be run"):
        load_onnx(path)


def test_no_file(tmp_path):
    for path in (tmp_path / "absent.onnx", tmp_path):
        with pytest.raises(DataError, match=r"no exported file .*convarium export RUN"):
            load_onnx(path)


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"names": None}, r"does not say how to use it \(no 'names' in its metadata\)"),
        ({"mean": "[0.5"}, "does not say how to use it"),
        ({"input_size": "7"}, "does not say how to use it"),
        ({"crop_pct": "2"}, "crop_pct must be above 0"),
        ({"names": '["a", "b"]'}, "does not map one image to the logits of its 2 class names"),
    ],
)
def test_a_file_whose_metadata_is_not_ours(exported, tmp_path, properties, message):
    path = edited(exported.path, tmp_path / "edited.onnx", **properties)
    with pytest.raises(DataError, match=message) as caught:
        load_onnx(path)
    assert "\n" not in str(caught.value)
