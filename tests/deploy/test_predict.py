"""``predict`` as it is used daily: folders, lists, tables, images that are broken."""

import csv
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from convarium.cli import main
from convarium.deploy import stream
from convarium.deploy.predictor import Predictor

from .conftest import NAMES, noise

BROKEN = {3, 11, 17}  # of 30: one in ten


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(30):
        path = folder / f"{i:02d}.png"
        if i in BROKEN:
            path.write_bytes(b"\x89PNG\r\n\x1a\n cut")
        else:
            Image.fromarray(noise(20 + i % 3, 30, seed=i)).save(path)
    return folder


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_folder_with_broken_images(capsys, onnx_file, pictures, tmp_path):
    table = tmp_path / "out.csv"
    code, out, err = run(capsys, "predict", onnx_file, pictures, "--output", table, "--top", 2)
    assert code == 3
    assert out == f"30 images, a row for each: {table}\n"
    assert err == "3 of 30 images could not be read; their rows say why\n"
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "error", "label_1", "probability_1", "label_2", "probability_2"]
    assert [row["path"] for row in rows] == [str(pictures / f"{i:02d}.png") for i in range(30)]
    assert {i for i, row in enumerate(rows) if row["error"]} == BROKEN
    for i, row in enumerate(rows):
        if i in BROKEN:
            assert "cannot read the image" in row["error"] and row["label_1"] == row["probability_2"] == ""
        else:
            (alone,) = Predictor.at_once(onnx_file).predict([row["path"]], top=2)
            assert [row["label_1"], row["label_2"]] == alone.labels
            assert float(row["probability_1"]) == pytest.approx(alone.probabilities[0], abs=1e-5)


def test_names_from_stdin_to_json_lines(capsys, onnx_file, pictures, tmp_path, monkeypatch):
    table = tmp_path / "out.jsonl"
    names = [pictures / "01.png", pictures / "03.png", pictures, tmp_path / "absent.png"]
    lines = "\n".join(map(str, names)) + "\r\n\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    code, _, err = run(capsys, "predict", onnx_file, "-", "--output", table, "--threads", 1, "--runtime", "onnxruntime")
    assert code == 3 and err == "5 of 33 images could not be read; their rows say why\n"
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    assert [row["path"] for row in rows[:3]] == [str(path) for path in [*names[:2], pictures / "00.png"]]
    assert sorted(rows[0]["labels"]) == sorted(NAMES) and "error" not in rows[0]
    assert set(rows[1]) == {"path", "error"} and "does not exist" in rows[-1]["error"]


def test_whole_jobs_end_well_and_say_nothing_but_the_result(capsys, onnx_file, pictures, tmp_path):
    code, out, err = run(capsys, "predict", onnx_file, pictures / "00.png", "--top", 1)
    assert code == 0 and err == "" and out.startswith(f"{pictures}/00.png: ")
    assert run(capsys, "predict", onnx_file, pictures / "00.png", "--output", tmp_path / "a.csv")[0] == 0
    code, out, _ = run(capsys, "predict", onnx_file, pictures / "00.png", pictures / "03.png", "--json")
    rows = json.loads(out)["rows"]
    assert code == 3 and rows[0]["error"] is None and "03.png" in rows[1]["error"]


def test_jobs_without_any_result_leave_what_was_there(capsys, onnx_file, pictures, tmp_path, monkeypatch):
    table = tmp_path / "out.csv"
    table.write_text("an earlier table")
    bad = [pictures / "03.png", pictures / "11.png"]
    code, out, err = run(capsys, "predict", onnx_file, *bad, "--output", table)
    assert (code, out) == (3, "") and err.startswith("error: none of the 2 images could be read; the first: cannot")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    code, _, err = run(capsys, "predict", onnx_file, "-", "--output", table)
    assert code == 3 and "no image was named on stdin" in err
    assert table.read_text() == "an earlier table" and not list(tmp_path.glob("*.part")) + list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--output", "out.txt"], "--output must be a file that ends in .csv or .jsonl; got 'out.txt'"),
        (["--output", "nowhere/out.csv"], "no folder nowhere to write out.csv into"),
        (["--output", "a.csv", "--features", "f.npy"], "--features is written by itself"),
        (["--threads", "0"], "threads must be 1 or more; got 0"),
        (["--runtime", "torch"], "runtime must be one of onnxruntime, openvino; got 'torch'"),
        (["--runtime", "tensorrt"], "--runtime"),
    ],
)
def test_what_cannot_be_asked(capsys, onnx_file, pictures, options, said):
    code, out, err = run(capsys, "predict", onnx_file, pictures, *options)
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="names are bytes on other systems alone")
def test_names_that_are_not_utf8(onnx_file, tmp_path):
    name = os.path.join(os.fsencode(tmp_path), b"caf\xe9.png")
    with open(name, "wb") as file:
        Image.fromarray(noise(9, 9)).save(file, format="png")
    for suffix in ("csv", "jsonl"):
        table = tmp_path / f"out.{suffix}"
        command = [sys.executable, "-m", "convarium", "predict", str(onnx_file), "-", "--output", str(table)]
        options = ["--runtime", "onnxruntime", "--threads", "1"]
        subprocess.run([*command, *options], input=name, capture_output=True, check=True)
        assert name in table.read_bytes()


def test_few_images_are_in_memory_at_a_time(monkeypatch):
    held, asked = [], []  # how many came, which were read

    def read(path, channels):
        asked.append(path)
        return np.zeros((512, 512, 3), np.uint8)

    monkeypatch.setattr(stream, "read_image", read)
    for batch in stream.batches((f"{i}.png" for i in range(400)), 3):
        held.append(len(batch))
        assert len(asked) <= sum(held) + stream.AHEAD + 1
        assert sum(image.pixels.nbytes for image in batch) <= stream.BATCH_BYTES
    assert sum(held) == 400 and max(held) == stream.BATCH


def test_an_image_above_the_weight_goes_alone(monkeypatch):
    monkeypatch.setattr(stream, "BATCH_BYTES", 8 * 8 * 3 - 1)
    sizes = [len(batch) for batch in stream.batches([noise(8, 8)] * 3, 3)]
    assert sizes == [1, 1, 1]
