"""The predictor: the same answers from a run folder and from an exported file, the latter without torch."""

import itertools
import json
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from convarium.data.preprocess import Preprocessing
from convarium.deploy import runtimes
from convarium.deploy.predictor import Prediction, Predictor
from convarium.errors import DataError, UsageError

from .conftest import NAMES, noise


@pytest.fixture(scope="module", params=["small_run", "onnx_file", pytest.param("ir_file", marks=pytest.mark.long)])
def predictor(request):
    return Predictor(request.getfixturevalue(request.param), threads=1)


def test_sources_agree(small_run, onnx_file):
    images = [noise(*shape) for shape in ((8, 8), (32, 32), (500, 300), (20, 700))]
    for ours, theirs in zip(Predictor(small_run).predict(images), Predictor(onnx_file).predict(images), strict=True):
        assert ours.labels == theirs.labels
        assert ours.probabilities == pytest.approx(theirs.probabilities, abs=1e-5)


def test_a_prediction_names_the_likeliest_first(predictor):
    assert (predictor.class_names, predictor.preprocessing.size) == (NAMES, 32)
    (prediction,) = predictor.predict([noise(40, 60)])
    assert prediction.path is None
    assert sorted(prediction.labels) == NAMES
    assert prediction.probabilities == sorted(prediction.probabilities, reverse=True)
    assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-12)
    (short,) = predictor.predict([noise(40, 60)], top=2)
    assert short == Prediction(None, prediction.labels[:2], prediction.probabilities[:2])


def test_files_arrays_and_views_give_the_same(predictor, tmp_path):
    pixels = noise(45, 30)
    path = tmp_path / "image.png"
    Image.fromarray(pixels).save(path)
    mirrored_twice = np.ascontiguousarray(pixels[:, ::-1])[:, ::-1]
    from_path, from_text, from_array, from_view = predictor.predict([path, str(path), pixels, mirrored_twice])
    assert from_path == from_text == Prediction(str(path), from_array.labels, from_array.probabilities)
    assert from_view == from_array


def test_a_grey_image_is_taken_for_three_equal_channels(predictor):
    grey = noise(30, 30, 1)
    one, three = predictor.predict([grey, np.repeat(grey, 3, axis=2)])
    assert one == three


def test_images_are_read_only_when_asked_for(predictor):
    endless = (noise(16, 16 + i) for i in itertools.count())
    assert len(list(itertools.islice(predictor.predict(endless), 3))) == 3


def test_a_file_that_cannot_be_read_says_why_and_the_next_follow(predictor, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n")
    good, bad, absent, long, after = predictor.predict(
        [noise(20, 20), broken, tmp_path / "absent.png", "x" * 5000, noise(20, 20)]
    )
    assert good == after and good.error is None
    for each, said in ((bad, "cannot read the image"), (absent, "does not exist"), (long, "too long")):
        assert (each.labels, each.probabilities) == ([], []) and said in each.error
    assert "broken.png" in bad.error and bad.path == str(broken)


@pytest.mark.parametrize("image", [np.zeros((8, 8)), np.zeros((8, 8, 3)), noise(8, 8, 4), noise(0, 8), noise(8, 8)[0]])
def test_arrays_that_are_not_images(predictor, image):
    with pytest.raises(DataError, match=r"an image is uint8 \(height, width, 1 or 3\); got"):
        next(predictor.predict([image]))


def test_refusals(small_run, tmp_path):
    with pytest.raises(UsageError, match="top must be 1 or more; got 0"):
        Predictor(small_run).predict([], top=0)
    with pytest.raises(UsageError, match="threads must be 1 or more; got 0"):
        Predictor(small_run, threads=0)
    with pytest.raises(DataError, match="no run folder"):
        Predictor(tmp_path / "nothing")
    with pytest.raises(DataError, match="no exported file"):
        Predictor(tmp_path / "nothing.onnx")
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    with pytest.raises(DataError, match="is not an ONNX file that can be run"):
        Predictor(text)


@pytest.mark.parametrize("source", ["onnx_file", pytest.param("ir_file", marks=pytest.mark.long)])
def test_an_exported_file_needs_no_torch(source, request, small_run, tmp_path):
    source = request.getfixturevalue(source)
    path = tmp_path / "image.png"
    Image.fromarray(noise(45, 30)).save(path)
    code = """
import sys
from convarium.cli import main
sys.exit(main(["predict", *sys.argv[1:], "--json"]) or "torch" in sys.modules)
"""
    command = [sys.executable, "-c", code, str(source), str(path)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (expected,) = Predictor(small_run).predict([path])
    assert json.loads(printed)["rows"][0]["labels"] == expected.labels


# -- the choice of a runtime ------------------------------------------------------------------------------------


class Clockwork:
    """Runtimes that take as long as they are told, in place of the real ones."""

    def __init__(self, monkeypatch, milliseconds, cores):
        monkeypatch.setattr(runtimes, "runtimes_for", lambda source: ["onnxruntime", "openvino"])
        monkeypatch.setattr(runtimes, "cores", lambda: cores)
        self.opened = []

        def opener(runtime):
            def open_(path, threads):
                self.opened.append((runtime, threads))
                seconds = milliseconds[runtime, threads] / 1000
                settings = Preprocessing(8, 3, (0.5,) * 3, (0.5,) * 3)
                return runtimes.Opened(lambda images: time.sleep(seconds), ["a"], settings, runtime, threads)

            return open_

        for runtime in ("onnxruntime", "openvino"):
            monkeypatch.setitem(runtimes.OPENERS, runtime, opener(runtime))


@pytest.mark.parametrize(
    ("milliseconds", "chosen"),
    [
        ({("onnxruntime", 2): 40, ("openvino", 2): 20}, ("openvino", 2)),
        ({("onnxruntime", 2): 20, ("openvino", 2): 40}, ("onnxruntime", 2)),
        ({("onnxruntime", 2): 1, ("openvino", 2): 6, ("onnxruntime", 1): 4}, ("onnxruntime", 2)),
        ({("onnxruntime", 2): 4, ("openvino", 2): 8, ("onnxruntime", 1): 1}, ("onnxruntime", 1)),
    ],
)
@pytest.mark.long
def test_the_quickest_is_chosen(monkeypatch, milliseconds, chosen):
    clockwork = Clockwork(monkeypatch, milliseconds, cores=2)
    predictor = Predictor("some.onnx")
    assert (predictor.runtime, predictor.threads) == chosen
    assert sorted(clockwork.opened) == sorted(milliseconds)  # one thread is tried of small networks alone
    assert predictor.said.startswith(f"{chosen[0]}, {chosen[1]} thread")
    assert all(runtime in predictor.said for runtime, _ in milliseconds)


def test_what_is_given_is_not_measured(monkeypatch):
    clockwork = Clockwork(monkeypatch, {("openvino", 3): 1, ("onnxruntime", 4): 1}, cores=4)
    given = Predictor("some.onnx", threads=3, runtime="openvino")
    assert (given.runtime, given.threads, given.said) == ("openvino", 3, "")
    at_once = Predictor.at_once("some.onnx")
    assert (at_once.runtime, at_once.threads, at_once.said) == ("onnxruntime", 4, "")
    assert clockwork.opened == [("openvino", 3), ("onnxruntime", 4)]


@pytest.mark.long
def test_what_a_source_can_be_opened_in(small_run, onnx_file, ir_file):
    assert [runtimes.runtimes_for(source) for source in (small_run, onnx_file, ir_file)] == [
        ["torch"], ["onnxruntime", "openvino"], ["openvino"],
    ]  # fmt: skip
    with pytest.raises(UsageError, match="runtime must be one of torch; got 'openvino'"):
        Predictor.at_once(small_run, runtime="openvino")


@pytest.mark.long
def test_what_openvino_compiled_is_kept(ir_file, tmp_path, monkeypatch):
    Predictor(ir_file, threads=1)
    assert list((tmp_path / "cache" / "openvino").glob("*.blob"))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CONVARIUM_HOME", str(tmp_path / "file" / "cache"))  # cannot be made
    assert len(list(Predictor(ir_file, threads=1).predict([noise(8, 8)]))) == 1


@pytest.mark.long
def test_ctrl_c_finds_its_way_after_openvino(ir_file):
    """OpenVINO gives a thread a signal stack and frees it with what it was made for, on whichever thread that goes."""
    code = (
        "import gc, signal, threading\n"
        "from pathlib import Path\n"
        "from convarium.deploy.openvino import load_openvino\n"
        f"held = [load_openvino(Path({str(ir_file)!r}))]\n"
        "elsewhere = threading.Thread(target=lambda: (held.clear(), gc.collect()))\n"
        "elsewhere.start()\n"
        "elsewhere.join()\n"
        "signal.signal(signal.SIGINT, lambda *_: print('handled'))\n"
        "signal.raise_signal(signal.SIGINT)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "handled\n"), ended.stderr
