"""``compress`` from end to end: a table, a page, a file that was gated; stopped, it goes on to the same end."""

import json
import os
import shutil
import signal
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from convarium.cli import main
from convarium.compression import measure, trials
from convarium.compression import quantise as quantising
from convarium.compression.compress import compress
from convarium.compression.quantised import OverBudget
from convarium.compression.result import BudgetNotMet
from convarium.compression.search_setup import make_plan
from convarium.console import stdout
from convarium.data.datasets import open_dataset
from convarium.errors import Interrupted
from convarium.recipe import read_recipe
from convarium.runs import RECIPE, load_run
from convarium.tensors import load_tensors

OPTIONS = dict(epochs=1, steps="0.6,0.3", max_drop=100.0, runtime="onnxruntime", samples=12, batch=4, threads=1)


@pytest.fixture(autouse=True, scope="module")
def few_measurements():
    """Enough to be measured at all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "SINGLES", 3)
        patch.setattr(measure, "BATCHES", 3)
        yield


@pytest.fixture(scope="module")
def data(draw_folder, tmp_path_factory):
    """The classes of ``run``, with a split of their own for every purpose."""
    root = tmp_path_factory.mktemp("compress") / "data"
    for split, count in (("train", 20), ("val", 8), ("test", 10)):
        draw_folder(root / split, {"ant": count, "bee": count, "cat": count}, size=16, seed=count)
    return root


@pytest.fixture(scope="module")
def ended(run, data, tmp_path_factory):
    return compress(run, data=str(data), output=tmp_path_factory.mktemp("compressed") / "whole", **OPTIONS)


@pytest.mark.long
def test_it_ends_in_measured_points_and_a_chosen_file(run, data, ended):
    assert ended.split == "test" and ended.images == 30
    assert [each.label for each in ended.points] == [
        "dense torch", "dense float", "dense int8", "step-1 float", "step-1 int8", "step-2 float", "step-2 int8",
    ]  # fmt: skip
    whole = ended.points[0].macs
    for each in ended.points:
        assert 0 < each.p50_ms <= each.p99_ms and each.images_per_second > 0 and each.memory_mib > 20
        assert each.low_percent <= each.error_percent <= each.high_percent
        assert each.macs <= whole * {"dense": 1, "step-1": 0.6, "step-2": 0.3}[each.name]
        model = load_run(each.run).model
        assert sum(parameter.numel() for parameter in model.parameters()) == each.params
    first, second = (next(each for each in ended.points if each.name == name) for name in ("dense", "step-2"))
    assert second.params < 0.6 * first.params
    assert load_run(ended.output / "step-2").model.plan == load_run(ended.output / "cut-2").model.plan
    assert ended.chosen in ended.sentence and ended.file == str(ended.output / "chosen" / "model.onnx")
    chosen = next(each for each in ended.points if each.label == ended.chosen)
    assert Path(ended.file).read_bytes() == Path(chosen.file).read_bytes()
    assert chosen.p50_ms == min(each.p50_ms for each in ended.points if each.is_compressed)


def test_training_again_has_the_whole_learning_rate_of_the_run(run, data):
    """Renda et al., ICLR 2020: rewinding the rate keeps more accuracy than going on at the low one it ended with."""
    given = {
        **dict.fromkeys(("target", "importance", "scheme", "without_gates", "low_rank")),
        **OPTIONS,
        "steps": [0.6],
    }
    plan, dense = make_plan(load_run(run), open_dataset(str(data)), str(data), given), read_recipe(run / RECIPE)[0]
    assert plan.recipe["learning_rate"] == dense.learning_rate and plan.recipe["schedule"] == dense.schedule
    assert 0 < plan.recipe["distill_weight"] < 1


@pytest.mark.long
def test_the_chosen_file_errs_as_often_as_it_says(data, ended):
    import onnxruntime

    session = onnxruntime.InferenceSession(ended.file, providers=["CPUExecutionProvider"])
    dataset = open_dataset(str(data))
    test = dataset.splits["test"]
    answers = [session.run(None, {"image": dataset.read(int(i), 3)[None]})[0].argmax() for i in test]
    chosen = next(each for each in ended.points if each.label == ended.chosen)
    assert chosen.error_percent == pytest.approx(100 * np.mean(answers != dataset.labels[test]))


@pytest.mark.long
def test_the_page_is_whole_and_alone(ended):
    page = ended.page.read_text()
    assert page.count("step-2") >= 4 and ended.sentence.split(" (")[0] in page  # in the table, and in both panels
    assert "http" not in page and "<script" not in page
    ET.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])
    assert json.loads((ended.output / "compress.json").read_text())["chosen"] == ended.chosen
    with stdout().capture() as shown:
        stdout().print(ended.render())
    assert shown is not None


@pytest.mark.long
def test_stopped_it_goes_on_to_the_same_end(run, data, ended, tmp_path, monkeypatch):
    from convarium.compression import search
    from convarium.training.progress import TrainingProgress

    on_step, folder = TrainingProgress.on_step, tmp_path / "stopped"
    for stop_after in (1, 3):  # steps of training: in the first network, in the second
        left = iter(range(1, 1000))

        def interrupt(self, *arguments, left=left, stop_after=stop_after):
            on_step(self, *arguments)
            if next(left) == stop_after:
                os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(TrainingProgress, "on_step", interrupt)
        with pytest.raises(Interrupted, match=r"to go on: convarium compress .*stopped --resume"):
            compress(run, data=str(data), output=folder, **OPTIONS, resume=folder.exists())
    monkeypatch.undo()

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(search, "_quantise", stop)
    with pytest.raises(Interrupted, match="--resume"):
        compress(run, data=str(data), output=folder, resume=True)
    monkeypatch.undo()
    monkeypatch.setattr(measure, "peak_memory_mib", lambda *arguments: None)
    assert not (folder / "compress.json").exists() and not (folder / "chosen").exists()
    resumed = compress(run, data=str(data), output=folder, resume=True)
    for before, after in zip(ended.points, resumed.points, strict=True):
        assert (before.label, before.macs, before.difference, before.chosen_by) == (
            after.label, after.macs, after.difference, after.chosen_by,
        )  # fmt: skip
    for name in ("step-1", "step-2"):
        first, second = (load_tensors(end.output / name / "model.safetensors")[0] for end in (ended, resumed))
        assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.long
def test_a_budget_that_cannot_be_met_leaves_nothing_chosen(run, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measure, "peak_memory_mib", lambda *arguments: None)  # as where the system does not tell
    folder = tmp_path / "hopeless"
    shutil.copytree(run, tmp_path / "run")
    command = ["compress", str(tmp_path / "run"), "--data", str(data), "--output", str(folder), "--max-drop", "0"]
    command += ["--target", "macs", "--steps", "0.05", "--epochs", "1", "--runtime", "onnxruntime", "--threads", "1"]
    assert main(command) == 4
    said = capsys.readouterr()
    assert said.out == "" and "step-1" in said.err and said.err.count("\nerror: ") == 1
    assert not (folder / "chosen").exists() and json.loads((folder / "compress.json").read_text())["chosen"] is None
    assert "No file was put" in (folder / "compress.html").read_text()


# -- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--max-drop", "-1"], 2, "--max-drop must be 0 to 100; got -1"),
        (["--max-drop", "nan"], 2, "--max-drop must be 0 to 100; got nan"),
        (["--samples", "0"], 2, "--samples must be 1 to"),
        (["--epochs", "0"], 2, "--epochs must be between 1"),
        (["--steps", "0.3,0.5"], 2, "parts of the network that are left"),
        (["--steps", "0.5,0.0001"], 2, "--steps 0.0001 is below what"),
        (["--steps", "0.0001"], 2, "0.0001 of the network's macs cannot be reached: at most"),
        (["--resume", "--overwrite"], 2, "give one of them"),
        (["--resume"], 3, "holds no plan.json"),
        (["--target", "speed"], 2, "target"),
    ],
)
def test_bad_options_are_one_line(run, images, options, code, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["compress", str(run), "--data", str(images), "--runtime", "onnxruntime", *options]) == code
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
    assert not (tmp_path / "compressed").exists()


def test_bad_runs_data_and_folders_are_one_line(run, images, draw_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    others = draw_folder(tmp_path / "others", {"ant": 3, "bee": 3, "cow": 3})
    few = draw_folder(tmp_path / "few", {"ant": 3, "bee": 3})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    for arguments, code, said in (
        (["nowhere", "--data", str(images)], 3, "no run folder nowhere"),
        ([str(run), "--data", str(others)], 3, "'cow', which the weights do not know"),
        ([str(run), "--data", str(few)], 3, "2 of the weights' 3 classes"),
        ([str(run), "--data", "digit"], 3, "nearest: digits"),
        ([str(run), "--data", str(images), "--output", str(tmp_path / "mine")], 2, "not a search's (letter.txt)"),
        ([str(run), "--data", str(images), "--output", str(run.parent)], 2, "which is to be written"),
        ([str(run)], 2, "--data"),
    ):
        assert main(["compress", *arguments]) == code
        error = capsys.readouterr().err
        assert said in error and "Traceback" not in error
    assert [entry.name for entry in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def test_a_missing_runtime_names_its_extra(run, images, tmp_path, monkeypatch, capsys):
    from importlib import util

    find_spec = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *more: None if name == "nncf" else find_spec(name, *more))
    command = ["compress", str(run), "--data", str(images), "--output", str(tmp_path / "out"), "--runtime", "openvino"]
    assert main(command) == 2
    assert "pip install 'convarium[openvino]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_a_search_keeps_its_options_and_its_inputs(run, data, ended, images, capsys):
    begun = ["compress", str(run), "--output", str(ended.output)]
    for more, said in (
        (["--data", str(data)], "already holds a search"),
        (["--data", str(data), "--resume", "--max-drop", "1"], "began with --max-drop 100.0"),
        (["--data", str(data), "--resume", "--steps", "0.5"], "began with --steps 0.6,0.3"),
        (["--data", str(images), "--resume"], "is not what the search"),
    ):
        assert main([*begun, *more]) == 2
        assert said in capsys.readouterr().err


def test_not_met_is_a_gate():
    assert BudgetNotMet.exit_code == 4


@pytest.mark.long
def test_what_int8_costs_too_much_of_is_taught_int8(run, data, tmp_path, monkeypatch):
    """As if the first try of each network had cost too much: no image data makes that of a real one for sure."""
    tried, quantise = [], quantising.quantise

    def costly(found, dataset, **options):
        tried.append(found.path.name)
        result = quantise(found, dataset, **options)
        if found.path.name.startswith("taught"):
            return result
        for part in trials.parts(options["output"]):
            part.unlink()
        raise OverBudget(replace(result, path=None))

    monkeypatch.setattr(quantising, "quantise", costly)
    options = {**OPTIONS, "steps": "0.5", "epochs": 2}
    ended = compress(run, data=str(data), output=tmp_path / "search", **options)
    assert tried == [run.name, "taught-0", "step-1", "taught-1"]
    int8 = [each for each in ended.points if each.form == "int8"]
    assert [(each.label, Path(each.run).name) for each in int8] == [
        ("dense int8", "taught-0"), ("step-1 int8", "taught-1"),
    ]  # fmt: skip
    recipe = read_recipe(tmp_path / "search" / "taught-1" / RECIPE)[0]
    assert recipe.int8 and recipe.teacher == str(run) and recipe.epochs == 1
    before, after = (load_run(tmp_path / "search" / name).model.plan for name in ("step-1", "taught-1"))
    assert before == after and before
    compress(run, data=str(data), output=tmp_path / "search", resume=True)
    assert len(tried) == 4  # what is done is kept
    compress(run, data=str(data), output=tmp_path / "search", overwrite=True, **options)  # and may be replaced
