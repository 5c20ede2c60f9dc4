"""The command line as a user meets it: exit codes, one-line errors, one JSON document, nothing else on stdout."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from convarium.cli import VERBS, main


def refused(capsys, *arguments: str) -> tuple[int, str]:
    """Exit code and the one line on stderr; nothing is on stdout."""
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1, (out, err)
    return code, err


def answered(capsys, *arguments: str) -> str:
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def test_every_verb_has_help(capsys):
    for verb in VERBS:
        with pytest.raises(SystemExit) as stop:
            main([verb, "--help"])
        out, _ = capsys.readouterr()
        assert stop.value.code == 0 and f"usage: convarium {verb}" in out and "--json" in out
    assert all(verb in answered(capsys, "--help") for verb in VERBS)


def test_list_and_describe(capsys):
    table = answered(capsys, "list", "se_*_cifar")
    assert "se_resnet20_cifar" in table and "resnet50 " not in table
    rows = json.loads(answered(capsys, "list", "--json"))["networks"]
    assert {row["name"]: row["params"] for row in rows}["resnet50"] == 25_557_032
    assert "25,557,032 parameters" in answered(capsys, "describe", "resnet50")
    described = json.loads(answered(capsys, "describe", "se_resnet50", "--json"))
    assert described["macs"] == 3_860_488_192 and len(described["layers"]) > 100
    assert "stages.conv2_x.0.branch.0.conv" in answered(capsys, "describe", "resnet50", "--layers")
    assert "16x8x8" in answered(capsys, "describe", "resnet20_cifar", "--input-size", "8")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["trian"], 2, "no command 'trian'; nearest: train"),
        (["describe", "resnet5O"], 2, "no network named 'resnet5O'; nearest: resnet50"),
        (["describe", "resnet50", "--input_sise", "9"], 2, "has no option --input-sise; nearest: --input-size"),
        (
            ["describe", "resnet50", "--input-size", "16"],
            2,
            "resnet50 takes images of at least 32x32 pixels; got 16x16",
        ),
        (["describe", "resnet50", "--input-size", "x"], 2, "--input-size"),
        (["describe"], 2, "MODEL"),
        (["list", "vit*"], 2, "no network matches 'vit*'"),
        (["list", "--frobnicate"], 2, "convarium list takes"),
        (["list", "--exclude"], 2, "--exclude"),
        (["train", "", "--model", "lenet5"], 3, "no data ''"),
        (["train", "digits", "--model", "lenet5", "--epochs", "None"], 2, "--epochs"),
        (["describe", "resnet50", "--input-size", "99999999999999999999"], 2, "input size must be"),
        (["train", "digits"], 2, "--model"),
        (["train", "digits", "--model", "lenet5", "--epochs", "many"], 2, "--epochs"),
        (["train", "digits", "--model", "lenet5", "--optimizer", "adam"], 2, "--optimizer"),
        (["train", "nowhere", "--model", "lenet5"], 3, "no data 'nowhere'"),
        (["evaluate", "nowhere", "--data", "digits"], 3, "no run folder nowhere: train one first"),
        (["predict", "nowhere", "image.png"], 3, "no run folder nowhere"),
        (["predict", "nowhere.onnx", "image.png"], 3, "no exported file nowhere.onnx"),
        (["export", "nowhere"], 3, "no run folder nowhere"),
        (["explain", "nowhere", "image.png"], 3, "no run folder nowhere"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(capsys, arguments, code, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, line = refused(capsys, *arguments)
    assert found == code and said in line
    assert not list(tmp_path.iterdir())


@pytest.fixture
def copied(run, tmp_path) -> Path:
    """A run that may be damaged."""
    return Path(shutil.copytree(run, tmp_path / "run"))


def test_a_run_that_is_not_whole(capsys, copied, images):
    image = images / "ant" / "000.png"
    (copied / "model.safetensors").rename(copied / "kept")
    assert refused(capsys, "predict", copied, image) == (
        3,
        f"error: no weights at {copied}/model.safetensors: a run folder or a .safetensors file is wanted\n",
    )
    (copied / "model.safetensors").write_bytes((copied / "kept").read_bytes()[:-50])
    assert "is not a whole safetensors file" in refused(capsys, "predict", copied, image)[1]
    (copied / "config.json").write_text("{")
    assert "is not JSON" in refused(capsys, "predict", copied, image)[1]
    (copied / "config.json").unlink()
    assert "holds no config.json" in refused(capsys, "predict", copied, image)[1]


def test_a_pickle_is_refused_unopened(capsys, copied, images, tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    for legacy in (False, True):
        torch.save(Trap(), copied / "model.safetensors", _use_new_zipfile_serialization=not legacy)
        code, line = refused(capsys, "predict", copied, images / "ant" / "000.png")
        assert code == 3 and "is a pickle" in line
    assert not (tmp_path / "sprung").exists()


def test_weights_of_another_network_list_both_sides(run):
    from convarium import create_model
    from convarium.errors import DataError

    with pytest.raises(DataError, match=r"resnet32_cifar: missing 72 \(stages.*; 2 of another shape"):
        create_model("resnet32_cifar", weights=run)
    with pytest.raises(DataError, match=r"of this lenet5: missing \d+ \(.*\); unexpected 118 \(head"):
        create_model("lenet5", weights=run)
    with pytest.raises(DataError, match=r"\(head.classifier.bias: \(3,\) for \(10,\)\)"):
        create_model("resnet20_cifar", weights=run)
    assert create_model("resnet20_cifar", num_classes=3, weights=run / "model.safetensors").num_classes == 3


def test_a_run_keeps_its_pool_and_notices_altered_weights(images, tmp_path, run):
    from convarium import create_model, load_run
    from convarium.errors import DataError
    from convarium.runs import save_run

    model = create_model("resnet20_cifar", num_classes=3).eval()
    model.reset_classifier(3, "max")
    settings = load_run(run).preprocessing
    save_run(tmp_path, model, settings, ["a", "b", "c"], data={"name": "x", "fingerprint": "y", "seed": 0})
    x = torch.randn(1, 3, 16, 16)
    assert torch.equal(load_run(tmp_path).model(x), model(x))
    weights = bytearray((tmp_path / "model.safetensors").read_bytes())
    weights[-50] ^= 1
    (tmp_path / "model.safetensors").write_bytes(weights)
    with pytest.raises(DataError, match="was altered since"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"), [("architecture", []), ("num_classes", "x"), ("convarium", {}), ("model_args", 3)]
)
def test_a_configuration_that_is_not_ours(capsys, copied, key, value):
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, key: value}))
    assert refused(capsys, "export", copied)[0] in (2, 3)


def test_an_export_goes_nowhere_but_to_an_onnx_file(capsys, run, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "d.onnx").mkdir()
    for target in (tmp_path / "mine.txt", tmp_path / "d.onnx", "/dev/full", ""):
        assert "must be a file that ends in .onnx" in refused(capsys, "export", run, "--output", target)[1]
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_help_shows_no_none(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = capsys.readouterr().out
    assert "None" not in shown and "--epochs INT" in shown and "{sgd,adamw,rmsprop}" in shown and "--no-flip" in shown


@pytest.mark.long
def test_nobody_listening_is_no_failure(run):
    """The reader of the results may go, and so may the reader of the remarks."""
    shell = f"{sys.executable} -m convarium"
    done = subprocess.run(
        ["bash", "-c", f"{shell} describe resnet50 --layers | head -1; echo ${{PIPESTATUS[0]}}"], capture_output=True
    )
    assert done.stdout.endswith(b"\n0\n") and done.stderr == b""
    done = subprocess.run(["bash", "-c", f"{shell} list > /dev/full"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: cannot write the result")


def test_class_names_that_were_edited_are_refused(capsys, copied, images):
    config = json.loads((copied / "config.json").read_text())
    config["label_names"].reverse()
    (copied / "config.json").write_text(json.dumps(config))
    assert "label_names are not those" in refused(capsys, "predict", copied, images / "ant" / "000.png")[1]


def test_evaluate_explain_predict(capsys, copied, images):
    assert json.loads(answered(capsys, "evaluate", copied, "--data", images, "--json"))["images"] == 6
    assert "top-1 error 0.00 %" in answered(capsys, "evaluate", copied, "--data", images)
    image = images / "bee" / "000.png"
    assert "evidence for bee at stage3" in answered(capsys, "explain", copied, image)
    rows = json.loads(answered(capsys, "predict", copied, image, images / "cat", "--top", "2", "--json"))["rows"]
    assert len(rows) == 13 and rows[0]["labels"][0] == "bee" and len(rows[0]["probabilities"]) == 2
    assert {row["labels"][0] for row in rows[1:]} == {"cat"}


def test_bad_images_are_named(capsys, copied, tmp_path, images):
    (tmp_path / "half.png").write_bytes((images / "ant" / "000.png").read_bytes()[:300])
    code, line = refused(capsys, "predict", copied, tmp_path / "half.png")
    assert code == 3 and "cannot read the image" in line and "half.png" in line
    (tmp_path / "nothing").mkdir()
    assert "holds no images" in refused(capsys, "predict", copied, tmp_path / "nothing")[1]


@pytest.mark.long
def test_an_exported_file_answers_as_the_run_does(capsys, copied, images, tmp_path):
    exported = json.loads(answered(capsys, "export", copied, "--output", tmp_path / "net.onnx", "--json"))
    assert exported["largest_relative_difference"] < 1e-4 and exported["parity_images"] > 10
    image = images / "bee" / "003.png"
    answers = [
        json.loads(answered(capsys, "predict", source, image, "--json")) for source in (copied, exported["path"])
    ]
    assert answers[0]["rows"][0]["labels"] == answers[1]["rows"][0]["labels"]
    assert answers[0]["rows"][0]["probabilities"] == pytest.approx(answers[1]["rows"][0]["probabilities"], abs=1e-4)


@pytest.mark.long
def test_train_from_the_command_line(images, tmp_path):
    """stdout holds the result alone; progress goes to stderr, a line per epoch and no colour off a terminal."""
    command = [sys.executable, "-m", "convarium", "train", str(images), "--model", "lenet5_modern", "--epochs", "2"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, cwd=tmp_path, check=True)
    result = json.loads(done.stdout)
    assert result["output"] == f"runs/lenet5_modern-{images.name}" and (tmp_path / result["output"]).is_dir()
    assert done.stderr.count("held-out error") == 2 and "\x1b" not in done.stderr and "threads" in done.stderr
    again = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert again.returncode == 2 and "already holds a run" in again.stderr and again.stdout == ""


def test_a_pipe_is_written_into_and_not_replaced(tmp_path):
    from threading import Thread

    from convarium.atomic import write_text

    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "<svg/>")
    reader.join(10)
    assert read == ["<svg/>"] and not pipe.is_file() and os.listdir(tmp_path) == ["pipe"]
