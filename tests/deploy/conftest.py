"""A run folder whose logits are far from each other, and the files it is exported to."""

import numpy as np
import pytest
import torch

from convarium import create_model, export
from convarium.data.preprocess import Preprocessing
from convarium.runs import save_run

NAMES = ["ant", "bee", "cät", 'd "e"\n']


def noise(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    torch.manual_seed(0)
    model = create_model("lenet5_modern", num_classes=4, in_chans=3).eval()
    with torch.no_grad():
        model.get_classifier().weight *= 20
    path = tmp_path_factory.mktemp("run")
    settings = Preprocessing(32, 3, (0.5,) * 3, (0.25,) * 3)
    save_run(path, model, settings, NAMES, data={"name": "none", "fingerprint": "", "seed": 0})
    return path


@pytest.fixture(scope="session")
def onnx_file(small_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export(small_run, output=path)
    return path


@pytest.fixture(scope="session")
def ir_file(small_run, tmp_path_factory):
    pytest.importorskip("openvino")
    path = tmp_path_factory.mktemp("ir") / "model.xml"
    export(small_run, format="openvino", output=path)
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVARIUM_HOME", str(tmp_path / "cache"))
