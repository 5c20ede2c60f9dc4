"""The validation images of ILSVRC 2012 as they are distributed: without labels, which a development kit holds.

The kit numbers the classes in an order of its own (1 is the kit fox); every public network has them sorted by WordNet
id (0 is the tench). A line of its ground truth belongs to the image of that number, whichever images are there. The
kits of 2014 and later list 1,762 images whose boxes are bad; the single-crop errors of Inception-v3 and v4 leave them
out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convarium.errors import DataError, UsageError, nearest, require
from convarium.weights.labels import synset_names

PREFIX = "imagenet:"
NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG", re.IGNORECASE)
FLAT, BY_CLASS = "ILSVRC2012_val_*", "n*/ILSVRC2012_val_*"
IMAGE_FOLDERS = ("", "val", "ILSVRC2012_img_val", "Data/CLS-LOC/val")  # below the folder that is named
KIT_FOLDERS = ("", "data/", "*devkit*/", "*devkit*/data/", "*devkit*/*devkit*/data/")  # beside or above the images
LEVELS = 3  # above them
GROUND_TRUTH = ("ILSVRC2012_validation_ground_truth.txt", "ILSVRC*_clsloc_validation_ground_truth.txt")
SYNSETS = ("map_clsloc.txt", "meta_clsloc.mat", "meta.mat")
BLACKLIST = ("ILSVRC*_clsloc_validation_blacklist.txt",)


@dataclass(frozen=True)
class Validation:
    """The images that are there, by number.

    Attributes:
        folder: what they lie in.
        files: their paths.
        labels: ``(n,)`` int64, positions in ``class_names``.
        class_names: WordNet ids, sorted.
        notes: what was left out.
    """

    folder: Path
    files: list[Path]
    labels: np.ndarray
    class_names: list[str]
    notes: list[str]


def is_imagenet(data: str) -> bool:
    """Whether ``data`` asks for these images: ``imagenet:FOLDER``, or ``imagenet:FOLDER,blacklisted=no``."""
    return data.startswith(PREFIX)


def holds_validation_images(folder: Path) -> bool:
    """Whether the images lie in ``folder``, or where they are usual below it, in no class folders."""
    return any(next((folder / inner).glob(FLAT), None) for inner in IMAGE_FOLDERS)


def open_validation(data: str) -> Validation:
    """Find the images and the unpacked kit, and give each image the label of its number.

    Args:
        data: ``imagenet:FOLDER``; with ``,blacklisted=no`` less the blacklisted ones. ``FOLDER`` holds the images, flat
            or in class folders, or ``val``, ``ILSVRC2012_img_val`` or ``Data/CLS-LOC/val`` in it does. The kit is
            looked for beside them and up to three levels above.

    Raises:
        UsageError: another setting.
        DataError: no images, no kit, or files that do not fit together.
    """
    asked, blacklisted = parse_imagenet(data)
    folder, numbered = _images(asked)
    kit = _find(folder, GROUND_TRUTH)
    if kit is None:
        raise DataError(f"no {GROUND_TRUTH[0]} beside {folder} or above it: unpack ILSVRC2012_devkit_t12.tar.gz there")
    truth, wordnet_ids = _numbers(kit), _wordnet_ids(kit.parent)
    notes: list[str] = []
    if not blacklisted:
        left_out = _blacklisted(folder) & numbered.keys()
        notes.append(f"{folder}: left out the {len(left_out):,} blacklisted of {len(numbered):,} images")
        numbered = {number: file for number, file in numbered.items() if number not in left_out}
    class_names = sorted(wordnet_ids.values())
    label_of = {number: class_names.index(name) for number, name in wordnet_ids.items()}
    for number, file in numbered.items():
        if not 1 <= number <= len(truth):
            raise DataError(f"{kit} has {len(truth):,} lines and none for {file.name}")
        if truth[number - 1] not in label_of:
            raise DataError(f"{kit}, line {number}: no class has the number {truth[number - 1]}: a file of another kit")
    labels = np.array([label_of[truth[number - 1]] for number in numbered], dtype=np.int64)
    return Validation(folder, list(numbered.values()), labels, class_names, notes)


def parse_imagenet(data: str) -> tuple[Path, bool]:
    """The folder, and whether blacklisted images are among those wanted.

    Raises:
        UsageError: a setting or value that does not exist.
    """
    asked = data.removeprefix(PREFIX)
    folder, _, setting = asked.rpartition(",")
    name, equals, value = setting.partition("=")
    if not folder or not (equals or name == "blacklisted"):
        return Path(asked), True
    if name != "blacklisted":
        raise UsageError(f"imagenet has no setting {name!r}; {nearest(name, ['blacklisted'])} (blacklisted=no)")
    if value not in ("yes", "no"):
        raise UsageError(f"imagenet: blacklisted must be yes or no; got {value!r}")
    return Path(folder), value == "yes"


def readable(class_names: Sequence[str]) -> list[str]:
    """WordNet ids of ImageNet's classes as the words that public weights have for them; other names as they are."""
    words = synset_names("imagenet-1k")
    return [words.get(name, name) for name in class_names]


def _images(asked: Path) -> tuple[Path, dict[int, Path]]:
    """Their folder, and number to file, in the order of the numbers."""
    for inner in IMAGE_FOLDERS:
        for pattern in (FLAT, BY_CLASS):
            found = {int(m[1]): file for file in (asked / inner).glob(pattern) if (m := NAME.fullmatch(file.name))}
            if found:
                return asked / inner, dict(sorted(found.items()))
    looked = ", ".join(str(asked / inner) for inner in IMAGE_FOLDERS)
    raise DataError(f"no images named ILSVRC2012_val_00000001.JPEG and so on; looked in {looked}")


def _find(images: Path, names: Sequence[str]) -> Path | None:
    """The first file of such a name beside the images or above them."""
    nearby = [images.absolute(), *images.absolute().parents][: LEVELS + 1]
    places = (base.glob(folder + name) for base in nearby for folder in KIT_FOLDERS for name in names)
    return next((file for found in places for file in sorted(found)), None)


def _wordnet_ids(kit: Path) -> dict[int, str]:
    """The kit's number of each class to its WordNet id."""
    file = next((kit / name for name in SYNSETS if (kit / name).is_file()), None)
    if file is None:
        raise DataError(f"{kit} has labels and not the classes they number: put back one of {', '.join(SYNSETS)}")
    if file.suffix == ".mat":
        return _from_matlab(file)
    lines = [line.split() for line in file.read_text(errors="replace").splitlines() if line.strip()]
    if not all(len(line) > 1 and line[1].isdecimal() for line in lines):
        raise DataError(f"{file} cannot be read: its lines must be a WordNet id, a number and words")
    return {int(line[1]): line[0] for line in lines}


def _from_matlab(file: Path) -> dict[int, str]:
    """From ``synsets`` in a kit's ``meta.mat``; those above others in WordNet's hierarchy are not classes."""
    require("scipy", "imagenet")
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        rows = np.atleast_1d(loadmat(file, squeeze_me=True)["synsets"])
        fields = rows.dtype.names or ()
        number = next(field for field in fields if field.startswith("ILSVRC"))
        leaves = rows[rows["num_children"] == 0] if "num_children" in fields else rows
        return {int(row[number]): str(row["WNID"]) for row in leaves}
    except (MatReadError, KeyError, NotImplementedError, OSError, StopIteration, TypeError, ValueError) as error:
        raise DataError(f"cannot read {file} ({error}): put back the kit's own") from None


def _blacklisted(images: Path) -> set[int]:
    file = _find(images, BLACKLIST)
    if file is None:
        raise DataError(
            f"no ILSVRC2014_clsloc_validation_blacklist.txt beside {images} or above it: it comes with the development "
            "kits of 2014 and later"
        )
    return set(_numbers(file))


def _numbers(file: Path) -> list[int]:
    lines = file.read_text(errors="replace").split()
    if not all(line.isdecimal() for line in lines):
        raise DataError(f"{file} cannot be read: its lines must be whole numbers")
    return [int(line) for line in lines]
