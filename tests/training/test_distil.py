"""Distillation: the loss by hand, teachers of other forms than the student, the same bits after any interruption."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from convarium import evaluate, load_run, train
from convarium.cli import main
from convarium.compression.groups import find_groups
from convarium.compression.importance import l1_norm
from convarium.compression.prune import prune
from convarium.data.datasets import open_dataset
from convarium.data.images import as_channels
from convarium.data.resize import Preprocess
from convarium.errors import ConvariumError, DataError, UsageError
from convarium.recipe import default_recipe, read_recipe, resolve
from convarium.runs import RECIPE as RECIPE_FILE
from convarium.runs import save_run
from convarium.tensors import load_tensors
from convarium.training import distil, loop
from convarium.training.distil import Lesson, Teacher, Teachers, criterion

RECIPE = default_recipe("resnet20_cifar", "digits", 1000, 32, natural=False, optimizer="sgd")
OPTIONS = dict(model="lenet5_modern", image_size=32, epochs=2, batch_size=8, threads=1, flip=False)


def recipe_with(**given):
    return resolve(RECIPE, dict(teacher="none", **given))


@pytest.mark.parametrize(("temperature", "weight"), [(1.0, 0.5), (4.0, 0.9), (20.0, 1.0)])
def test_the_loss_and_its_gradient_by_hand(temperature, weight):
    """Hinton et al. 2015, Eqs. 1 to 3: dC/dz = (q - p) / T per image, here times T^2."""
    draw = np.random.default_rng(0)
    z, v, labels = draw.normal(0, 3, (4, 3)), draw.normal(0, 3, (4, 3)), np.array([0, 2, 1, 1])

    def softmax(x):
        return np.exp(x) / np.exp(x).sum(1, keepdims=True)

    p, q, hard = softmax(v / temperature), softmax(z / temperature), softmax(z)
    target = 0.8 * np.eye(3)[labels] + 0.2 / 3
    divergence = (p * np.log(p / q)).sum(1).mean()
    expected = (1 - weight) * -(target * np.log(hard)).sum(1).mean() + weight * temperature**2 * divergence
    gradient = ((1 - weight) * (hard - target) + weight * temperature * (q - p)) / 4

    logits = torch.tensor(z, requires_grad=True)
    recipe = recipe_with(temperature=temperature, distill_weight=weight, label_smoothing=0.2)
    loss = criterion(torch.tensor(labels), torch.tensor(p), recipe)(logits)
    loss.backward()
    assert loss.item() == pytest.approx(expected)
    np.testing.assert_allclose(logits.grad.numpy(), gradient, rtol=1e-9, atol=1e-12)


@pytest.fixture(scope="module")
def reordered(run, tmp_path_factory):
    """The run with its classes in the opposite order."""
    folder, loaded = tmp_path_factory.mktemp("reordered"), load_run(run)
    for parameter in loaded.model.head.classifier.parameters():
        parameter.data = parameter.data.flip(0)
    save_run(folder, loaded.model, loaded.preprocessing, loaded.class_names[::-1], data=loaded.own["data"])
    return folder


def test_a_teachers_classes_are_matched_by_name(run, reordered):
    names, images = load_run(run).class_names, 255 * torch.rand(3, 3, 16, 16)
    expected = Teacher(load_run(run), names)(images)
    other = Teacher(load_run(reordered), names)
    torch.testing.assert_close(other.network(other.preprocess.normalise(images)).flip(1), expected)
    torch.testing.assert_close(other(images), expected)


@pytest.mark.parametrize("side", [16, 40])
@pytest.mark.parametrize("channels", [3, 1])
def test_a_teacher_sees_what_it_would_be_shown(run, side, channels):
    """Images of another size or grey, as the run's own preprocessing makes them of a file (which it would crop)."""
    loaded = load_run(run)  # 16 pixels, RGB
    images = torch.randint(0, 256, (2, channels, side, side), dtype=torch.uint8)
    files = np.stack([as_channels(image.permute(1, 2, 0).numpy(), 3) for image in images])
    expected = loaded.model(Preprocess(replace(loaded.preprocessing, crop_pct=1.0))(torch.from_numpy(files)))
    logits = Teacher(loaded, loaded.class_names)(images.float())
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_a_grey_teacher_sees_luma():
    colour = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    grey = as_channels(colour[0].permute(1, 2, 0).numpy(), 1)[..., 0]
    own = distil._with_channels(colour.float(), 1)[0, 0]
    assert np.abs(own.numpy() - grey).max() <= 1  # whole numbers there


def test_several_teachers_are_the_mean_of_their_probabilities(run, student):
    loaded = [load_run(run), load_run(student)]
    names, images = loaded[0].class_names, 255 * torch.rand(3, 3, 32, 32)
    each = [Teacher(one, names)(images).detach() for one in loaded]
    soft = Teachers([Teacher(one, names) for one in loaded], temperature=4.0)(images).probabilities
    torch.testing.assert_close(soft, ((each[0] / 4).softmax(1) + (each[1] / 4).softmax(1)) / 2)
    assert not soft.requires_grad


# -- hints ------------------------------------------------------------------------------------------------------------


def test_likeness_and_its_loss_by_hand():
    """Tung and Mori 2019, Eqs. 1 to 4, in numpy: maps of other widths and sizes are held to each other."""
    draw = np.random.default_rng(0)
    ours, theirs = draw.normal(size=(4, 5, 2, 2)), draw.normal(size=(4, 3, 3, 3))

    def rows(maps):
        flat = maps.reshape(4, -1)
        products = flat @ flat.T
        return products / np.linalg.norm(products, axis=1, keepdims=True)

    lesson = Lesson(torch.empty(4, 2), distil.likeness(torch.tensor(theirs)))
    np.testing.assert_allclose(lesson.likeness, rows(theirs), rtol=1e-9)
    loss = distil.hint_loss(torch.tensor(ours), lesson).item()
    assert loss == pytest.approx(((rows(ours) - rows(theirs)) ** 2).sum() / 4**2)
    assert distil.hint_loss(torch.tensor(2 * theirs), lesson).item() == pytest.approx(
        0, abs=1e-15
    )  # whatever the scale


def test_a_lesson_has_the_mean_likeness_of_the_last_maps(run, student):
    loaded = [load_run(run), load_run(student)]
    names, images = loaded[0].class_names, 255 * torch.rand(3, 3, 32, 32)
    teachers = [Teacher(one, names) for one in loaded]
    expected = torch.stack([distil.likeness(each.last_map(images)) for each in teachers]).mean(0)
    found = Teachers(teachers, temperature=4.0)(images).likeness
    torch.testing.assert_close(found, expected)
    assert teachers[0].last_map(images).shape == (3, 64, 4, 4) and not found.requires_grad


@pytest.mark.long
def test_with_hints_a_student_finds_alike_what_its_teacher_does(images, run, student, tmp_path):
    options = OPTIONS | {"epochs": 15}
    train(str(images), output=tmp_path / "without", teacher=run, **options)
    train(str(images), output=tmp_path / "with", teacher=run, hints=300.0, **options)
    dataset, names = open_dataset(str(images)), load_run(run).class_names
    chosen = [dataset.read(int(i), 3) for i in dataset.splits["train"]]
    shown = torch.from_numpy(np.stack(chosen)).permute(0, 3, 1, 2).float()
    lesson = Teachers([Teacher(load_run(run), names)], temperature=4.0)(shown)
    apart = {
        name: distil.hint_loss(Teacher(load_run(tmp_path / name), names).last_map(shown), lesson).item()
        for name in ("without", "with")
    }
    assert apart["with"] < apart["without"]


# -- training ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def student(run, images, tmp_path_factory):
    """A LeNet-5 at 32 pixels that learnt from the ResNet-20 at 16."""
    output = tmp_path_factory.mktemp("student") / "run"
    train(str(images), output=output, teacher=run, **OPTIONS)
    return output


def weights(run):
    return load_tensors(run / "model.safetensors")[0]


def same(a, b):
    return (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()


def test_without_weight_in_the_loss_it_is_plain_training_bit_for_bit(images, run, student, tmp_path):
    train(str(images), output=tmp_path / "plain", **OPTIONS)
    train(str(images), output=tmp_path / "nothing", teacher=run, distill_weight=0.0, **OPTIONS)
    assert same(tmp_path / "plain", tmp_path / "nothing")
    assert not same(tmp_path / "plain", student)


def test_teachers_of_other_orders_teach_the_same(images, reordered, student, tmp_path):
    train(str(images), output=tmp_path / "run", teacher=reordered, **OPTIONS)
    for key, value in weights(tmp_path / "run").items():
        torch.testing.assert_close(value, weights(student)[key], rtol=1e-4, atol=1e-5)


def test_the_teacher_sees_the_same_images_and_stays_as_it_was(images, run, tmp_path, monkeypatch):
    augmented, shown, teachers = [], [], []
    augment, load = loop.augment, distil.load_teachers

    def spy(*arguments):
        augmented.append(augment(*arguments))
        return augmented[-1]

    def loaded(*arguments):
        teachers.append(load(*arguments))
        teachers[0].register_forward_pre_hook(lambda _m, args: shown.append(args[0]))
        digests.append(teachers[0].digest)
        return teachers[0]

    digests = []
    monkeypatch.setattr(loop, "augment", spy)
    monkeypatch.setattr(distil, "load_teachers", loaded)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    train(str(images), output=tmp_path / "run", teacher=run, **OPTIONS)
    assert len(shown) == 2 * 4 and all(a is b for a, b in zip(augmented, shown, strict=True))
    assert teachers[0].digest == digests[0] and not teachers[0][0].network.training
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_student_whose_teacher_has_all_the_weight_learns_what_it_says(images, reordered, tmp_path):
    """Of a teacher that takes ants for cats, and cats for ants, and knows bees."""
    liar, loaded = tmp_path / "liar", load_run(reordered)
    liar.mkdir()
    save_run(liar, loaded.model, loaded.preprocessing, loaded.class_names[::-1], data=loaded.own["data"])
    options = dict(model="resnet20_cifar", image_size=16, epochs=4, batch_size=8, threads=1, flip=False)
    train(str(images), output=tmp_path / "run", teacher=liar, distill_weight=1.0, **options)
    assert evaluate(tmp_path / "run", data=str(images), split="all").top1_error_percent == pytest.approx(100 * 2 / 3)


@pytest.mark.parametrize("step", [3, 4])
@pytest.mark.long
def test_a_run_with_teachers_goes_on_to_the_same_bits(images, run, student, tmp_path, step, monkeypatch, interrupt_at):
    options = dict(teacher=f"{run}, {student}", temperature=2.0, distill_weight=0.7, ema=0.9, **OPTIONS)
    train(str(images), output=tmp_path / "whole", **options)
    interrupt_at(step)
    with pytest.raises(ConvariumError, match="a checkpoint is written"):
        train(str(images), output=tmp_path / "run", **options)
    monkeypatch.undo()
    train(str(images), model="lenet5_modern", output=tmp_path / "run", resume=True)
    assert same(tmp_path / "whole", tmp_path / "run")
    recipe, record = read_recipe(tmp_path / "run" / RECIPE_FILE)
    assert (recipe.teacher, recipe.temperature, recipe.distill_weight) == (f"{run}, {student}", 2.0, 0.7)
    assert len(record["teacher_hash"]) == 16


def test_a_run_does_not_go_on_with_another_teacher(images, run, student, tmp_path):
    teacher, output = tmp_path / "teacher", tmp_path / "run"
    shutil.copytree(run, teacher)
    train(str(images), output=output, teacher=teacher, **OPTIONS)
    again = dict(model="lenet5_modern", output=output, resume=True)
    with pytest.raises(UsageError, match=r"the run began with --teacher .*, and a resumed run keeps it"):
        train(str(images), teacher=run, **again)
    with pytest.raises(UsageError, match=r"the run began with --temperature 4.0"):
        train(str(images), temperature=2.0, **again)
    shutil.rmtree(teacher)
    shutil.copytree(student, teacher)
    with pytest.raises(UsageError, match=r"teacher has changed since the run in .* began"):
        train(str(images), **again)
    shutil.rmtree(teacher)
    with pytest.raises(DataError, match=r"no run folder .*teacher"):
        train(str(images), **again)


def test_a_pruned_run_is_tuned_with_the_dense_one_as_its_teacher(images, run, tmp_path):
    pruned, loaded = tmp_path / "pruned", load_run(run)
    prune(loaded.model, l1_norm(loaded.model, find_groups(loaded.model)), ratio=0.5)
    pruned.mkdir()
    save_run(pruned, loaded.model, loaded.preprocessing, loaded.class_names, data=loaded.own["data"])
    train(str(images), weights=pruned, teacher=run, output=tmp_path / "tuned", epochs=2, batch_size=8, threads=1)
    tuned = load_run(tmp_path / "tuned").model
    assert tuned.plan == loaded.model.plan and tuned.num_features == 32


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        (dict(teacher="nowhere"), DataError, "no run folder nowhere"),
        (dict(teacher=""), UsageError, "--teacher is empty"),
        (dict(teacher="a,,b"), UsageError, "--teacher takes run folders with commas between; got 'a,,b'"),
        (dict(temperature=0.0), UsageError, "--temperature must be between 0.1 and 1000; got 0.0"),
        (dict(distill_weight=1.5), UsageError, "--distill-weight must be between 0 and 1; got 1.5"),
        (dict(temperature=2.0), UsageError, "--temperature is of learning from a teacher: name one with --teacher"),
        (dict(distill_weight=0.5), UsageError, "--distill-weight is of learning from a teacher"),
    ],
)
def test_what_cannot_teach_is_refused_before_anything_is_written(images, tmp_path, given, error, said):
    with pytest.raises(error, match=said):
        train(str(images), output=tmp_path / "run", **{**OPTIONS, **given})
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_other_classes_is_refused(draw_folder, run, tmp_path):
    fewer = draw_folder(tmp_path / "fewer", {"ant": 3, "bee": 3})
    other = draw_folder(tmp_path / "other", {"ant": 3, "bees": 3, "cat": 3})
    for data, said in (
        (fewer, r"the teacher .* knows 'cat', which is no class of .*fewer"),
        (other, r"the teacher .* does not know 'bees', a class of .*other; nearest: bee"),
    ):
        with pytest.raises(DataError, match=said):
            train(str(data), output=tmp_path / "run", teacher=run, **OPTIONS)
    assert not (tmp_path / "run").exists()


def test_a_run_does_not_replace_its_teacher(images, run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    for teacher in (tmp_path / "run", f"{run},{tmp_path / 'run'}"):
        with pytest.raises(UsageError, match=r"the teacher lies in .*run, which the new run is to replace"):
            train(str(images), output=tmp_path / "run", teacher=teacher, overwrite=True, **OPTIONS)
    assert same(run, tmp_path / "run")


def test_a_teacher_that_has_seen_the_held_out_images_is_told_of(images, run, tmp_path, capsys):
    train(str(images), output=tmp_path / "run", teacher=run, seed=5, **OPTIONS)
    assert "has seen images that are held out here" in capsys.readouterr().err.replace("\n", " ")


def test_from_the_command_line(images, run, tmp_path, capsys):
    output = tmp_path / "run"
    command = ["train", str(images), "--model", "lenet5_modern", "--epochs", "1", "--batch-size", "8", "--threads", "1"]
    assert main([*command, "--teacher", str(run), "--temperature", "3", "--output", str(output)]) == 0
    assert f"taught by {run}" in capsys.readouterr().err.replace("\n", "")
    assert main([*command, "--teacher", "nowhere", "--output", str(output / "other")]) == 3
    assert capsys.readouterr().err.startswith("error: no run folder nowhere")
