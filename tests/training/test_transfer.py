"""Transfer: what is frozen keeps every byte, each stage moves at its rate, weights keep what makes them valid."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from convarium import create_model, load_run, train
from convarium.adaptation import adapt, adapt_kernel
from convarium.cli import main
from convarium.data.preprocess import Preprocessing
from convarium.errors import ConvariumError, DataError, UsageError
from convarium.network import Network
from convarium.networks import create_on_meta
from convarium.recipe import default_recipe, read_recipe, resolve
from convarium.runs import save_run
from convarium.tensors import load_tensors, save_tensors
from convarium.training.auxiliary import WithAuxiliary
from convarium.training.loop import _step
from convarium.training.optimizer import make_optimizer
from convarium.training.transfer import freeze_parts, read_base

SMALL = dict(epochs=2, batch_size=8, threads=1)
RECIPE = default_recipe("resnet20_cifar", "digits", 1000, 32, natural=False, optimizer="sgd")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_tensors(run / "model.safetensors")[0]


def stage_of(key: str) -> str:
    """``stages.conv1.conv.weight`` is of conv1, ``head.hidden.fc6.fc.weight`` of fc6."""
    return key.removeprefix("head.hidden.").removeprefix("stages.").split(".")[0]


@pytest.fixture(scope="module")
def others(draw_folder, tmp_path_factory) -> Path:
    """Four classes that the run does not know."""
    return draw_folder(tmp_path_factory.mktemp("others") / "beasts", {"dog": 8, "elk": 8, "fox": 8, "gnu": 8}, seed=1)


# -- what is frozen ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("freeze", "frozen", "ema"),
    [
        ("conv1, stage1", {"conv1", "stage1"}, 0.0),
        ("stage2", {"stage2"}, 0.9),
        ("features", {"conv1", "stage1", "stage2", "stage3"}, 0.9),
    ],
)
@pytest.mark.long
def test_frozen_stages_keep_every_byte_and_the_others_change(run, others, tmp_path, freeze, frozen, ema):
    """Weights and batch norm's statistics, over epochs with a validation in between, with weight decay."""
    train(str(others), weights=run, output=tmp_path / "run", freeze=freeze, ema=ema, weight_decay=0.01, **SMALL)
    before, after = weights(run), weights(tmp_path / "run")
    for key, value in before.items():
        if stage_of(key) in frozen:
            assert torch.equal(value, after[key]), key
        elif not key.endswith("source") and "classifier" not in key:
            assert not torch.equal(value, after[key]), key


def test_stages_by_wildcard_and_all_of_them():
    network = create_on_meta("resnet18", num_classes=3)
    assert freeze_parts(network, "conv[23]_x,conv5*") == ["conv2_x", "conv3_x", "conv5_x"]
    assert freeze_parts(network, "all") == freeze_parts(network, "features") == list(network.stages)
    assert freeze_parts(network, "") == []


def test_dense_layers_before_the_classifier_can_be_frozen_too():
    network = create_on_meta("vgg11", num_classes=3)
    assert freeze_parts(network, "features, fc6") == ["block1", "block2", "block3", "block4", "block5", "fc6"]
    learning = {stage_of(name) for name, p in network.named_parameters() if p.requires_grad}
    assert learning == {"fc7", "head"}


def saved_bytes(model: Network, x: torch.Tensor) -> int:
    """Bytes that autograd keeps for the backward pass, weights left out."""
    own = {p.data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(x).sum().backward()
    return sum(kept.values())


def test_no_maps_are_kept_for_what_is_frozen():
    x = torch.randn(4, 3, 32, 32)
    whole = saved_bytes(create_model("resnet20_cifar").train(), x)
    model = create_model("resnet20_cifar").train()
    freeze_parts(model, "conv1,stage1")
    _, maps = model.forward_intermediates(x, ["stage1", "stage2"])
    assert not maps[0].requires_grad and maps[1].requires_grad
    part = saved_bytes(model, x)
    freeze_parts(model, "features")
    assert saved_bytes(model, x) <= 2 * 4 * 64 * 4 < part < whole / 2  # the classifier's input: 4 images, 64 floats


def test_batch_norm_and_dropout_in_frozen_stages_work_as_in_evaluation():
    torch.manual_seed(0)
    model = create_model("resnet20_cifar").eval()
    x = torch.randn(8, 3, 16, 16)
    expected = model.forward_features(x)
    model.train()
    freeze_parts(model, "features")
    assert torch.equal(model.forward_features(x), expected)


def test_auxiliary_heads_on_frozen_stages_are_left_out():
    network = create_model("googlenet", num_classes=3)
    freeze_parts(network, "conv*,inception_3*,inception_4a")
    assert list(WithAuxiliary(network, 64).heads) == ["inception_4d"]
    freeze_parts(network, "features")
    assert not list(WithAuxiliary(network, 64).heads)


@pytest.mark.parametrize(
    ("name", "patterns", "message"),
    [
        (
            "resnet20_cifar",
            "layer1",
            r"resnet20_cifar has no stage 'layer1' to freeze; it has: conv1, stage1, stage2, st",
        ),
        ("resnet20_cifar", "conv1,", "has no stage ''"),
        ("resnet50", "conv2_x,conv6*", r"no stage 'conv6\*'"),
        ("resnet50", "features,head", "--freeze head would leave no classifier to train"),
        ("vgg11", "classifier", "--freeze classifier would leave"),
        ("lenet5", "features,F6", "leaves nothing of lenet5 to train"),  # its codes are no weights
    ],
)
def test_what_cannot_be_frozen(name, patterns, message):
    with pytest.raises(UsageError, match=message):
        freeze_parts(create_on_meta(name, num_classes=3), patterns)


# -- how fast each stage moves ----------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop"])
def test_each_stage_with_weights_has_its_power_of_the_rate(optimizer):
    """``pool1`` has no weights, and is no step on the way from the head."""
    model = WithAuxiliary(create_model("resnet18", num_classes=3), 64)
    made = make_optimizer(model, resolve(RECIPE, dict(stage_lr_decay=0.5, optimizer=optimizer, weight_decay=0.25)))
    rate = {p: group["rate"] for group in made.param_groups for p in group["params"]}
    decay = {p: group["weight_decay"] for group in made.param_groups for p in group["params"]}
    powers = {"conv5_x": 1, "conv4_x": 2, "conv3_x": 3, "conv2_x": 4, "conv1": 5, "head": 0}
    for name, parameter in model.network.named_parameters():
        assert rate[parameter] == 0.5 ** powers[stage_of(name)]
        assert decay[parameter] == (0.25 if parameter.ndim > 1 else 0)
    assert len(rate) == sum(len(group["params"]) for group in made.param_groups) == len(list(model.parameters()))


def test_a_step_moves_each_stage_by_its_rate_times_its_gradient():
    plain = dict(
        learning_rate=0.1, momentum=0.0, weight_decay=0.0, clip_norm=0.0, warmup_epochs=0.0, stage_lr_decay=0.5
    )
    recipe = resolve(RECIPE, plain)
    torch.manual_seed(0)
    network = create_model("lenet5_modern", num_classes=3)
    freeze_parts(network, "C3")
    model, x, labels = WithAuxiliary(network, 32), torch.randn(4, 1, 32, 32), torch.tensor([0, 1, 2, 1])
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    _step(model, make_optimizer(model, recipe), x, labels, recipe, moment=0.0)
    parts = {"C1": 0.125, "C3": 0.0, "C5": 0.5, "F6": 1.0, "head": 1.0}
    for name, parameter in network.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        moved = before[name] - parts[stage_of(name)] * 0.1 * gradient
        torch.testing.assert_close(parameter, moved, rtol=1e-6, atol=1e-8)


# -- another number of classes or channels ----------------------------------------------------------------------


def grey(x: torch.Tensor, channels: int) -> torch.Tensor:
    return x.expand(-1, channels, -1, -1)


@pytest.mark.parametrize(("ours", "theirs"), [(1, 3), (3, 1), (6, 3), (9, 3), (2, 1), (4, 2)])
def test_an_image_of_equal_channels_gives_the_same_map(ours, theirs):
    torch.manual_seed(0)
    kernel, image = torch.randn(5, theirs, 3, 3, dtype=torch.float64).float(), torch.randn(2, 1, 8, 8)
    adapted = adapt_kernel(kernel, ours)
    assert adapted.shape == (5, ours, 3, 3) and adapted.dtype == kernel.dtype
    torch.testing.assert_close(F.conv2d(grey(image, ours), adapted), F.conv2d(grey(image, theirs), kernel))


def test_four_channels_from_three_by_hand():
    """In turn red, green, blue, red again; each three quarters of what it was."""
    kernel = torch.tensor([1.0, 2.0, 4.0]).view(1, 3, 1, 1)
    assert adapt_kernel(kernel, 4).flatten().tolist() == [0.75, 1.5, 3.0, 0.75]
    assert adapt_kernel(kernel.half(), 1).dtype == torch.half and adapt_kernel(kernel, 1).item() == 7


def test_a_networks_answer_to_grey_images_outlives_the_change_of_channels(run):
    model = create_model("resnet20_cifar", num_classes=3, weights=str(run)).eval()
    one = create_model("resnet20_cifar", num_classes=3, in_chans=1, weights=str(run)).eval()
    x = torch.randn(2, 1, 16, 16)
    torch.testing.assert_close(one(x), model(grey(x, 3)))


NAMES = (
    "lenet5", "alexnet", "zfnet", "maxout_cifar", "nin_cifar", "vgg11_bn", "googlenet", "inception_v3", "resnet50",
    "preact_resnet50", "squeezenet1_1", "inception_resnet_v2", "xception", "resnext50_32x4d", "attention56",
    "mobilenet_v1_025", "se_resnet18",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_only_the_classifier_and_the_first_kernel_are_adapted(name):
    theirs = create_on_meta(name, num_classes=7, in_chans=3).state_dict()
    network = create_on_meta(name, num_classes=5, in_chans=1)
    adapted, notes = adapt(theirs, network)
    wanted = network.state_dict()
    assert {key: value.shape for key, value in adapted.items()} == {key: value.shape for key, value in wanted.items()}
    changed = {key for key in theirs if adapted[key] is not theirs[key]}
    kernels = {key for key in changed if not key.startswith("head.classifier.")}
    assert kernels == {network.pretrained_cfg["first_conv"] + ".weight"}
    assert len(changed) > 1
    assert notes == [
        "a fresh classifier for 5 classes: the weights' own is for 7",
        "the first convolution's kernels for 3 input channels are summed, for 1",
    ]
    alone, _ = adapt(theirs, create_on_meta(name, num_classes=0, in_chans=3))
    assert alone.keys() == theirs.keys() - {key for key in theirs if key.startswith("head.classifier.")}
    untouched, notes = adapt(theirs, network, classes=False, channels=False)
    assert untouched == theirs and not notes


def test_create_model_says_what_it_adapted_and_adapts_only_what_was_asked(run, capsys):
    create_model("resnet20_cifar", num_classes=3, weights=str(run))
    assert capsys.readouterr().err == ""
    create_model("resnet20_cifar", num_classes=5, in_chans=1, weights=str(run))
    first, second = capsys.readouterr().err.splitlines()
    assert first == "resnet20_cifar: a fresh classifier for 5 classes: the weights' own is for 3"
    assert second == "resnet20_cifar: the first convolution's kernels for 3 input channels are summed, for 1"
    with pytest.raises(DataError, match=r"1 of another shape \(stages.conv1"):
        save_tensors(run.parent / "grey.safetensors", create_model("resnet20_cifar", in_chans=1).state_dict(), {})
        create_model("resnet20_cifar", weights=str(run.parent / "grey.safetensors"))
    with pytest.raises(DataError, match="missing"):
        create_model("resnet32_cifar", num_classes=5, weights=str(run))


# -- training from weights --------------------------------------------------------------------------------------


def test_what_is_not_said_comes_from_the_weights(run, others, tmp_path, capsys):
    """Network, image size, mean and deviation; and the rate is lower than usual."""
    output = tmp_path / "run"
    assert (
        main(["train", str(others), "--weights", str(run), "--output", str(output), "--epochs", "1", "--threads", "1"])
        == 0
    )
    said = capsys.readouterr().err
    assert "resnet20_cifar: a fresh classifier for 4 classes: the weights' own is for 3\n" in said
    base, tuned = load_run(run), load_run(output)
    assert tuned.preprocessing == base.preprocessing and tuned.class_names == ["dog", "elk", "fox", "gnu"]
    recipe, record = read_recipe(output / "recipe.toml")
    usual, _ = read_recipe(run / "recipe.toml")
    assert (recipe.model, recipe.weights, recipe.image_size) == ("resnet20_cifar", str(run), 16)
    assert (recipe.freeze, recipe.stage_lr_decay, recipe.in_chans) == ("", 1.0, 3)
    assert 0 < recipe.learning_rate < usual.learning_rate
    assert len(record["weights_hash"]) == 16


def test_the_same_classes_keep_their_classifier_and_others_get_a_fresh_one(run, images, draw_folder, tmp_path, capsys):
    """As many classes under other names are other classes. At a rate of 0, what is kept is kept to the byte."""
    still = dict(weights=run, freeze="features", learning_rate=0.0, **{**SMALL, "epochs": 1}, seed=3)
    train(str(images), output=tmp_path / "same", **still)
    assert "fresh" not in capsys.readouterr().err
    assert (tmp_path / "same" / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    trees = draw_folder(tmp_path / "trees", {"ash": 8, "elm": 8, "oak": 8})
    train(str(trees), output=tmp_path / "trees-run", **still)
    assert "resnet20_cifar: a fresh classifier: the weights' own is for ant, bee, cat\n" in capsys.readouterr().err
    torch.manual_seed(3)
    fresh = create_model("resnet20_cifar", num_classes=3).state_dict()
    for key, value in weights(tmp_path / "trees-run").items():
        assert torch.equal(value, fresh[key] if "classifier" in key else weights(run)[key])


def test_a_networks_own_arguments_come_with_its_weights(others, tmp_path):
    """Its attention, channels and pool."""
    model = create_model("resnet20_cifar", num_classes=3, in_chans=1, attention="se")
    model.reset_classifier(3, "max")
    settings = Preprocessing(16, 1, (0.25,), (0.125,), crop_pct=0.8, interpolation="bicubic")
    (tmp_path / "base").mkdir()
    save_run(tmp_path / "base", model, settings, ["a", "b", "c"], data={"name": "", "fingerprint": "", "seed": 0})
    train(str(others), weights=tmp_path / "base", output=tmp_path / "run", **{**SMALL, "epochs": 1}, freeze="features")
    loaded = load_run(tmp_path / "run")
    assert loaded.preprocessing == settings
    assert loaded.model.head.pool.kind == "max" and loaded.model.arguments["attention"] == "se"
    gate = "stages.stage3.0.attention.fc1.weight"
    assert torch.equal(weights(tmp_path / "run")[gate], weights(tmp_path / "base")[gate])
    recipe, _ = read_recipe(tmp_path / "run" / "recipe.toml")
    assert (recipe.attention, recipe.in_chans) == ("se", 1)
    with pytest.raises(UsageError, match="was trained with se, not with spatial: leave --attention out"):
        train(str(others), weights=tmp_path / "base", attention="spatial", output=tmp_path / "other", **SMALL)


def test_grey_from_colour(run, others, tmp_path, capsys):
    """Summed kernels, and the mean of the means."""
    train(str(others), weights=run, in_chans=1, output=tmp_path / "run", **{**SMALL, "epochs": 1}, freeze="conv1")
    assert "input channels are summed, for 1" in capsys.readouterr().err
    base, tuned = load_run(run), load_run(tmp_path / "run")
    assert tuned.preprocessing.channels == 1
    assert tuned.preprocessing.mean == pytest.approx([np.mean(base.preprocessing.mean)])
    assert tuned.preprocessing.std == pytest.approx([np.mean(base.preprocessing.std)])
    key = "stages.conv1.conv.weight"
    torch.testing.assert_close(weights(tmp_path / "run")[key], weights(run)[key].sum(1, keepdim=True))


def test_a_bare_file_is_prepared_for_as_the_network_itself(run, others, tmp_path, capsys):
    file = tmp_path / "bare.safetensors"
    shutil.copy(run / "model.safetensors", file)
    train(str(others), model="resnet20_cifar", weights=file, output=tmp_path / "run", image_size=16, **SMALL)
    said = "bare.safetensors does not say how its images are prepared: taken as for resnet20_cifar itself"
    assert said in capsys.readouterr().err
    network = create_on_meta("resnet20_cifar")
    settings = load_run(tmp_path / "run").preprocessing
    assert (settings.mean, settings.std) == (network.mean, network.std)


def on_the_hub(folder: Path, monkeypatch) -> None:
    """Every file of every repository is the one in ``folder``."""
    monkeypatch.setattr("convarium.weights.fetch.fetch", lambda url, **_: folder / url.rpartition("/")[2])


def test_a_run_on_the_hub_brings_its_network_and_preprocessing(run, others, tmp_path, monkeypatch):
    on_the_hub(run, monkeypatch)
    train(str(others), weights="hf-hub:owner/name", output=tmp_path / "run", **{**SMALL, "epochs": 1})
    base, tuned = load_run(run), load_run(tmp_path / "run")
    assert tuned.model.name == base.model.name and tuned.preprocessing == base.preprocessing


@pytest.mark.parametrize("names", [["ant", "bee", "cat"], ["dog", "elk", "fox"], None])
@pytest.mark.long
def test_a_repository_of_another_library_brings_its_preprocessing(run, images, tmp_path, monkeypatch, names, capsys):
    """It does not name the network; where it names other classes, as many, the classifier is a fresh one."""
    theirs = shutil.copytree(run, tmp_path / "theirs")
    told = {"architecture": "resnet20", "num_classes": 3} | ({"label_names": names} if names else {})
    prepared = {"input_size": [3, 16, 16], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5]}
    told["pretrained_cfg"] = prepared | {"interpolation": "bicubic", "crop_pct": 0.9}
    (theirs / "config.json").write_text(json.dumps(told))
    on_the_hub(theirs, monkeypatch)
    given = dict(weights="hf-hub:owner/name", output=tmp_path / "run", **{**SMALL, "epochs": 1}, learning_rate=1e-9)
    with pytest.raises(UsageError, match="do not name their network"):
        train(str(images), **given)
    train(str(images), model="resnet20_cifar", **given)
    settings = load_run(tmp_path / "run").preprocessing
    assert (settings.size, settings.mean, settings.crop_pct) == (16, (0.1, 0.2, 0.3), 0.9)
    fresh = names == ["dog", "elk", "fox"]
    assert ("a fresh classifier: the weights' own is for dog, elk, fox" in capsys.readouterr().err) == fresh
    before, after = (weights(each)["head.classifier.weight"] for each in (run, tmp_path / "run"))
    assert torch.allclose(before, after, atol=1e-4) != fresh


def test_a_card_knows_its_classes_by_both_names():
    base = read_base("torchvision:IMAGENET1K_V1", "resnet18")
    assert not base.differs_in_classes(base.class_names) and not base.differs_in_classes(base.synsets)
    assert base.synsets[0] == "n01440764" and base.class_names[0] == "tench"
    assert base.differs_in_classes(base.class_names[::-1]) and not base.differs_in_classes(["ant", "bee"])


def options(run: Path) -> dict:
    return dict(weights=run, freeze="conv1", stage_lr_decay=0.5, ema=0.9, **SMALL)


@pytest.fixture(scope="module")
def tuned(run, others, tmp_path_factory) -> Path:
    """A fine-tuning that nothing interrupted."""
    output = tmp_path_factory.mktemp("tuned") / "run"
    train(str(others), output=output, **options(run))
    return output


@pytest.mark.long
def test_the_same_seed_gives_the_same_bytes(run, others, tuned, tmp_path):
    train(str(others), output=tmp_path / "again", **options(run))
    train(str(others), output=tmp_path / "other", **{**options(run), "stage_lr_decay": 0.25})
    file = "model.safetensors"
    assert (tuned / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
    assert (tuned / file).read_bytes() != (tmp_path / "other" / file).read_bytes()


@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.long
def test_a_fine_tuning_stopped_at_any_step_goes_on_to_the_same_bytes(
    run, others, tuned, tmp_path, step, monkeypatch, interrupt_at
):
    interrupt_at(step)
    output = tmp_path / "run"
    with pytest.raises(ConvariumError, match=r"to go on: convarium train .* --model resnet20_cifar .* --resume"):
        train(str(others), output=output, **options(run))
    monkeypatch.undo()
    train(str(others), model="resnet20_cifar", output=output, resume=True)
    assert (output / "model.safetensors").read_bytes() == (tuned / "model.safetensors").read_bytes()
    assert (output / "metrics.jsonl").read_text().count("\n") == 2


def test_a_resumed_run_keeps_its_weights(run, others, tuned, tmp_path):
    output, base = tmp_path / "run", tmp_path / "base"
    shutil.copytree(run, base)
    train(str(others), output=output, **{**options(base), "epochs": 1})
    with pytest.raises(UsageError, match=r"the run began with --freeze conv1, and a resumed run keeps it; got stage1"):
        train(str(others), model="resnet20_cifar", output=output, freeze="stage1", resume=True)
    changed = weights(base)
    changed["stages.conv1.conv.weight"][0, 0, 0, 0] += 1
    save_tensors(base / "model.safetensors", changed, {"format": "pt"})
    with pytest.raises(UsageError, match=r"base has changed since the run in .* began: train anew with --overwrite"):
        train(str(others), model="resnet20_cifar", output=output, resume=True)
    shutil.rmtree(base)
    with pytest.raises(DataError, match=r"no weight file at .*base"):
        train(str(others), model="resnet20_cifar", output=output, resume=True)


def test_recipes_from_before_there_was_transfer_are_still_read(run, tmp_path):
    lines = (run / "recipe.toml").read_text().splitlines(keepends=True)
    later = ("weights =", "freeze =", "stage_lr_decay =", "in_chans =")
    (tmp_path / "recipe.toml").write_text("".join(line for line in lines if not line.startswith(later)))
    recipe, _ = read_recipe(tmp_path / "recipe.toml")
    assert (recipe.weights, recipe.freeze, recipe.stage_lr_decay, recipe.in_chans) == ("", "", 1.0, 0)
    (tmp_path / "recipe.toml").write_text("".join(line for line in lines if not line.startswith("momentum")))
    with pytest.raises(DataError, match="does not hold a whole recipe: 'momentum'"):
        read_recipe(tmp_path / "recipe.toml")


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        ([], 2, "no network to train: give --model NAME (convarium list), or --weights RUN"),
        (["--weights", "nowhere"], 2, "the weights nowhere do not name their network as a run folder does: add --mod"),
        (["--weights", "nowhere", "--model", "resnet20_cifar"], 3, "nowhere"),
        (["--weights", "", "--model", "resnet20_cifar"], 2, "--weights is empty"),
        (["--weights", ".", "--model", "resnet20_cifar"], 3, "holds no config.json"),
        (
            ["--weights", "RUN", "--model", "resnet32_cifar"],
            2,
            "holds the weights of resnet20_cifar, not of resnet32_ci",
        ),
        (["--weights", "FILE", "--model", "resnet32_cifar"], 3, "does not hold the weights of this resnet32_cifar"),
        (
            ["--weights", "RUN", "--freeze", "layer1"],
            2,
            "resnet20_cifar has no stage 'layer1' to freeze; it has: conv1",
        ),
        (["--weights", "RUN", "--freeze", "all,head"], 2, "--freeze head would leave no classifier to train"),
        (["--weights", "RUN", "--freeze", ""], 2, "--freeze is empty"),
        (["--model", "resnet20_cifar", "--freeze", "conv1"], 2, "--freeze holds stages at the weights they have"),
        (["--weights", "RUN", "--stage-lr-decay", "0"], 2, "--stage-lr-decay must be between 0.001 and 1; got 0"),
        (["--weights", "RUN", "--stage-lr-decay", "1.5"], 2, "--stage-lr-decay must be between 0.001 and 1; got 1.5"),
        (["--weights", "RUN", "--stage-lr-decay", "nan"], 2, "--stage-lr-decay must be between"),
        (["--weights", "RUN", "--in-chans", "4"], 2, "--in-chans must be between 1 and 3; got 4"),
        (["--weights", "RUN", "--in-chans", "2"], 2, "images have 1 or 3 channels"),
    ],
)
def test_bad_input(capsys, run, others, tmp_path, monkeypatch, flags, code, said):
    monkeypatch.chdir(tmp_path)
    places = {"RUN": str(run), "FILE": str(run / "model.safetensors")}
    flags = [places.get(flag, flag) for flag in flags]
    assert main(["train", str(others), *flags, "--output", "out", "--epochs", "1", "--threads", "1"]) == code
    out, err = capsys.readouterr()
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert out == "" and len(errors) == 1 and said in errors[0], err
    assert not (tmp_path / "out").exists()


def test_the_weights_are_not_overwritten_by_the_run_they_begin(run, others, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(run, base)
    for inside in (base, base / "model.safetensors"):
        with pytest.raises(UsageError, match=r"the weights lie in .*base, which the new run is to replace"):
            train(str(others), model="resnet20_cifar", weights=inside, output=base, overwrite=True, **SMALL)
    assert (base / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


@pytest.mark.long
def test_fine_tuning_beats_training_from_nothing(tmp_path):
    """Digits 5 to 9, twenty images each, from a net that knows 0 to 4; five epochs, all settings as they come."""
    from convarium.data.datasets import open_dataset

    digits = open_dataset("digits")
    for name, classes, most in (("low", range(5), 1000), ("high", range(5, 10), 20)):
        for split in ("train", "val"):
            for label in classes:
                positions = [i for i in digits.splits[split] if digits.labels[i] == label]
                for i in positions[: most if split == "train" else None]:
                    path = tmp_path / name / split / str(label) / f"{i}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(digits.read(int(i), 1)[..., 0]).save(path)
    small = dict(image_size=16, threads=1, flip=False)
    train(str(tmp_path / "low"), model="resnet20_cifar", output=tmp_path / "base", epochs=8, **small)
    errors = {}
    for name, begin in (("tuned", dict(weights=tmp_path / "base")), ("scratch", dict(model="resnet20_cifar"))):
        done = train(str(tmp_path / "high"), output=tmp_path / name, epochs=5, **small, **begin)
        errors[name] = done.evaluation.top1_error_percent
    assert errors["tuned"] < errors["scratch"], json.dumps(errors)
