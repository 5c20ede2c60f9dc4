"""Training: the same bits from the same seed, from any interruption, and from a damaged last checkpoint."""

import inspect
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from convarium import load_run, train
from convarium.data.datasets import open_dataset
from convarium.errors import ConvariumError, DataError, UsageError
from convarium.recipe import USUAL, read_recipe
from convarium.tensors import load_tensors
from convarium.training.train import _recipe

OPTIONS = dict(model="resnet20_cifar", image_size=16, epochs=3, batch_size=8, threads=1, ema=0.9)
FLAGS = ["--model", "resnet20_cifar", "--image-size", "16", "--epochs", "3", "--batch-size", "8", "--threads", "1"]
FLAGS += ["--ema", "0.9"]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_tensors(run / "model.safetensors")[0]


def same(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def losses(run: Path) -> list[tuple[float, float, float]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(row["train_loss"], row["val_loss"], row["train_top1_error_percent"]) for row in rows]


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """A run that nothing interrupted."""
    output = tmp_path_factory.mktemp("whole") / "run"
    train(str(images), output=output, **OPTIONS)
    return output


def test_a_run_folder_is_complete(whole):
    names = {"config.json", "model.safetensors", "recipe.toml", "metrics.jsonl", "evaluation.json", "report.html"}
    assert names <= {entry.name for entry in whole.iterdir()}
    assert [len(row) for row in losses(whole)] == [3, 3, 3]
    config = json.loads((whole / "config.json").read_text())
    assert config["architecture"] == "resnet20_cifar" and config["label_names"] == ["ant", "bee", "cat"]
    assert config["pretrained_cfg"]["input_size"] == [3, 16, 16]
    recipe, record = read_recipe(whole / "recipe.toml")
    assert recipe.epochs == 3 and recipe.threads == 1 and record["torch"] == torch.__version__


def test_it_learns(run):
    assert load_run(run).own["metrics"]["top1_error_percent"] == 0


def test_the_same_seed_gives_the_same_bits_and_another_does_not(images, whole, tmp_path):
    train(str(images), output=tmp_path / "again", **OPTIONS)
    train(str(images), output=tmp_path / "other", **OPTIONS, seed=1)
    assert same(whole, tmp_path / "again") and losses(whole) == losses(tmp_path / "again")
    assert (whole / "model.safetensors").read_bytes() == (tmp_path / "again" / "model.safetensors").read_bytes()
    assert not same(whole, tmp_path / "other")


@pytest.mark.parametrize("step", [pytest.param(step, marks=[pytest.mark.long] * (step != 4)) for step in (1, 3, 4, 7)])
def test_a_run_stopped_at_any_step_goes_on_to_the_same_bits(images, whole, tmp_path, step, monkeypatch, interrupt_at):
    interrupt_at(step)
    output = tmp_path / "run"
    with pytest.raises(ConvariumError, match=r"a checkpoint is written; to go on: convarium train .* --resume") as stop:
        train(str(images), output=output, **OPTIONS)
    assert stop.value.exit_code == 130
    assert not (output / "model.safetensors").exists()
    monkeypatch.undo()
    train(str(images), model="resnet20_cifar", output=output, resume=True)
    assert same(whole, output) and losses(whole) == losses(output)


def start(images: Path, output: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "convarium", "train", str(images), *FLAGS, "--output", str(output), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_a_checkpoint(output: Path) -> None:
    for _ in range(600):
        if list(output.glob("checkpoints/step-*.safetensors")):
            return
        time.sleep(0.02)
    raise AssertionError("no checkpoint in 12 s")


@pytest.mark.long
def test_a_killed_process_goes_on_to_the_same_bits(images, whole, tmp_path):
    output = tmp_path / "run"
    process = start(images, output)
    wait_for_a_checkpoint(output)
    process.kill()
    process.communicate()
    assert start(images, output, "--resume").wait(120) == 0
    assert same(whole, output)


@pytest.mark.long
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_write_a_checkpoint_and_say_how_to_go_on(images, tmp_path, number, code):
    output = tmp_path / "run"
    process = start(images, output, "--epochs", "2000")
    wait_for_a_checkpoint(output)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    last = said.strip().splitlines()[-1]
    assert last.startswith("stopped; a checkpoint is written; to go on: convarium train") and "Traceback" not in said


def stopped_run(whole: Path, output: Path) -> Path:
    """The same run as it stood before its end: recipe and checkpoints, no weights."""
    shutil.copytree(whole, output)
    for name in ("model.safetensors", "config.json", "report.html", "evaluation.json"):
        (output / name).unlink()
    return output


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(images, whole, tmp_path, damage, capsys):
    output = stopped_run(whole, tmp_path / "run")
    last = sorted(output.glob("checkpoints/*"))[-1]
    data = bytearray(last.read_bytes())
    if damage == "truncate":
        data = data[: len(data) // 2]
    else:
        data[-100] ^= 1
    last.write_bytes(data)
    train(str(images), model="resnet20_cifar", output=output, resume=True)
    assert same(whole, output)
    assert "going on from the one before" in capsys.readouterr().err


def test_when_no_checkpoint_is_whole_it_says_so(images, whole, tmp_path):
    output = stopped_run(whole, tmp_path / "run")
    for checkpoint in output.glob("checkpoints/*"):
        checkpoint.write_bytes(b"x" * 100)
    with pytest.raises(ConvariumError, match=r"no checkpoint in .* is whole"):
        train(str(images), model="resnet20_cifar", output=output, resume=True)


def test_a_full_disk_leaves_the_last_checkpoint_whole(images, whole, tmp_path, monkeypatch):
    output = stopped_run(whole, tmp_path / "run")
    kept = sorted(output.glob("checkpoints/*"))
    kept[-1].unlink()
    before = kept[0].read_bytes()

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConvariumError, match=r"cannot write .*: No space left on device"):
        train(str(images), model="resnet20_cifar", output=output, resume=True)
    assert kept[0].read_bytes() == before and [p.name for p in output.glob("checkpoints/*")] == [kept[0].name]


def test_a_loss_that_is_not_a_number_stops_the_run_and_reaches_no_checkpoint(images, tmp_path, monkeypatch):
    from convarium.training import loop

    calls = iter(range(100))
    augment = loop.augment

    def poisoned(*arguments):
        return augment(*arguments) * (float("nan") if next(calls) == 5 else 1)

    monkeypatch.setattr(loop, "augment", poisoned)
    output = tmp_path / "run"
    with pytest.raises(ConvariumError, match=r"the loss became nan in epoch 2: train anew") as stop:
        train(str(images), output=output, **OPTIONS)
    assert stop.value.exit_code == 1
    kept = list(output.glob("checkpoints/*"))
    assert kept
    for path in kept:
        assert all(tensor.isfinite().all() for tensor in load_tensors(path)[0].values() if tensor.is_floating_point())


def test_the_output_folder_is_guarded(images, whole, tmp_path):
    before = (whole / "model.safetensors").read_bytes()
    with pytest.raises(UsageError, match="already holds a run: add --resume or --overwrite"):
        train(str(images), output=whole, **OPTIONS)
    assert (whole / "model.safetensors").read_bytes() == before
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.txt").write_text("mine")
    for config in ("", "{}"):
        with pytest.raises(UsageError, match=r"papers holds what is not a run's \((config.json|thesis.txt)\)"):
            train(str(images), output=tmp_path / "papers", overwrite=True, **OPTIONS)
        assert (tmp_path / "papers" / "thesis.txt").read_text() == "mine"
        (tmp_path / "papers" / "config.json").write_text(config or "{}")
    with pytest.raises(UsageError, match=r"thesis.txt is not a folder"):
        train(str(images), output=tmp_path / "papers" / "thesis.txt", **OPTIONS)
    for inside in (images, images.parent, images / "ant"):
        with pytest.raises(UsageError, match="must not lie in one another"):
            train(str(images), output=inside, overwrite=True, **OPTIONS)
    assert len(list(images.rglob("*.png"))) == 36
    with pytest.raises(DataError, match="is not a run that can be resumed"):
        train(str(images), model="resnet20_cifar", output=tmp_path / "none", resume=True)
    with pytest.raises(UsageError, match="give one of them"):
        train(str(images), model="resnet20_cifar", output=whole, resume=True, overwrite=True)


def test_the_old_run_stands_until_the_new_one_can_begin(folder, whole, tmp_path):
    output = tmp_path / "run"
    shutil.copytree(whole, output)
    (folder / "bee" / "003.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match="cannot read the image"):
        train(str(folder), output=output, overwrite=True, **OPTIONS)
    assert same(whole, output)


def test_a_run_that_lacks_its_log_goes_on(images, whole, tmp_path):
    output = stopped_run(whole, tmp_path / "run")
    (output / "metrics.jsonl").unlink()
    train(str(images), model="resnet20_cifar", output=output, resume=True)
    assert same(whole, output) and losses(whole) == losses(output)


def test_checkpoints_by_time_change_nothing(images, whole, tmp_path, monkeypatch):
    from convarium.training import loop

    saved = []
    save = loop.save_checkpoint
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1)
    monkeypatch.setattr(loop, "save_checkpoint", lambda *args: saved.append(args[1]) or save(*args))
    train(str(images), output=tmp_path / "run", **OPTIONS)
    assert len(saved) > 3 and same(whole, tmp_path / "run")


def test_an_overflow_in_a_gradient_stops_the_run(images, tmp_path, monkeypatch):
    output = tmp_path / "run"

    def overflow(parameters, limit):
        return torch.tensor(float("inf"))

    monkeypatch.setattr("torch.nn.utils.clip_grad_norm_", overflow)
    with pytest.raises(ConvariumError, match="the gradient became inf in epoch 1: train anew"):
        train(str(images), output=output, **OPTIONS)
    assert not (output / "model.safetensors").exists() and not list(output.glob("checkpoints/*"))


@pytest.mark.long
def test_two_threads_give_the_same_bits_too(images, tmp_path):
    for name in ("a", "b"):
        train(str(images), output=tmp_path / name, **{**OPTIONS, "model": "se_resnet20_cifar", "threads": 2})
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


def test_the_recipes_threads_are_what_torch_uses(images, tmp_path, monkeypatch):
    from convarium.training import loop

    used = []
    step = loop._step
    monkeypatch.setattr(loop, "_step", lambda *args: used.append(torch.get_num_threads()) or step(*args))
    train(str(images), output=tmp_path / "run", **{**OPTIONS, "epochs": 1, "threads": 2})
    assert set(used) == {2} and torch.get_num_threads() == 1
    assert load_run(tmp_path / "run").own["threads"] == 2


def test_names_of_any_kind_reach_pages_and_pictures(draw_folder, tmp_path, capsys):
    """Dollars are formulas to matplotlib, brackets markup to rich, colons emoji."""
    from convarium.cli import main

    names = {r"$\frac{$": 3, "[/x]": 3, ":smile:": 3, "<b>": 3}
    data = draw_folder(tmp_path / "[/d]", names)
    run = tmp_path / "[bold]r"
    small = ["--model", "lenet5_modern", "--epochs", "1", "--threads", "1"]
    assert main(["train", str(data), *small, "--output", str(run)]) == 0
    assert str(run) in capsys.readouterr().out
    for verb in (["evaluate", str(run), "--data", str(data)], ["explain", str(run), str(data / ":smile:" / "000.png")]):
        assert main(verb) == 0
        assert ":smile:" in capsys.readouterr().out


def test_a_resumed_run_keeps_its_options_and_its_data(images, folder, whole, tmp_path):
    with pytest.raises(UsageError, match="the run began with --epochs 3, and a resumed run keeps it; got 9"):
        train(str(images), model="resnet20_cifar", output=whole, epochs=9, resume=True)
    with pytest.raises(UsageError, match="the run began with --model resnet20_cifar"):
        train(str(images), model="lenet5", output=whole, resume=True)
    output = tmp_path / "run"
    train(str(folder), output=output, **{**OPTIONS, "epochs": 1})
    (folder / "ant" / "000.png").unlink()
    with pytest.raises(UsageError, match="has changed since the run"):
        train(str(folder), model="resnet20_cifar", output=output, resume=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(model="resnet20_cifr"), "no network named 'resnet20_cifr'; nearest: resnet20_cifar"),
        (dict(image_size=2), "takes images of at least 4x4 pixels; got 2x2"),
        (dict(model="lenet5", image_size=64), "a 9x9 map gave 9720: give it images of 32x32"),
        (dict(attention="sc"), "no attention named 'sc'"),
        (dict(batch_size=1), "--batch-size must be between 2 and"),
        (dict(seed=-1), "--seed must be between 0 and"),
        (dict(epochs="2"), "--epochs must be between 1 and 100000; got '2'"),
        (dict(optimizer="adam"), "--optimizer must be one of sgd, adamw, rmsprop; got 'adam'"),
        (dict(schedule="linear"), "--schedule must be one of cosine, step; got 'linear'"),
        (dict(epochs=0), "--epochs must be between 1 and 100000; got 0"),
        (dict(learning_rate=-1.0), "--learning-rate must be between 0 and 100; got -1.0"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_written(images, tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        train(str(images), output=tmp_path / "run", **{**OPTIONS, **change})
    assert not (tmp_path / "run").exists()


def test_an_unreadable_image_is_named(folder, tmp_path):
    (folder / "bee" / "003.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"cannot read the image .*bee/003\.png"):
        train(str(folder), output=tmp_path / "run", **OPTIONS)


def test_attention_reaches_the_run_and_comes_back(images, tmp_path):
    train(str(images), output=tmp_path / "run", **{**OPTIONS, "epochs": 1}, attention="se")
    loaded = load_run(tmp_path / "run")
    assert any("attention.fc1" in key for key in loaded.model.state_dict())


@pytest.mark.long
def test_the_moving_average_is_what_is_kept(images, tmp_path):
    """With a decay of 0 the average is the last step's weights, so both runs end alike; with 0.9 they differ."""
    options = {**OPTIONS, "epochs": 1}
    for ema in (0.0, 1e-9, 0.9):
        train(str(images), output=tmp_path / str(ema), **{**options, "ema": ema})
    plain, last, averaged = (weights(tmp_path / str(ema)) for ema in (0.0, 1e-9, 0.9))
    key = "stages.conv1.conv.weight"
    torch.testing.assert_close(plain[key], last[key])
    assert not torch.allclose(plain[key], averaged[key])
    assert all(torch.equal(plain[k], averaged[k]) for k in plain if k.endswith("source"))


def test_recipe_round_trip(whole, tmp_path):
    from convarium.recipe import write_recipe

    recipe, record = read_recipe(whole / "recipe.toml")
    write_recipe(tmp_path / "r.toml", replace(recipe, seed=7), record)
    assert read_recipe(tmp_path / "r.toml") == (replace(recipe, seed=7), record)


@pytest.mark.parametrize(
    ("model", "given", "times"),
    [
        ("resnet20_cifar", {}, 1.0),
        ("inception_v2", {}, 6.0),  # begins with six times He's variance
        ("inception_v2", {"learning_rate": 0.05}, 1.0),  # what is asked for
        ("squeezenet1_1", {}, 0.1),  # ends in a rectifier, which a large step shuts
    ],
)
def test_the_usual_rate_of_sgd_suits_the_network(images, model, given, times):
    dataset = open_dataset(str(images))
    options = dict.fromkeys(inspect.signature(train).parameters) | {"data": str(images), "model": model} | given
    for name in ("output", "resume", "overwrite"):
        del options[name]
    usual = {optimizer: values["learning_rate"] for optimizer, values in USUAL.items()}
    assert _recipe(dataset, options).learning_rate == pytest.approx(usual["sgd"] * times)
    adam = _recipe(dataset, {**options, "optimizer": "adamw", "learning_rate": None})
    assert adam.learning_rate == pytest.approx(usual["adamw"] * min(times, 1.0))
