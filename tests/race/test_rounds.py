"""Halving, with trainings that only say how they ended."""

import json

import pytest

from convarium.errors import Diverged, UsageError
from convarium.race import rounds
from convarium.race.pace import Pace
from convarium.race.plan import PLAN, Plan, check_folder, check_same, read_plan, write_plan
from convarium.recipe import default_recipe, write_recipe
from convarium.runs import clear_output

ERRORS = {"a": 40.0, "b": 10.0, "c": 30.0, "d": 20.0, "e": 20.0}
LOSSES = {"d": 0.7, "e": 0.6}


@pytest.fixture
def trained(monkeypatch):
    """Each call of ``train``; every epoch takes a second, or what ``pace`` says."""
    calls = []
    pace = {}

    def train(data, *, model, output, epochs, **options):
        if model == "nan":
            raise Diverged("the loss became nan in epoch 1: train anew")
        calls.append(dict(model=model, round=output.parent.name, epochs=epochs, output=output, **options))
        output.mkdir(parents=True)
        row = {"seconds": pace.get(model, 1.0), "val_loss": LOSSES.get(model, 1.0)}
        rows = [row | {"epoch": i + 1, "val_top1_error_percent": ERRORS[model]} for i in range(epochs)]
        (output / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        recipe = default_recipe(model, data, 100, 32, True, "sgd")
        write_recipe(output / "recipe.toml", recipe, {})
        (output / "report.html").write_text("done")

    monkeypatch.setattr(rounds, "train", train)
    train.calls, train.pace = calls, pace
    return train


def plan(models: str, budget: str, paces: dict[str, float] | None = None) -> Plan:
    pace = {name: Pace(seconds, 2) for name, seconds in (paces or {}).items()}
    recipe = {"image_size": 32, "in_chans": 1, "seed": 0, "batch_size": 16}
    return Plan("digits", "abc", list(models), budget, recipe, pace, [])


def test_the_better_half_goes_on_with_its_weights(trained, tmp_path):
    ended, fallen = rounds.run_rounds(plan("abcde", "14epochs"), tmp_path)
    assert not fallen
    # d and e err alike; the loss parts them
    assert [[leg.model for leg in legs] for legs in ended] == [list("bedca"), list("bed"), list("be")]
    assert [[leg.goes_on for leg in legs] for legs in ended] == [
        [True] * 3 + [False] * 2,
        [True, True, False],
        [True, False],
    ]
    for call in trained.calls:
        number = int(call["round"][-1])
        before = str(tmp_path / f"round-{number - 1}" / call["model"])
        assert call.get("weights") == (before if number > 1 else None)


def test_budgets_of_epochs_are_equal(trained, tmp_path):
    rounds.run_rounds(plan("abcd", "9epochs"), tmp_path)
    each = {(call["round"], call["epochs"]) for call in trained.calls}
    assert each == {("round-1", 3), ("round-2", 6)}
    assert all(call["batch_size"] == 16 and call["image_size"] == 32 for call in trained.calls)


def test_budgets_of_time_are_equal(trained, tmp_path):
    trained.pace.update(a=2.0, b=0.5, c=1.0, d=4.0)
    ended, _ = rounds.run_rounds(plan("abcd", "128s", trained.pace), tmp_path)
    assert {leg.model: leg.seconds for leg in ended[0]} == dict.fromkeys("abcd", 16.0)
    assert {leg.model: leg.seconds for leg in ended[1]} == dict.fromkeys("bd", 32.0)
    assert all(call["threads"] == 2 for call in trained.calls if call["round"] == "round-1")


def test_later_rounds_go_by_the_time_that_was_taken(trained, tmp_path):
    trained.pace.update(a=2.0, b=2.0, c=2.0, d=2.0)  # twice what was measured before
    ended, _ = rounds.run_rounds(plan("abcd", "128s", dict.fromkeys("abcd", 1.0)), tmp_path)
    assert [leg.seconds for leg in ended[0]] == [32.0] * 4  # nothing is left for the second round
    assert [leg.epochs for leg in ended[1]] == [1, 1]


def test_finished_rounds_are_not_repeated(trained, tmp_path):
    first, _ = rounds.run_rounds(plan("abcd", "9epochs"), tmp_path)
    trained.calls.clear()
    (tmp_path / "round-2" / "d" / "report.html").unlink()
    (tmp_path / "round-2" / "d" / "recipe.toml").unlink()
    (tmp_path / "round-2" / "d" / "metrics.jsonl").unlink()
    (tmp_path / "round-2" / "d").rmdir()
    again, _ = rounds.run_rounds(plan("abcd", "9epochs"), tmp_path)
    assert again == first and [(call["round"], call["model"]) for call in trained.calls] == [("round-2", "d")]


def test_who_diverges_is_out_and_said(trained, tmp_path):
    ended, fallen = rounds.run_rounds(plan(["a", "nan", "b"], "3epochs"), tmp_path)
    assert [leg.model for leg in ended[-1]] == ["b", "a"]
    assert fallen == ["nan diverged in round 1: the loss became nan in epoch 1"]
    with pytest.raises(Diverged, match="every candidate diverged"):
        rounds.run_rounds(plan(["nan", "nan"], "3epochs"), tmp_path / "other")


def test_a_plan_comes_back_as_it_was_written(tmp_path):
    written = plan("abcd", "9s", {"a": 1.5})
    write_plan(tmp_path, written)
    assert read_plan(tmp_path) == written
    check_same(written, {"models": list("abcd"), "budget": "9s", "batch_size": 16, "flip": None}, tmp_path)
    for name, value in (("models", ["a"]), ("budget", "9m"), ("batch_size", 8), ("flip", True)):
        with pytest.raises(UsageError, match=f"--{name.replace('_', '-')}"):
            check_same(written, {name: value}, tmp_path)


def test_only_races_are_replaced(tmp_path):
    folder = tmp_path / "race"
    check_folder(folder, data=None, overwrite=False)
    clear_output(folder, first=PLAN)
    write_plan(folder, plan("ab", "9s"))
    (folder / "round-1" / "a").mkdir(parents=True)
    with pytest.raises(UsageError, match="already holds a race"):
        check_folder(folder, data=None, overwrite=False)
    check_folder(folder, data=None, overwrite=True)
    (folder / "holiday.jpg").touch()
    with pytest.raises(UsageError, match=r"not a race's \(holiday.jpg\)"):
        check_folder(folder, data=None, overwrite=True)
    (folder / "holiday.jpg").unlink()
    clear_output(folder, first=PLAN)
    assert not list(folder.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="not a folder"):
        check_folder(tmp_path / "file", data=None, overwrite=False)
