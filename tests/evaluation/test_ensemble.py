"""Several runs on the same images: side by side and as one, through the command and by hand."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from convarium import evaluate, load_run, train
from convarium.cli import main
from convarium.errors import DataError, UsageError
from convarium.evaluation.ensemble import combine, contributions
from convarium.evaluation.results import Ensemble, SideBySide
from convarium.runs import save_run


def saved(path: Path, run: Path, class_names=("ant", "bee", "cat"), seed=0) -> Path:
    """The run again, with its classes in another order or under other names, or another seed of its split."""
    loaded = load_run(run)
    order = [loaded.class_names.index(name) if name in loaded.class_names else i for i, name in enumerate(class_names)]
    with torch.no_grad():
        for parameter in loaded.model.get_classifier().parameters():
            parameter.copy_(parameter[order].clone())
    path.mkdir()
    save_run(path, loaded.model, loaded.preprocessing, class_names, data=loaded.own["data"] | {"seed": seed})
    return path


@pytest.fixture(scope="module")
def other(images, tmp_path_factory) -> Path:
    """A LeNet-5 that has learnt little of the same images."""
    output = tmp_path_factory.mktemp("runs") / "lenet"
    train(str(images), model="lenet5_modern", output=output, epochs=1, threads=1)
    return output


@pytest.fixture
def reordered(run, tmp_path) -> Path:
    """The run with its classes in another order."""
    return saved(tmp_path / "reordered", run, ["cat", "ant", "bee"])


def test_averages_by_hand():
    first, second = np.array([[0.8, 0.2]]), np.array([[0.5, 0.5]])
    assert combine([first, second], "probabilities").tolist() == [pytest.approx([0.65, 0.35])]
    # Of logits it is the geometric mean: sqrt(0.8 x 0.5) to sqrt(0.2 x 0.5) is 2 to 1.
    assert combine([np.log(first), np.log(second)], "logits").tolist() == [pytest.approx([2 / 3, 1 / 3])]


def test_what_each_member_adds_by_hand():
    """Four images of class 0. A is right on the first two, B on the third with certainty, C on none."""
    a = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    b = np.array([[0.3, 0.7], [0.3, 0.7], [1.0, 0.0], [0.4, 0.6]])
    c = np.array([[0.4, 0.6], [0.2, 0.8], [0.45, 0.55], [0.4, 0.6]])
    truth = np.zeros(4, dtype=int)
    # Of class 0: A+B 1.2, 1.2, 1.4, 0.8; A+C 1.3, 1.1, 0.85, 0.8; B+C 0.7, 0.5, 1.45, 0.8; all 1.6, 1.4, 1.85, 1.2.
    found = [asdict(each) for each in contributions([a, b, c], truth, "probabilities")]
    assert found == [
        dict(alone=50.0, with_those_before=50.0, without_it=75.0, gain=25.0),
        dict(alone=75.0, with_those_before=25.0, without_it=50.0, gain=0.0),
        dict(alone=100.0, with_those_before=50.0, without_it=25.0, gain=-25.0),
    ]


@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize("crops", ["1", "10", "dense"])
def test_a_run_with_itself_is_itself(other, images, crops, average):
    alone = evaluate(other, data=str(images), split="all", crops=crops, average=average)
    both = evaluate([other, other], data=str(images), split="all", crops=crops, average=average, ensemble=True)
    assert both.confusion == alone.confusion and both.mistakes == alone.mistakes
    assert [member.contribution.gain for member in both.members] == [0.0, 0.0]
    assert both.macs_per_image == 2 * both.members[0].macs_per_image


def test_an_ensemble_costs_what_its_members_cost(run, other, images):
    found = evaluate([run, other], data=str(images), ensemble=True, crops="12")
    assert isinstance(found, Ensemble)
    assert found.macs_per_image == sum(member.macs_per_image for member in found.members)
    assert found.top1_error_percent == found.members[-1].contribution.with_those_before


def test_side_by_side_each_is_judged_as_alone(run, other, images):
    found = evaluate([run, other], data=str(images), split="all", crops="10")
    assert isinstance(found, SideBySide)
    for path, judged, rows in zip((run, other), found.evaluations, (found.rows[:2], found.rows[2:]), strict=True):
        alone = evaluate(path, data=str(images), split="all", crops="10")
        single = evaluate(path, data=str(images), split="all")
        assert judged.confusion == alone.confusion and alone.rows == rows
        assert [row.top1_error_percent for row in rows] == [single.top1_error_percent, alone.top1_error_percent]
        assert rows[1].gain == pytest.approx(single.top1_error_percent - alone.top1_error_percent)
        assert rows[1].gain == pytest.approx(100 * (rows[1].mended - rows[1].spoilt) / 36)


def test_one_run_is_taken_as_a_path_a_string_or_a_list(run, images):
    results = [evaluate(given, data=str(images)) for given in (run, str(run), [run])]
    assert results[0] == results[1] == results[2]


def test_the_same_classes_in_another_order(run, reordered, images):
    with pytest.raises(DataError, match="in another order: add --map-by-name to match them"):
        evaluate([run, reordered], data=str(images))
    found = evaluate([run, reordered], data=str(images), map_by_name=True, ensemble=True)
    assert found.confusion == evaluate(run, data=str(images)).confusion
    assert [member.contribution.gain for member in found.members] == [0.0, 0.0]


def test_other_classes_are_refused(run, images, tmp_path):
    stranger = saved(tmp_path / "stranger", run, ["ant", "bee", "dog"])
    for together in (False, True):
        with pytest.raises(
            DataError, match=r"stranger does not know 'cat', a class of .*resnet20: only runs of the same"
        ):
            evaluate([run, stranger], data=str(images), ensemble=together, map_by_name=True)


def test_runs_that_held_out_other_images_are_refused(run, images, tmp_path):
    other = saved(tmp_path / "other", run, seed=1)
    said = r"trained on different images of .*: judge them on other images, or on --split all"
    with pytest.raises(DataError, match=said):
        evaluate([run, other], data=str(images))
    assert len(evaluate([run, other], data=str(images), split="all").rows) == 2


def shown(capsys, *arguments):
    assert main(["evaluate", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_the_tables_of_the_command(capsys, run, other, images):
    lines = shown(capsys, run, "--data", images, "--crops", "10").splitlines()
    assert lines[0].startswith(f"6 val images of {images}, probabilities averaged: top-1 error ")
    assert re.split(r"  +", lines[2].strip()) == [
        "run", "crops", "views", "MACs per image", "top-1 error", "top-5 error", "points gained", "mended", "spoilt"
    ]  # fmt: skip
    assert [line.split()[1:3] for line in lines[3:5]] == [["1", "1"], ["10", "10"]]
    assert "10 crops (AlexNet): corners and centre, 16 of 18 pixels; and mirrored" in lines
    assert f"Trained without mirrored images, which these views show: {run}." in lines  # it has flip=False
    assert "48 " in (square := shown(capsys, run, "--data", images, "--crops", "144"))
    assert "Of 144 views of a square image some are the same: they were calculated once." in square
    together = shown(capsys, run, other, "--data", images, "--ensemble", "--average", "logits").splitlines()
    assert together[0].startswith(f"6 val images of {images}, logits averaged: top-1 error")
    assert len([line for line in together if line.startswith((str(run), str(other), "all of them"))]) == 3
    document = json.loads(
        shown(capsys, run, other, "--data", images, "--crops", "dense", "--scales", "32,40", "--json")
    )
    assert [row["crops"] for row in document["rows"]] == ["1", "dense 32,40"] * 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--crops", "11"], 2, "--crops"),
        (["--crops", "10", "--scales", "32"], 2, "--scales are of dense evaluation: add --crops dense"),
        (["--crops", "dense", "--scales", "8"], 2, "--scales 8 is smaller than the 16 pixels that the run takes"),
        (
            ["--crops", "dense", "--scales", "big"],
            2,
            "--scales must be short sides in pixels, such as 256,384; got 'big'",
        ),
        (["--ensemble"], 2, "an ensemble has two runs or more: name another, or leave out --ensemble"),
        (["--average", "votes"], 2, "--average"),
        (["nowhere", "--ensemble"], 3, "no run folder nowhere"),
        (["--split", "test"], 3, "has no test images; splits: train, val, all"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(capsys, run, images, arguments, code, said):
    assert main(["evaluate", str(run), *arguments, "--data", str(images)]) == code
    line = capsys.readouterr().err
    assert said in line and line.count("\n") == 1


def test_no_run_at_all(capsys, images):
    with pytest.raises(UsageError, match="no run to evaluate"):
        evaluate([], data=str(images))
    assert main(["evaluate", "--data", str(images)]) == 2
    assert "RUN" in capsys.readouterr().err
