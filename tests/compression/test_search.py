"""What a search decides, on made-up points: the front, what is chosen, what is said of it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from convarium.compression import search
from convarium.compression.choice import cautions, choose, mark_front, tell
from convarium.compression.result import Point
from convarium.compression.search import Step, walk, within_budget
from convarium.compression.search_plan import SearchPlan, read_steps
from convarium.errors import UsageError
from convarium.evaluation.statistics import paired_test

IMAGES = 1000


def difference(points):
    """Of a network that errs on so many points more of 1,000 images than a dense one that errs on a tenth."""
    dense, other = np.zeros(IMAGES, bool), np.zeros(IMAGES, bool)
    dense[:100], other[: 100 + round(10 * points)] = True, True
    return paired_test(dense, other, first="dense", second="other")


def point(name, form, drop, *, ms, macs=100, kib=100, validation=None):
    return Point(
        name=name, form=form, run=name, file=f"{name}-{form}", macs=macs, params=macs, bytes=1024 * kib,
        error_percent=10 + drop, low_percent=9 + drop, high_percent=11 + drop, difference=difference(drop),
        chosen_by=difference(drop if validation is None else validation), p50_ms=ms, p99_ms=2 * ms,
        images_per_second=1000 / ms, memory_mib=None, in_float=[],
    )  # fmt: skip


DENSE = [point("dense", "torch", 0, ms=4), point("dense", "float", 0, ms=2)]
TRIED = [
    *DENSE,
    point("dense", "int8", 0.1, ms=1.5, kib=30),
    point("step-1", "float", 0.2, ms=1.4, macs=60, kib=60),
    point("step-1", "int8", 0.4, ms=1.0, macs=60, kib=20),
    point("step-2", "float", 0.7, ms=1.1, macs=30, kib=30),
]


def labels(points):
    return [each.label for each in points]


def test_the_front_is_what_nothing_beats_in_both():
    assert labels(each for each in mark_front(TRIED, "latency") if each.on_front) == [
        "dense float", "dense int8", "step-1 float", "step-1 int8",
    ]  # fmt: skip
    on_front = labels(each for each in mark_front(TRIED, "macs") if each.on_front)
    assert on_front == ["dense torch", "dense float", "step-1 float", "step-2 float"]  # equal ones do not beat


@pytest.mark.parametrize(
    ("target", "max_drop", "chosen"),
    [
        ("latency", 0.5, "step-1 int8"),
        ("latency", 0.3, "step-1 float"),
        ("latency", 0.1, "dense int8"),
        ("latency", 0.05, None),
        ("macs", 0.5, "step-1 int8"),  # as many multiply-adds as in float, and quicker
        ("macs", 1, "step-2 float"),
        ("macs", 0.1, None),  # int8 of the dense network has as many
        ("size", 1, "step-1 int8"),
    ],
)
def test_the_least_within_the_budget_is_chosen(target, max_drop, chosen):
    found = choose(TRIED, target, max_drop)
    assert (found and found.label) == chosen


def test_what_is_slower_than_dense_is_no_gain():
    assert choose([*DENSE, point("dense", "int8", 0, ms=2.1, kib=30)], "latency", 0.5) is None


def test_validation_and_test_images_must_agree():
    lucky = point("step-1", "float", 0.1, ms=1, validation=0.6)
    unlucky = point("step-1", "int8", 0.6, ms=1, validation=0.1)
    assert choose([*DENSE, lucky, unlucky], "latency", 0.5) is None
    notes = cautions([*DENSE, lucky, unlucky], None, "test", 0.5)
    assert notes == ["Within the budget on the validation images and over it on the test images: step-1 int8."]


def test_the_sentence_says_what_is_gained_and_lost():
    said = tell(TRIED, choose(TRIED, "latency", 0.5), "latency", 0.5, "openvino")
    assert said.startswith(
        "Take step-1 int8 (chosen/): 1.7 times fewer multiply-adds, a file 5 times smaller, 4 times as quick as the "
        "dense network in torch and 2 times as it is in OpenVINO, at 10.40 % error, +0.40 points (95 % interval "
    )
    assert said.endswith("on 1,000 images).")


def test_the_sentence_of_a_failure_names_the_nearest():
    hopeless = [*DENSE, point("step-1", "float", 3, ms=1), point("step-2", "float", 7, ms=0.5)]
    said = tell(hopeless, None, "latency", 0.5, "openvino")
    assert said.startswith("The budget of 0.5 points of error cannot be met: the best of 2 is step-1 float, at 13.00 %")
    said = tell(TRIED, None, "macs", 0.1, "onnxruntime")
    assert said.startswith("Nothing within 0.1 points of error has fewer multiply-adds than the dense network in onnx")


def test_cautions_of_few_images():
    chosen = choose(TRIED, "latency", 0.5)
    first, second = cautions(TRIED, chosen, "val", 0.5)
    assert "no test split" in first
    assert chosen.difference.interval_percent[1] > 0.5 and "1,000 images cannot rule out" in second


def test_a_caution_of_a_busy_machine():
    calm, busy = point("calm", "float", 0, ms=1), replace(point("busy", "int8", 0, ms=1), p99_ms=40.0)
    assert cautions([calm], None, "test", 0.5) == []
    (said,) = cautions([calm, busy], None, "test", 0.5)
    assert "of busy int8 one call in a hundred took 40 times the median" in said and "--resume" in said


def test_int8_is_tried_on_the_smallest_few_within_the_budget():
    steps = [Step(i, None, 10 + drop) for i, drop in enumerate((0, -0.2, 0.1, 0.4, 0.9))]
    assert [step.name for step in within_budget(steps, 0.5)] == ["dense", "step-2", "step-3"]
    assert [step.name for step in within_budget(steps[:1], 0.5)] == ["dense"]


def test_steps_fall_between_one_and_nothing():
    assert read_steps("0.6, 0.3") == [0.6, 0.3]
    for text in ("", "half", "1,0.5", "0.3,0.6", "0.5,0.5", "0.5,0", "nan", "0.5;0.3"):
        with pytest.raises(UsageError, match="parts of the network that are left"):
            read_steps(text)


# -- the walk ------------------------------------------------------------------------------------------------------


def made_up_walk(folder, monkeypatch, *, halfway, limit):
    """The steps of a walk in which networks err by 10 % until less than ``limit`` of them is left, then by 12 %; and
    what was cut, from what, to which part."""
    cuts = []

    def cut(plan, dataset, source, output, number, part):
        cuts.append((source.name, output.name, round(part, 4)))

    def fine_tune(plan, pruned, output):
        output.mkdir()
        error = 10.0 if cuts[-1][2] >= limit else 12.0
        (output / "evaluation.json").write_text(json.dumps({"top1_error_percent": error}))
        (output / "report.html").write_text("")

    monkeypatch.setattr(search, "_cut", cut)
    monkeypatch.setattr(search, "_fine_tune", fine_tune)
    plan = SearchPlan(
        run="dense", run_hash="", data="", data_hash="", max_drop=0.5, target="macs", steps=[0.64, 0.36, 0.16, 0.09],
        importance="l1", scheme="uniform", runtime="openvino", samples=1, batch=1, epochs=1, recipe={}, halfway=halfway,
    )  # fmt: skip
    return walk(plan, None, Path(folder), 10.0), cuts


@pytest.mark.parametrize("halfway", [False, True])
def test_a_step_over_the_budget_is_the_last_or_is_followed_by_one_between(tmp_path, monkeypatch, halfway):
    steps, cuts = made_up_walk(tmp_path, monkeypatch, halfway=halfway, limit=0.2)
    assert cuts[:3] == [("dense", "cut-1", 0.64), ("step-1", "cut-2", 0.36), ("step-2", "cut-3", 0.16)]
    assert cuts[3:] == ([("step-2", "cut-4", 0.24)] if halfway else [])  # the root of 0.36 and 0.16
    names = ["dense", "step-1", "step-2", *(["step-4"] if halfway else []), "step-3"]  # the larger first
    assert [step.name for step in steps] == names
    assert within_budget(steps, 0.5)[-1].name == ("step-4" if halfway else "step-2")
    again, more = made_up_walk(tmp_path, monkeypatch, halfway=halfway, limit=0.2)
    assert again == steps and not more  # what is done is kept


def test_a_walk_within_the_budget_goes_to_its_end(tmp_path, monkeypatch):
    steps, cuts = made_up_walk(tmp_path, monkeypatch, halfway=True, limit=0.0)
    assert [step.name for step in steps] == ["dense", "step-1", "step-2", "step-3", "step-4"] and len(cuts) == 4
