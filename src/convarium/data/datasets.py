"""Data sets: the embedded ``digits`` and ``glyphs``, folders with a folder per class, ImageNet's validation images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from convarium.data.glyphs import LETTERS, SPLITS, Glyphs, is_glyphs, parse_settings
from convarium.data.imagenet import holds_validation_images, is_imagenet, open_validation, readable
from convarium.data.images import SUFFIXES, as_channels, image_files, read_image
from convarium.errors import DataError, nearest, require

EMBEDDED = ("digits", "glyphs")
HELD_OUT = 0.2  # of the images of each class, where the data brings no split of its own
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class Dataset:
    """Images with labels, in splits.

    Attributes:
        name: ``digits``, ``glyphs`` with its settings, ``imagenet:`` with its folder, or the folder's path.
        class_names: sorted; a label is a position in it.
        labels: ``(n,)`` int64.
        ids: what to call each image: its path relative to the folder.
        images: decoded ``(n, H, W, C)`` uint8, drawn when asked for, or the files' paths.
        splits: split name to positions.
        notes: what was left out, and why.
        brings_splits: the data says itself which images are held out.
    """

    name: str
    class_names: list[str]
    labels: np.ndarray
    ids: list[str]
    images: np.ndarray | Glyphs | list[Path]
    splits: dict[str, np.ndarray]
    notes: list[str] = field(default_factory=list)
    brings_splits: bool = True

    def read(self, position: int, channels: int) -> np.ndarray:
        """One image, ``(H, W, channels)`` uint8."""
        stored = self.images[position]
        return read_image(stored, channels) if isinstance(stored, Path) else as_channels(stored, channels)

    @property
    def held_out(self) -> str:
        """The split to judge on: ``test`` where there is one, else ``val``."""
        return "test" if "test" in self.splits else "val"

    def positions(self, split: str) -> np.ndarray:
        """Of the images of a split; ``"held-out"`` is :attr:`held_out`, ``"all"`` every image.

        Raises:
            DataError: no such split.
        """
        if split == "all":
            return np.arange(len(self.labels))
        chosen = self.held_out if split == "held-out" else split
        if chosen not in self.splits:
            raise DataError(f"{self.name} has no {split} images; splits: {', '.join(self.splits)}, all")
        return self.splits[chosen]

    @property
    def fingerprint(self) -> str:
        """A hash of the images' names, sizes and labels: the same folder gives the same."""
        digest = hashlib.sha256()
        if isinstance(self.images, Glyphs):
            digest.update(repr(self.images.settings).encode())
            digest.update(b"".join(self.images[int(positions[0])].tobytes() for positions in self.splits.values()))
            return digest.hexdigest()[:16]
        for i, name in enumerate(self.ids):
            stored = self.images[i]
            size = stored.stat().st_size if isinstance(stored, Path) else stored.nbytes
            digest.update(f"{name}\0{size}\0{self.labels[i]}\n".encode())
        return digest.hexdigest()[:16]


def is_embedded(data: str) -> bool:
    """Whether ``data`` names a data set that needs no files."""
    return data in EMBEDDED or is_glyphs(data)


def open_dataset(data: str | Path, seed: int = 0) -> Dataset:
    """Open an embedded data set by name, a folder, or ImageNet's validation images (:mod:`convarium.data.imagenet`).

    A folder is ``root/<class>/*``, of which a stratified fifth, drawn by ``seed``, is held out as ``val``; or
    ``root/{train,val[,test]}/<class>/*``.

    Raises:
        DataError: no such data, no images, fewer than two classes, or splits whose classes disagree.
        UsageError: a setting that ``glyphs`` or ``imagenet`` does not have.
    """
    if data == "digits":  # a folder of that name is ./digits
        return _digits()
    if is_glyphs(str(data)):
        return _glyphs(str(data))
    if is_imagenet(str(data)):
        return _imagenet(str(data))
    root = Path(data)
    if not str(data) or not root.is_dir():
        hint = nearest(str(data), [*EMBEDDED, "imagenet:FOLDER", *_siblings(root)])
        raise DataError(f"no data {str(data)!r}: neither a folder nor an embedded data set; {hint}")
    if holds_validation_images(root):
        raise DataError(f"{root} holds ImageNet's validation images, which have no class folders: say imagenet:{root}")
    notes: list[str] = []
    folders = _folders(root, notes)
    splits = [folder for folder in folders if folder.name.lower() in SPLIT_NAMES]
    # A folder `train` that holds pictures itself is a class of vehicles.
    if len(splits) > 1 and any(f.name.lower() == "train" and _folders(f, []) for f in splits):
        if others := [folder.name for folder in folders if folder not in splits]:
            notes.append(f"{root}: left out what is beside the splits: {', '.join(others)}")
        return _split_folder(root, _by_split(root, splits), seed, notes)
    return _flat_folder(root, folders, seed, notes)


def _by_split(root: Path, folders: list[Path]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for folder in folders:
        split = SPLIT_NAMES[folder.name.lower()]
        if split in named:
            raise DataError(f"{root} has two folders for {split}: {named[split].name} and {folder.name}; keep one")
        named[split] = folder
    return named


def _siblings(path: Path) -> list[str]:
    return [str(entry) for entry in sorted(path.parent.glob("*")) if entry.is_dir()] if path.parent.is_dir() else []


def _digits() -> Dataset:
    """1,797 handwritten digits, 8x8 with 17 levels (E. Alpaydin, C. Kaynak, UCI 1998), a fixed fifth held out."""
    require("sklearn", "digits")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int64)
    names = [str(digit) for digit in range(10)]
    ids = [f"digits/{i:04d}" for i in range(len(labels))]
    return Dataset("digits", names, labels, ids, pixels, _stratified(labels, seed=0))


def _glyphs(data: str) -> Dataset:
    images = Glyphs(parse_settings(data))
    labels = images.labels()
    ids = ["{}/{:06d}".format(*images.place(i)) for i in range(len(images))]
    splits = {split: images.positions(split) for split in SPLITS}
    return Dataset(data, list(LETTERS.upper()), labels, ids, images, splits)


def _imagenet(data: str) -> Dataset:
    found = open_validation(data)
    ids = [file.relative_to(found.folder).as_posix() for file in found.files]
    splits = {"val": np.arange(len(ids))}
    return Dataset(data, found.class_names, found.labels, ids, found.files, splits, found.notes)


def _flat_folder(root: Path, folders: list[Path], seed: int, notes: list[str]) -> Dataset:
    classes = {folder.name: _files(folder, notes) for folder in folders}
    names = _class_names(root, classes, notes)
    files = [file for name in names for file in classes[name]]
    labels = np.repeat(np.arange(len(names)), [len(classes[name]) for name in names])
    splits = _stratified(labels, seed)
    if not len(splits["val"]):
        raise DataError(f"{root} has one image per class: two or more are needed, to train on one and judge on another")
    return _dataset(root, names, labels, files, splits, notes, brings_splits=False)


def _split_folder(root: Path, folders: dict[str, Path], seed: int, notes: list[str]) -> Dataset:
    found = {split: {f.name: _files(f, notes) for f in _folders(folder, notes)} for split, folder in folders.items()}
    names = _class_names(folders["train"], found["train"], notes)
    files: list[Path] = []
    labels: list[int] = []
    splits: dict[str, np.ndarray] = {}
    for split, classes in found.items():
        if unknown := sorted(name for name in classes.keys() - set(names) if classes[name]):
            raise DataError(f"{folders[split]} has the class {unknown[0]!r}, which {folders['train']} has not")
        if absent := [name for name in names if not classes.get(name)]:
            notes.append(f"{folders[split]} has no images of: {', '.join(absent)}")
        start = len(files)
        for label, name in enumerate(names):
            files += classes.get(name, [])
            labels += [label] * len(classes.get(name, []))
        splits[split] = np.arange(start, len(files))
        if start == len(files):
            raise DataError(f"{folders[split]} holds no images")
    labels_array = np.array(labels)
    if "val" not in splits:
        inner = _stratified(labels_array[splits["train"]], seed)
        splits["train"], splits["val"] = splits["train"][inner["train"]], splits["train"][inner["val"]]
    return _dataset(root, names, labels_array, files, splits, notes, brings_splits=True)


def _dataset(
    root: Path,
    names: list[str],
    labels: np.ndarray,
    files: list[Path],
    splits: dict[str, np.ndarray],
    notes: list[str],
    *,
    brings_splits: bool,
) -> Dataset:
    ids = [file.relative_to(root).as_posix() for file in files]
    return Dataset(str(root), names, labels.astype(np.int64), ids, files, splits, notes, brings_splits)


def _folders(root: Path, notes: list[str]) -> list[Path]:
    entries = sorted((entry for entry in root.iterdir() if entry.is_dir()), key=lambda entry: entry.name)
    if hidden := [entry.name for entry in entries if entry.name.startswith(".")]:
        notes.append(f"{root}: left out hidden folders: {', '.join(hidden)}")
    return [entry for entry in entries if not entry.name.startswith(".")]


def _files(folder: Path, notes: list[str]) -> list[Path]:
    images, others = image_files(folder)
    if others:
        notes.append(f"{folder}: left out {others} files that are not images")
    return images


def _class_names(root: Path, classes: dict[str, list[Path]], notes: list[str]) -> list[str]:
    names = sorted(name for name, files in classes.items() if files)
    if empty := sorted(name for name, files in classes.items() if not files):
        notes.append(f"{root}: left out folders without images: {', '.join(empty)}")
    if not names:
        kinds = " ".join(sorted(SUFFIXES))
        raise DataError(f"{root} holds no images in class folders: wanted {root}/<class>/<image> with {kinds}")
    if len(names) == 1:
        raise DataError(f"{root} holds one class only, {names[0]!r}: a classifier needs two or more")
    return names


def _stratified(labels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Positions of ``train`` and ``val``: a fifth of each class, one at least where there are two."""
    generator = np.random.default_rng(seed)
    held: list[int] = []
    for label in np.unique(labels):
        positions = generator.permutation(np.flatnonzero(labels == label))
        count = max(1, round(HELD_OUT * len(positions))) if len(positions) > 1 else 0
        held += positions[:count].tolist()
    val = np.sort(np.array(held, dtype=np.int64))
    return {"train": np.setdiff1d(np.arange(len(labels)), val), "val": val}


def check_classes(dataset: Dataset, class_names: Sequence[str], *, map_by_name: bool = False) -> np.ndarray:
    """Labels of ``dataset`` as positions in ``class_names``, the list in the weights; WordNet ids match their words.

    Raises:
        DataError: a class that one of them lacks; with ``map_by_name``, only one that the weights do not know.
    """
    known, own = readable(class_names), readable(dataset.class_names)
    if unknown := [name for name in own if name not in known]:
        hint = nearest(unknown[0], known)
        raise DataError(f"{dataset.name} has the class {unknown[0]!r}, which the weights do not know; {hint}")
    absent = [name for name in known if name not in own]
    if absent and not map_by_name:
        raise DataError(
            f"{dataset.name} has {len(own)} of the weights' {len(known)} classes (none of "
            f"{', '.join(map(repr, absent[:3]))}): add --map-by-name to judge on those it has"
        )
    return np.array([known.index(name) for name in own])[dataset.labels]
