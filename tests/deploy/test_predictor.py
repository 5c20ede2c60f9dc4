"""The predictor: the same answers from a run folder and from an exported file, the latter without torch."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from convarium import create_model
from convarium.data.preprocess import Preprocessing
from convarium.deploy.onnx import export_onnx
from convarium.deploy.predictor import Prediction, Predictor
from convarium.errors import DataError, UsageError
from convarium.runs import load_run, save_run

NAMES = ["ant", "bee", "cat", "dog"]


def noise(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run folder; nothing of it is trained, but its logits are far from each other."""
    torch.manual_seed(0)
    model = create_model("lenet5_modern", num_classes=4, in_chans=3).eval()
    with torch.no_grad():
        model.get_classifier().weight *= 20
    path = tmp_path_factory.mktemp("run")
    settings = Preprocessing(32, 3, (0.5,) * 3, (0.25,) * 3)
    save_run(path, model, settings, NAMES, data={"name": "none", "fingerprint": "", "seed": 0})
    return path


@pytest.fixture(scope="module")
def file(folder):
    run = load_run(folder)
    path = folder / "model.onnx"
    export_onnx(run.model, run.preprocessing, run.class_names, path, metadata={}, parity_images=[])
    return path


@pytest.fixture(scope="module", params=["folder", "file"])
def predictor(request):
    return Predictor(request.getfixturevalue(request.param), threads=1)


def test_both_sources_agree(folder, file):
    images = [noise(*shape) for shape in ((8, 8), (32, 32), (500, 300), (20, 700))]
    for ours, theirs in zip(Predictor(folder).predict(images), Predictor(file).predict(images), strict=True):
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


def test_a_broken_file_stops_at_its_turn(predictor, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n")
    predictions = predictor.predict([noise(20, 20), broken])
    next(predictions)
    with pytest.raises(DataError, match=r"broken\.png"):
        next(predictions)


@pytest.mark.parametrize("image", [np.zeros((8, 8)), np.zeros((8, 8, 3)), noise(8, 8, 4), noise(0, 8), noise(8, 8)[0]])
def test_arrays_that_are_not_images(predictor, image):
    with pytest.raises(DataError, match=r"an image is uint8 \(height, width, 1 or 3\); got"):
        next(predictor.predict([image]))


def test_refusals(folder, tmp_path):
    with pytest.raises(UsageError, match="top must be 1 or more; got 0"):
        Predictor(folder).predict([], top=0)
    with pytest.raises(UsageError, match="threads must be 1 or more; got 0"):
        Predictor(folder, threads=0)
    with pytest.raises(DataError, match="no run folder"):
        Predictor(tmp_path / "nothing")
    with pytest.raises(DataError, match="no exported file"):
        Predictor(tmp_path / "nothing.onnx")
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    with pytest.raises(DataError, match="is not an ONNX file that can be run"):
        Predictor(text)


def test_an_exported_file_needs_no_torch(file, tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(noise(45, 30)).save(path)
    code = """
import sys
sys.modules["torch"] = None  # importing it now fails
from convarium import Predictor
(prediction,) = Predictor(sys.argv[1], threads=1).predict([sys.argv[2]])
print(prediction.labels[0])
"""
    command = [sys.executable, "-c", code, str(file), str(path)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (expected,) = Predictor(file).predict([path])
    assert printed.strip() == expected.labels[0]
