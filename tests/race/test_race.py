"""The verb: a race on striped images, stopped and resumed, and what it refuses."""

import json
import os
import signal
import xml.etree.ElementTree as ET

import pytest
import torch

from convarium import evaluate, load_run, train
from convarium.cli import main
from convarium.console import stdout
from convarium.data.datasets import open_dataset
from convarium.errors import DataError, Interrupted, UsageError
from convarium.race.race import race
from convarium.runs import save_run
from convarium.tensors import load_tensors

OPTIONS = dict(models="resnet20_cifar,plain20_cifar", image_size=8, batch_size=16, threads=1, flip=False)
FLAGS = ["--models", "resnet20_cifar,plain20_cifar,se_resnet20_cifar", "--image-size", "8", "--threads", "1"]


@pytest.fixture(scope="module")
def stripes(draw_folder, tmp_path_factory):
    """Three classes of thirty images, eighteen held out."""
    return draw_folder(tmp_path_factory.mktemp("stripes") / "stripes", {"ant": 30, "bee": 30, "cat": 30}, size=12)


@pytest.fixture(scope="module")
def ended(stripes, tmp_path_factory):
    return race(str(stripes), budget="2epochs", output=tmp_path_factory.mktemp("races") / "whole", **OPTIONS)


@pytest.mark.long
def test_a_race_ends_in_a_table_a_page_and_runs(ended, stripes):
    held_out = open_dataset(str(stripes)).splits["val"]
    assert ended.images == len(held_out) == 18 and ended.split == "held-out"
    assert {each.model for each in ended.candidates} == {"resnet20_cifar", "plain20_cifar"}
    for each in ended.candidates:
        assert each.epochs == 2 and each.latency_ms > 0
        assert each.error_percent == pytest.approx(each.chosen_by_percent, abs=1e-3)  # the same images, here
        assert each.low_percent <= each.error_percent <= each.high_percent
        run = load_run(each.run)
        assert run.preprocessing.size == 8 and run.preprocessing.channels == 3
        assert each.memory_mib > each.params * 4 / 2**20
    assert ended.candidates[0].chosen_by_percent <= ended.candidates[1].chosen_by_percent
    assert any("those that chose" in note for note in ended.notes)
    assert json.loads((ended.output / "race.json").read_text()) == json.loads(json.dumps(ended.as_dict(), default=str))
    with stdout().capture() as shown:
        stdout().print(ended.render())
    assert shown is not None and ended.advice.startswith(f"Take {ended.candidates[0].model}")


@pytest.mark.long
def test_the_page_is_whole_and_alone(ended):
    page = ended.page.read_text()
    for each in ended.candidates:
        assert page.count(each.model) >= 4  # two tables, two panels
    assert "http" not in page and "<script" not in page
    for figure in page.split("<figure>")[1:]:
        ET.fromstring(figure[: figure.index("</svg>") + 6])


@pytest.mark.long
def test_a_finished_race_resumes_to_itself(ended, stripes, capsys):
    assert main(["race", str(stripes), "--output", str(ended.output), "--resume", "--json"]) == 0
    said = capsys.readouterr()
    again = json.loads(said.out)
    assert "epoch" not in said.err.replace("2epochs", "")
    for before, after in zip(ended.as_dict()["candidates"], again["candidates"], strict=True):
        assert before["error_percent"] == after["error_percent"] and before["model"] == after["model"]


@pytest.mark.long
def test_interrupted_it_goes_on_to_the_same_end(stripes, tmp_path, monkeypatch):
    from convarium.training.progress import TrainingProgress

    options = {**OPTIONS, "models": "resnet20_cifar,plain20_cifar,se_resnet20_cifar", "budget": "3epochs"}
    whole = race(str(stripes), output=tmp_path / "whole", **options)
    assert [leg.round for leg in whole.legs] == [1, 1, 1, 2, 2]
    assert {leg.epochs for leg in whole.legs if leg.round == 1} == {1}
    assert {leg.epochs for leg in whole.legs if leg.round == 2} == {2}
    on_step, folder, stops = TrainingProgress.on_step, tmp_path / "stopped", 0
    for stop_after in (2, 9, 4):
        steps = iter(range(1, 1000))

        def interrupt(self, *arguments, steps=steps, stop_after=stop_after):
            on_step(self, *arguments)
            if next(steps) == stop_after:
                os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(TrainingProgress, "on_step", interrupt)
        with pytest.raises(Interrupted, match=r"to go on: convarium race .*stopped --resume"):
            race(str(stripes), output=folder, **options, resume=folder.exists())
        stops += 1
    monkeypatch.undo()
    resumed = race(str(stripes), output=folder, resume=True)
    assert stops == 3 and [each.model for each in resumed.candidates] == [each.model for each in whole.candidates]
    for before, after in zip(whole.candidates, resumed.candidates, strict=True):
        assert (before.epochs, before.error_percent) == (after.epochs, after.error_percent)
        first, second = (load_tensors(each.run / "model.safetensors")[0] for each in (before, after))
        assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.long
def test_a_time_is_kept_and_the_test_split_judges(draw_folder, tmp_path):
    for split, count in (("train", 60), ("val", 8), ("test", 10)):
        draw_folder(tmp_path / "data" / split, {"ant": count, "bee": count}, size=12, seed=count)
    ended = race(str(tmp_path / "data"), budget="6s", output=tmp_path / "race", **OPTIONS)
    assert ended.split == "test" and ended.images == 20
    assert not any("those that chose" in note for note in ended.notes)
    assert all(each.epochs >= 1 for each in ended.candidates)
    plan = json.loads((tmp_path / "race" / "plan.json").read_text())
    for each in ended.candidates:  # whole epochs in the share, at the pace that was measured
        assert each.epochs == max(1, int(3 / plan["pace"][each.model]["epoch_s"]))


def test_a_time_too_short_says_how_much_is_needed(stripes, tmp_path, capsys):
    command = ["race", str(stripes), *FLAGS, "--budget", "0.01s", "--output", str(tmp_path / "race")]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "--budget 0.01s is too small" in said and "an epoch of" in said and "or more, or leave" in said
    assert not (tmp_path / "race").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["digits", "--models", "lenet5,lenet6"], 2, "no network matches 'lenet6'; nearest: lenet5"),
        (["digits", "--models", "lenet5"], 2, "needs two networks or more"),
        (["digits", "--models", "lenet5,lenet5_modern", "--budget", "20"], 2, "such as 20epochs; got '20'"),
        (["digits", "--models", "lenet5,lenet5_modern", "--image-size", "16"], 2, "takes images of 32 pixels or more"),
        (["digits", "--batch-size", "1"], 2, "--batch-size must be between 2"),
        (["digits", "--resume", "--overwrite"], 2, "give one of them"),
        (["digits", "--resume"], 3, "holds no plan.json"),
        (["digit", "--models", "lenet5,lenet5_modern"], 3, "nearest: digits"),
    ],
)
def test_bad_input_is_one_line(arguments, code, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["race", *arguments]) == code
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
    assert not (tmp_path / "races").exists()


@pytest.mark.long
def test_a_race_keeps_its_options_and_its_data(ended, stripes, draw_folder, tmp_path, capsys):
    begun = ["race", str(stripes), "--output", str(ended.output)]
    for more, said in (
        (["--resume", "--budget", "3epochs"], "began with --budget 2epochs"),
        (["--resume", "--models", "lenet5,lenet5_modern"], "began with --models resnet20_cifar,plain20_cifar"),
        (["--resume", "--batch-size", "8"], "began with --batch-size 16"),
        ([], "already holds a race"),
    ):
        assert main([*begun, *more]) == 2
        assert said in capsys.readouterr().err
    other = draw_folder(tmp_path / "other", {"ant": 30, "bee": 30}, size=12)
    assert main(["race", str(other), "--output", str(ended.output), "--resume"]) == 2
    assert "not what the race" in capsys.readouterr().err


# -- finished runs beside the candidates ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def entrant(stripes, tmp_path_factory):
    output = tmp_path_factory.mktemp("entrant") / "mine"
    train(
        str(stripes), model="lenet5_modern", output=output, image_size=32, epochs=3, batch_size=8, threads=1, flip=False
    )
    return output


@pytest.mark.long
def test_a_finished_run_is_judged_beside_them_as_it_is(stripes, entrant, tmp_path):
    before = (entrant / "model.safetensors").read_bytes()
    ended = race(str(stripes), runs=str(entrant), budget="2epochs", output=tmp_path / "race", **OPTIONS)
    mine = next(each for each in ended.candidates if each.run == entrant)
    assert (mine.model, mine.rounds, mine.epochs) == (str(entrant), 0, 3)
    told = evaluate(entrant, data=str(stripes)).top1_error_percent
    assert mine.error_percent == pytest.approx(told) and mine.chosen_by_percent == pytest.approx(told)
    assert [each.chosen_by_percent for each in ended.candidates] == sorted(
        each.chosen_by_percent for each in ended.candidates
    )
    assert {leg.model for leg in ended.legs} == {"resnet20_cifar", "plain20_cifar"}  # it took no part in a round
    assert any(note == f"As they came, with a training of their own: {entrant}." for note in ended.notes)
    assert ended.page.read_text().count("mine") >= 4
    assert (entrant / "model.safetensors").read_bytes() == before
    again = race(str(stripes), output=tmp_path / "race", resume=True)
    assert [each.model for each in again.candidates] == [each.model for each in ended.candidates]
    with pytest.raises(UsageError, match=r"began with --runs .* got other"):
        race(str(stripes), runs="other", output=tmp_path / "race", resume=True)


def test_runs_that_would_not_be_judged_fairly_are_refused(stripes, entrant, run, tmp_path):
    options = dict(budget="2epochs", output=tmp_path / "race", **OPTIONS)
    with pytest.raises(UsageError, match="its split having seed 0: race with --seed 0"):
        race(str(stripes), runs=str(entrant), seed=1, **options)
    with pytest.raises(UsageError, match="names a run twice"):
        race(str(stripes), runs=f"{entrant},{entrant}", **options)
    other = tmp_path / "other"
    loaded = load_run(entrant)
    other.mkdir()
    save_run(other, loaded.model, loaded.preprocessing, ["cat", "bee", "ant"], data=loaded.own["data"])
    with pytest.raises(DataError, match=r"has other classes than .*, or in another order"):
        race(str(stripes), runs=str(other), **options)
    with pytest.raises(DataError, match="no run"):
        race(str(stripes), runs=str(tmp_path / "nowhere"), **options)
    assert not (tmp_path / "race").exists()
