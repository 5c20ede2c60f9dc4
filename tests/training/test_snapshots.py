"""Snapshots: the weights after chosen epochs, which change no bit of a training and survive its interruptions."""

import shutil

import pytest
import torch

from convarium import load_run, train
from convarium.cli import main
from convarium.errors import ConvariumError, DataError, UsageError
from convarium.recipe import read_recipe
from convarium.snapshots import history, snapshots, untrained
from convarium.tensors import load_tensors

OPTIONS = dict(model="resnet20_cifar", image_size=16, epochs=3, batch_size=8, threads=1, ema=0.9)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "run"
    train(str(images), output=output, snapshots="0,1,3", **OPTIONS)
    return output


@pytest.mark.long
def test_they_are_what_was_asked_for_and_change_no_bit(images, whole, tmp_path):
    train(str(images), output=tmp_path / "run", **OPTIONS)
    assert (whole / "model.safetensors").read_bytes() == (tmp_path / "run" / "model.safetensors").read_bytes()
    run = load_run(whole)
    kept = dict(snapshots(run))
    assert list(kept) == [0, 1, 3] and not any(network.training for network in kept.values())
    assert same(kept[3], run.model) and not same(kept[1], run.model)
    assert not list(snapshots(load_run(tmp_path / "run")))


@pytest.mark.long
def test_an_earlier_snapshot_is_the_end_of_a_training_of_so_many_epochs(images, tmp_path):
    """Under a rate that does not depend on the number of epochs."""
    options = {**OPTIONS, "ema": 0.0, "schedule": "step", "warmup_epochs": 0.0}
    train(str(images), output=tmp_path / "six", **{**options, "epochs": 6}, snapshots="1")
    train(str(images), output=tmp_path / "two", **{**options, "epochs": 2}, snapshots="all")
    assert same(dict(snapshots(load_run(tmp_path / "six")))[1], dict(snapshots(load_run(tmp_path / "two")))[1])


def test_the_beginning_is_known_from_the_seed(whole, images, tmp_path):
    run = load_run(whole)
    before = torch.get_rng_state()
    assert same(untrained(run), dict(snapshots(run))[0])
    assert torch.equal(before, torch.get_rng_state())
    train(str(images), output=tmp_path / "run", epochs=1, weights=str(whole), threads=1, snapshots="0")
    tuned = load_run(tmp_path / "run")
    with pytest.raises(DataError, match=r"began from .* not from a seed; --snapshots 0 keeps"):
        untrained(tuned)
    assert [epoch for epoch, _ in history(tuned)] == [0, 1] and same(dict(snapshots(tuned))[0], run.model)


def test_a_history_has_each_moment_once(whole, tmp_path):
    assert [epoch for epoch, _ in history(load_run(whole))] == [0, 1, 3]
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for epoch in (0, 3):
        (run / "checkpoints" / f"epoch-{epoch:04d}.safetensors").unlink()
    assert [epoch for epoch, _ in history(load_run(run))] == [0, 1, 3]
    (run / "recipe.toml").unlink()
    assert [epoch for epoch, _ in history(load_run(run))] == [1, None]


@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.long
def test_an_interruption_neither_loses_nor_doubles_one(images, whole, tmp_path, step, monkeypatch, interrupt_at):
    interrupt_at(step)
    output = tmp_path / "run"
    with pytest.raises(ConvariumError, match="to go on"):
        train(str(images), output=output, snapshots="0,1,3", **OPTIONS)
    monkeypatch.undo()
    train(str(images), model="resnet20_cifar", output=output, resume=True)
    held_to(whole, output)


@pytest.mark.long
@pytest.mark.parametrize(("part", "call"), [("save_snapshot", 0), ("save_snapshot", 1), ("save_checkpoint", 0)])
def test_a_death_beside_a_write_neither_loses_nor_doubles_one(images, whole, tmp_path, part, call, monkeypatch):
    """Between a snapshot and its checkpoint, or before either."""
    from convarium.training import loop

    write, calls = getattr(loop, part), iter(range(100))

    def die(*arguments):
        if next(calls) == call:
            raise KeyError("killed")
        write(*arguments)

    monkeypatch.setattr(loop, part, die)
    output = tmp_path / "run"
    with pytest.raises(KeyError):
        train(str(images), output=output, snapshots="0,1,3", **OPTIONS)
    monkeypatch.undo()
    train(str(images), model="resnet20_cifar", output=output, resume=True)
    held_to(whole, output)


def held_to(whole, output):
    paths = sorted((whole / "checkpoints").glob("epoch-*"))
    assert [path.name for path in sorted((output / "checkpoints").glob("epoch-*"))] == [path.name for path in paths]
    for path in paths:
        assert (output / "checkpoints" / path.name).read_bytes() == path.read_bytes()
    assert (output / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_damaged_or_foreign_one_is_refused(whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    path = run / "checkpoints" / "epoch-0001.safetensors"
    whole_bytes = path.read_bytes()
    path.write_bytes(whole_bytes[:-100] + bytes([whole_bytes[-100] ^ 1]) + whole_bytes[-99:])
    with pytest.raises(DataError, match="is damaged: its hash does not match"):
        list(snapshots(load_run(run)))
    shutil.copy(run / "checkpoints" / "epoch-0003.safetensors", path)  # of another epoch than its name says
    with pytest.raises(DataError, match="is damaged"):
        list(snapshots(load_run(run)))
    tensors, _ = load_tensors(whole / "checkpoints" / "epoch-0001.safetensors")
    from convarium.tensors import save_tensors

    del tensors["head.classifier.bias"]
    save_tensors(path, tensors, {})
    with pytest.raises(DataError, match="does not hold the weights of this resnet20_cifar: missing 1"):
        list(snapshots(load_run(run)))


@pytest.mark.parametrize("asked", ["4", "-1", "1;2", "1,,2", "two", "1.5"])
def test_what_is_no_epoch_is_refused_before_anything_is_written(images, tmp_path, asked, capsys):
    flags = ["--model", "lenet5_modern", "--epochs", "3", f"--snapshots={asked}", "--output", str(tmp_path / "run")]
    assert main(["train", str(images), *flags]) == 2
    said = capsys.readouterr().err
    assert "--snapshots takes epochs from 0 (before training) to 3 (the last)" in said and said.count("\n") == 1
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match="--snapshots is empty"):
        train(str(images), output=tmp_path / "run", snapshots="", **OPTIONS)


def test_an_older_recipe_has_none(whole, tmp_path):
    text = (whole / "recipe.toml").read_text()
    assert 'snapshots = "0,1,3"\n' in text
    (tmp_path / "recipe.toml").write_text(text.replace('snapshots = "0,1,3"\n', ""))
    assert read_recipe(tmp_path / "recipe.toml")[0].snapshots == ""
    with pytest.raises(UsageError, match="the run began with --snapshots 0,1,3"):
        train("digits", model="resnet20_cifar", output=whole, resume=True, snapshots="all")
