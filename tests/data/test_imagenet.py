"""ImageNet's validation images as they come: labels by the image's number and the kit's order of classes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from convarium.cli import main
from convarium.data.datasets import check_classes, open_dataset
from convarium.data.imagenet import readable
from convarium.errors import DataError, UsageError
from convarium.weights.labels import class_names

# As in the kit: the kit fox is 1, the English setter 2; sorted by WordNet id the tench is first.
KIT = {1: "n02119789", 2: "n02100735", 3: "n01440764", 4: "n02110185"}
TRUTH = [3, 1, 4, 1, 2, 3]  # of images 1 to 6
WORDS = ["tench", "kit fox", "Siberian husky", "kit fox", "English setter", "tench"]


def write_kit(folder: Path, synsets: str = "map_clsloc.txt") -> Path:
    folder.mkdir(parents=True)
    year = "ILSVRC2015_clsloc" if synsets == "map_clsloc.txt" else "ILSVRC2012"
    (folder / f"{year}_validation_ground_truth.txt").write_text("\n".join(map(str, TRUTH)) + "\n")
    if synsets == "map_clsloc.txt":
        (folder / synsets).write_text("".join(f"{name} {number} some_words\n" for number, name in KIT.items()))
        (folder / "ILSVRC2015_clsloc_validation_blacklist.txt").write_text("2\n5\n")
        (folder / "ILSVRC2015_det_validation_blacklist.txt").write_text("1\n")
    else:
        rows = [*KIT.items(), (5, "n02083346")]  # the last is above others, and no class
        fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
        savemat(folder / synsets, {"synsets": np.array([(n, w, "words", int(n == 5)) for n, w in rows], dtype=fields)})
    return folder


def write_images(folder: Path, numbers=range(1, 7)) -> Path:
    folder.mkdir(parents=True)
    for number in numbers:
        Image.new("RGB", (24, 20), (number * 20, 0, 0)).save(folder / f"ILSVRC2012_val_{number:08d}.JPEG")
    return folder


@pytest.fixture
def root(tmp_path) -> Path:
    write_images(tmp_path / "ilsvrc" / "val")
    write_kit(tmp_path / "ilsvrc" / "devkit" / "data")
    return tmp_path / "ilsvrc"


def words_of(dataset) -> list[str]:
    return readable([dataset.class_names[label] for label in dataset.labels])


def test_labels_are_positions_among_the_sorted_ids_not_the_kits_numbers(root):
    dataset = open_dataset(f"imagenet:{root}")
    assert dataset.class_names == sorted(KIT.values())
    assert dataset.labels.tolist() == [0, 3, 2, 3, 1, 0] != [number - 1 for number in TRUTH]
    assert words_of(dataset) == WORDS
    assert dataset.ids[1] == "ILSVRC2012_val_00000002.JPEG" and dataset.read(1, 3).shape == (20, 24, 3)
    assert dataset.held_out == "val" and len(dataset.splits["val"]) == 6 and dataset.brings_splits


def test_a_label_goes_by_the_images_number_whichever_images_are_there(root):
    for number in (1, 4):
        (root / "val" / f"ILSVRC2012_val_{number:08d}.JPEG").unlink()
    dataset = open_dataset(f"imagenet:{root}")
    assert words_of(dataset) == ["kit fox", "Siberian husky", "English setter", "tench"]


def test_without_the_blacklisted_images(root):
    dataset = open_dataset(f"imagenet:{root},blacklisted=no")
    assert [name[-6] for name in dataset.ids] == ["1", "3", "4", "6"]
    assert words_of(dataset) == ["tench", "Siberian husky", "kit fox", "tench"]
    assert "left out the 2 blacklisted of 6 images" in dataset.notes[0]
    assert dataset.fingerprint != open_dataset(f"imagenet:{root}").fingerprint
    assert open_dataset(f"imagenet:{root},blacklisted=yes").ids == open_dataset(f"imagenet:{root}").ids


@pytest.mark.parametrize(
    ("images", "kit", "asked"),
    [
        ("val", "ILSVRC2012_devkit_t12/data", "."),
        ("val", "ILSVRC2012_devkit_t12/data", "val"),
        ("ILSVRC2012_img_val", "ILSVRC2012_devkit_t12/ILSVRC2012_devkit_t12/data", "."),
        ("Data/CLS-LOC/val", "devkit/data", "."),
        ("Data/CLS-LOC/val", "devkit/data", "Data/CLS-LOC/val"),
        ("flat", "flat/data", "flat"),
    ],
)
def test_the_usual_places_are_found(tmp_path, images, kit, asked):
    write_images(tmp_path / images)
    write_kit(tmp_path / kit)
    assert words_of(open_dataset(f"imagenet:{tmp_path / asked}")) == WORDS


def test_images_in_class_folders_take_the_kits_labels_too(root):
    for number, kit_number in enumerate(TRUTH, start=1):
        (root / "val" / KIT[kit_number]).mkdir(exist_ok=True)
        name = f"ILSVRC2012_val_{number:08d}.JPEG"
        (root / "val" / name).rename(root / "val" / KIT[kit_number] / name)
    dataset = open_dataset(f"imagenet:{root},blacklisted=no")
    assert [dataset.class_names[label] for label in dataset.labels] == [name.split("/")[0] for name in dataset.ids]
    assert len(dataset.ids) == 4


def test_the_kit_of_2012_has_its_classes_in_a_matlab_file(tmp_path):
    images = write_images(tmp_path / "val")
    kit = write_kit(tmp_path / "ILSVRC2012_devkit_t12" / "data", "meta.mat")
    dataset = open_dataset(f"imagenet:{images}")
    assert dataset.class_names == sorted(KIT.values()) and words_of(dataset) == WORDS
    (kit / "meta.mat").write_bytes(b"not a matlab file" * 100)
    with pytest.raises(DataError, match=r"cannot read .*meta\.mat"):
        open_dataset(f"imagenet:{images}")


def test_ids_match_the_words_of_public_weights(root, tmp_path, draw_folder):
    """The flat images and folders named by id alike, for weights that know all of the words or all of the ids."""
    words = [name for name in class_names("imagenet-1k") if name in WORDS]
    folders = draw_folder(tmp_path / "folders", dict.fromkeys(KIT.values(), 3))
    for dataset in (open_dataset(f"imagenet:{root}"), open_dataset(folders)):
        assert np.array_equal(check_classes(dataset, words), dataset.labels)
        assert np.array_equal(check_classes(dataset, dataset.class_names), dataset.labels)
        every = check_classes(dataset, class_names("imagenet-1k"), map_by_name=True)
        assert [class_names("imagenet-1k")[label] for label in every] == words_of(dataset)


def test_what_is_wrong_is_said(root, tmp_path):
    with pytest.raises(DataError, match=r"which have no class folders: say imagenet:"):
        open_dataset(root)
    with pytest.raises(UsageError, match=r"imagenet has no setting 'blacklist'; nearest: blacklisted"):
        open_dataset(f"imagenet:{root},blacklist=no")
    for value in ("", "=false"):
        with pytest.raises(UsageError, match=f"blacklisted must be yes or no; got '{value[1:]}'"):
            open_dataset(f"imagenet:{root},blacklisted{value}")
    with pytest.raises(DataError, match=r"no data 'imagenet': .*nearest: imagenet:FOLDER"):
        open_dataset("imagenet")
    with pytest.raises(DataError, match=r"no images named ILSVRC2012_val_00000001.JPEG and so on; looked in .*nowhere"):
        open_dataset(f"imagenet:{tmp_path / 'nowhere'}")
    write_images(root / "more" / "val", [7])
    with pytest.raises(DataError, match=r"has 6 lines and none for ILSVRC2012_val_00000007.JPEG"):
        open_dataset(f"imagenet:{root / 'more'}")
    kit = root / "devkit" / "data"
    (kit / "ILSVRC2015_clsloc_validation_blacklist.txt").unlink()
    with pytest.raises(DataError, match="it comes with the development kits of 2014 and later"):
        open_dataset(f"imagenet:{root},blacklisted=no")
    (kit / "map_clsloc.txt").write_text("n02119789 1 kit_fox\n")
    with pytest.raises(DataError, match=r"line 1: no class has the number 3: a file of another kit"):
        open_dataset(f"imagenet:{root}")
    (kit / "map_clsloc.txt").unlink()
    with pytest.raises(DataError, match=r"has labels and not the classes they number: put back one of map_clsloc\.txt"):
        open_dataset(f"imagenet:{root}")
    shutil.rmtree(root / "devkit")
    with pytest.raises(DataError, match=r"unpack ILSVRC2012_devkit_t12\.tar\.gz there"):
        open_dataset(f"imagenet:{root}")


def test_a_run_is_evaluated_on_them_as_a_user_types_it(root, run, capsys):
    assert main(["evaluate", str(run), "--data", f"imagenet:{root}"]) == 3
    assert "has the class 'tench', which the weights do not know" in capsys.readouterr().err
