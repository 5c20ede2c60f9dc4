"""Data sets: the embedded digits, folders of both layouts, and every way a folder can be wrong."""

import shutil

import numpy as np
import pytest

from convarium.data.datasets import check_classes, open_dataset
from convarium.errors import DataError


def test_digits_are_the_real_ones_with_a_fixed_stratified_fifth_held_out():
    dataset = open_dataset("digits", seed=5)
    assert dataset.images.shape == (1797, 8, 8, 1) and dataset.images.dtype == np.uint8 and dataset.images.max() == 255
    train, val = dataset.splits["train"], dataset.splits["val"]
    assert sorted([*train, *val]) == list(range(1797))
    for digit in range(10):
        share = np.mean(dataset.labels[val] == digit) / np.mean(dataset.labels == digit)
        assert share == pytest.approx(1, abs=0.02)
    assert np.array_equal(val, open_dataset("digits", seed=9).splits["val"])
    assert dataset.read(0, 3).shape == (8, 8, 3)


def test_a_flat_folder_is_split_by_seed_and_by_class(images):
    dataset = open_dataset(images, seed=0)
    assert dataset.class_names == ["ant", "bee", "cat"] and len(dataset.ids) == 36
    assert np.bincount(dataset.labels[dataset.splits["val"]]).tolist() == [2, 2, 2]
    assert np.array_equal(dataset.splits["val"], open_dataset(images, seed=0).splits["val"])
    assert not np.array_equal(dataset.splits["val"], open_dataset(images, seed=1).splits["val"])
    assert dataset.ids[0] == "ant/000.png" and dataset.fingerprint == open_dataset(images, seed=1).fingerprint


def split_folder(folder, root, names=("train", "val")):
    for name in names:
        shutil.copytree(folder, root / name)
    return root


def test_a_split_folder_keeps_its_splits(images, tmp_path):
    root = split_folder(images, tmp_path / "split", ("train", "val", "test"))
    dataset = open_dataset(root)
    assert {name: len(positions) for name, positions in dataset.splits.items()} == {"train": 36, "val": 36, "test": 36}
    assert dataset.held_out == "test" and dataset.class_names == ["ant", "bee", "cat"]
    assert dataset.ids[dataset.splits["test"][0]] == "test/ant/000.png"


def test_train_and_test_without_val_take_val_from_train(images, tmp_path):
    dataset = open_dataset(split_folder(images, tmp_path / "split", ("train", "test")))
    assert {name: len(positions) for name, positions in dataset.splits.items()} == {"train": 30, "val": 6, "test": 36}
    assert not set(dataset.splits["train"]) & set(dataset.splits["val"])


def test_a_class_missing_from_val_never_shifts_a_label(images, tmp_path):
    root = split_folder(images, tmp_path / "split")
    shutil.rmtree(root / "val" / "bee")
    dataset = open_dataset(root)
    for position in dataset.splits["val"]:
        assert dataset.class_names[dataset.labels[position]] == dataset.ids[position].split("/")[1]
    assert any("val has no images of: bee" in note for note in dataset.notes)


def test_a_stray_folder_beside_the_splits_is_left_out_and_said(images, tmp_path):
    root = split_folder(images, tmp_path / "split")
    shutil.copytree(images, root / "__MACOSX")
    dataset = open_dataset(root)
    assert dataset.class_names == ["ant", "bee", "cat"] and len(dataset.ids) == 72 and dataset.brings_splits
    assert any("left out what is beside the splits: __MACOSX" in note for note in dataset.notes)
    shutil.copytree(images, root / "Validation")
    with pytest.raises(DataError, match="has two folders for val: Validation and val; keep one"):
        open_dataset(root)


def test_a_class_may_be_called_train(images, tmp_path):
    for name in ("car", "train", "val"):
        shutil.copytree(images / "ant", tmp_path / "v" / name)
    dataset = open_dataset(tmp_path / "v")
    assert dataset.class_names == ["car", "train", "val"] and not dataset.brings_splits


def test_digits_are_the_embedded_ones_even_beside_a_folder_of_that_name(tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert len(open_dataset("digits").ids) == 1797
    with pytest.raises(DataError, match="holds no images"):
        open_dataset("./digits")


def test_hidden_empty_and_foreign_things_are_left_out_and_said(folder):
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / "empty").mkdir()
    (folder / "ant" / "notes.txt").write_text("x")
    dataset = open_dataset(folder)
    assert dataset.class_names == ["ant", "bee", "cat"]
    said = "\n".join(dataset.notes)
    assert "hidden folders: .ipynb_checkpoints" in said
    assert "without images: empty" in said and "1 files that are not images" in said


def test_names_that_are_numbers_keep_plain_string_order(tmp_path, images):
    for name in ("1", "2", "10"):
        shutil.copytree(images / "ant", tmp_path / "n" / name)
    assert open_dataset(tmp_path / "n").class_names == ["1", "10", "2"]


def test_what_is_wrong_with_a_folder_is_said(tmp_path, images):
    with pytest.raises(DataError, match="no data 'digit': neither a folder nor an embedded data set; nearest: digits"):
        open_dataset("digit")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="none holds no images in class folders"):
        open_dataset(tmp_path / "none")
    shutil.copytree(images / "ant", tmp_path / "one" / "ant")
    with pytest.raises(DataError, match="one class only, 'ant'"):
        open_dataset(tmp_path / "one")
    root = split_folder(images, tmp_path / "extra")
    shutil.copytree(images / "ant", root / "val" / "dog")
    with pytest.raises(DataError, match=r"val has the class 'dog', which .*train has not"):
        open_dataset(root)
    for name in ("a", "b"):
        (tmp_path / "single" / name).mkdir(parents=True)
        shutil.copy(images / "ant" / "000.png", tmp_path / "single" / name)
    with pytest.raises(DataError, match="one image per class"):
        open_dataset(tmp_path / "single")


def test_classes_are_matched_by_name_or_refused(images, tmp_path):
    dataset = open_dataset(images)
    assert np.array_equal(check_classes(dataset, ["ant", "bee", "cat"]), dataset.labels)
    with pytest.raises(DataError, match=r"has 3 of the weights' 4 classes \(none of 'ape'\): add --map-by-name"):
        check_classes(dataset, ["ant", "ape", "bee", "cat"])
    mapped = check_classes(dataset, ["ant", "ape", "bee", "cat"], map_by_name=True)
    assert mapped.tolist() == [{0: 0, 1: 2, 2: 3}[label] for label in dataset.labels]
    with pytest.raises(DataError, match="has the class 'bee', which the weights do not know"):
        check_classes(dataset, ["ant", "cat"], map_by_name=True)
