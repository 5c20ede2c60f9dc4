"""Who runs, and on what images."""

import numpy as np
import pytest

from convarium.data.datasets import Dataset, open_dataset
from convarium.errors import DataError, UsageError
from convarium.facts import all_facts
from convarium.networks import create_on_meta
from convarium.race.candidates import CANDIDATES, LARGEST_MACS, LARGEST_PARAMS, Seen, by_facts, check_data, choose, look


def dataset(height: int, width: int, *, colour: bool, images: int = 40) -> Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, (images, height, width, 3 if colour else 1), dtype=np.uint8)
    splits = {"train": np.arange(images // 2), "val": np.arange(images // 2, images)}
    return Dataset("made", ["a", "b"], np.arange(images) % 2, [str(i) for i in range(images)], pixels, splits)


def test_images_are_looked_at():
    assert look(dataset(40, 30, colour=True)) == (30, 3)
    assert look(dataset(20, 50, colour=False)) == (20, 1)


@pytest.mark.parametrize("side", [32, 64, 224])
def test_a_handful_is_chosen_by_facts(side):
    names, facts = by_facts(side), all_facts()
    assert 2 <= len(names) <= CANDIDATES
    assert len({facts[name].paper.name for name in names}) == len(names)  # families differ
    assert all(facts[name].counts.macs <= LARGEST_MACS for name in names)
    assert all(facts[name].counts.params <= LARGEST_PARAMS for name in names)
    assert all(create_on_meta(name).min_input_size <= side for name in names)
    assert any("resnet" in name for name in names) and not any("plain" in name for name in names)


def test_without_a_size_it_is_that_of_the_images_64_at_most():
    asked = "resnet20_cifar,se_resnet20_cifar"
    assert choose(asked, dataset(40, 30, colour=True), None)[1] == Seen(30, 3)
    assert choose(asked, dataset(300, 400, colour=True), None)[1] == Seen(64, 3)


def test_without_a_size_the_network_that_needs_most_decides(capsys):
    names, seen = choose("lenet5, resnet20_cifar", dataset(8, 8, colour=False), None)
    assert names == ["lenet5", "resnet20_cifar"] and seen == Seen(32, 1)
    assert "resized to 32 pixels for all: lenet5 takes no smaller ones" in capsys.readouterr().err


def test_a_size_that_one_cannot_take_is_refused():
    with pytest.raises(UsageError, match=r"lenet5 takes images of 32 pixels or more.*--image-size 32, or leave lenet5"):
        choose("lenet5,resnet20_cifar", dataset(8, 8, colour=False), 16)


def test_small_images_are_enlarged_for_networks_that_nobody_named():
    names, seen = choose(None, dataset(8, 8, colour=False), None)
    assert seen == Seen(32, 1) and names == by_facts(32)
    with pytest.raises(UsageError, match="made for images of 8 pixels"):
        choose(None, dataset(8, 8, colour=False), 8)


def test_wildcards_name_several():
    assert choose("resnet[25]*_cifar", dataset(32, 32, colour=True), None)[0] == ["resnet20_cifar", "resnet56_cifar"]


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ("lenet5,resnet21_cifar", "'resnet21_cifar'; nearest: .*resnet20_cifar"),
        ("lenet5", "two networks or more"),
        ("lenet5,lenet5", "two networks or more"),
        ("lenet5,,resnet20_cifar", "no network matches ''"),
    ],
)
def test_networks_that_are_no_race(models, said):
    with pytest.raises(UsageError, match=said):
        choose(models, dataset(32, 32, colour=True), None)


def test_too_few_held_out_images_are_refused():
    with pytest.raises(DataError, match="9 held-out images"):
        check_data(dataset(8, 8, colour=False, images=18))
    check_data(open_dataset("digits"))
