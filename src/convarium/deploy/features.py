"""Feature extraction: what a run's classifier reads, for every image of a data set, as an array on disk."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from convarium.atomic import replacing, write_text
from convarium.console import counting, stderr
from convarium.data.datasets import Dataset, is_embedded, open_dataset
from convarium.data.images import SUFFIXES, list_images
from convarium.errors import UsageError
from convarium.runs import Run, load_run

if TYPE_CHECKING:
    from rich.console import RenderableType

BATCH = 32
FORMATS = (".npy", ".npz")


@dataclass(frozen=True)
class Features:
    """Features on disk.

    Attributes:
        output: the array, ``(images, width)`` float32.
        names: the images' names in the order of its rows: a table beside an ``.npy``, the file itself for an ``.npz``.
        images: rows.
        width: columns: the network's ``head_hidden_size``.
    """

    output: Path
    names: Path
    images: int
    width: int

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "output": str(self.output), "names": str(self.names)}

    def render(self) -> RenderableType:
        where = "" if self.names == self.output else f"; the images' names are in {self.names}"
        return f"{self.images:,} images, {self.width:,} features each: {self.output}{where}"


def extract_features(source: Path, images: list[Path], output: Path) -> Features:
    """Write the pooled features before the classifier (``forward_head(x, pre_logits=True)``) of every image.

    An ``.npy`` holds the array alone; beside it a ``.csv`` of the same name has a row per image: ``id``, and ``label``,
    ``class`` and ``split`` where the data has them. An ``.npz`` holds ``features``, ``ids``, and then ``labels``,
    ``class_names`` and ``splits``. Rows go to disk as they are made, so that memory does not grow with their number.

    Args:
        source: a run folder.
        images: image files and folders of them; or one embedded data set or folder of class folders.
        output: a file that ends in ``.npy`` or ``.npz``.

    Raises:
        UsageError: an exported file for a run, or an output that is neither.
        DataError: a run or image that cannot be read.
        ConvariumError: the file cannot be written.
    """
    source, output = Path(source), Path(output)
    if output.suffix not in FORMATS or output.is_dir():
        raise UsageError(f"--features must be a file that ends in .npy or .npz; got {str(output)!r}")
    if source.is_file() or source.suffix == ".onnx":
        raise UsageError(f"{source} gives no features: --features needs the run folder that it was made from")
    names = output.with_suffix(".csv") if output.suffix == ".npy" else output
    if names != output and names.exists() and not _is_ours(names):
        raise UsageError(f"the images' names would replace {names}, which holds something else: choose another name")
    run = load_run(source)
    dataset = _open(images, run.own["data"]["seed"])
    for note in dataset.notes:
        stderr().print(note)
    write = _write_npy if output.suffix == ".npy" else _write_npz
    with counting("extracting features", len(dataset.ids)) as tick:
        width = write(output, dataset, _batches(run, dataset, tick))
    return Features(output, names, len(dataset.ids), width)


def _open(images: list[Path], seed: int) -> Dataset:
    """The data set that is asked for, or one without classes made of files."""
    if len(images) == 1 and (is_embedded(str(images[0])) or _has_classes(images[0])):
        return open_dataset(str(images[0]), seed)
    files = list_images(images)
    return Dataset("", [], np.zeros(len(files), dtype=np.int64), [str(file) for file in files], files, {})


def _has_classes(path: Path) -> bool:
    """Folders in it, and no pictures beside them."""
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")] if path.is_dir() else []
    pictures = any(entry.is_file() and entry.suffix.lower() in SUFFIXES for entry in entries)
    return not pictures and sum(entry.is_dir() for entry in entries) > 1


def _batches(run: Run, dataset: Dataset, tick: Any) -> Iterator[np.ndarray]:
    import torch

    from convarium.data.loading import ImageStore
    from convarium.data.resize import Preprocess

    preprocess, channels = Preprocess(run.preprocessing), run.preprocessing.channels
    positions = np.arange(len(dataset.ids))
    store = ImageStore(
        dataset, positions, channels, lambda image: preprocess(torch.from_numpy(image)[None])[0], budget=0
    )
    torch.set_num_threads(run.own.get("threads") or torch.get_num_threads())  # as measured in training
    done = 0
    with torch.inference_mode():
        for batch in store.batches(torch.arange(len(store)).split(BATCH)):
            features = run.model.forward_head(run.model.forward_features(batch), pre_logits=True)
            yield features.numpy()
            done += len(features)
            tick(done)


def _write_npy(output: Path, dataset: Dataset, batches: Iterator[np.ndarray]) -> int:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    columns = _columns(dataset)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    with replacing(output) as temporary:
        with open(temporary, "wb") as file:
            width = _write_rows(file, batches, len(dataset.ids))
        write_text(output.with_suffix(".csv"), table.getvalue())
    return width


def _is_ours(table: Path) -> bool:
    with open(table, "rb") as file:
        return file.readline() in (b"id\n", b"id,label,class,split\n")


def _columns(dataset: Dataset) -> dict[str, list[Any]]:
    """What is known of each image, by the names of the table's columns."""
    if not dataset.class_names:
        return {"id": dataset.ids}
    classes = [dataset.class_names[label] for label in dataset.labels]
    return {"id": dataset.ids, "label": dataset.labels.tolist(), "class": classes, "split": _splits(dataset).tolist()}


def _splits(dataset: Dataset) -> np.ndarray:
    named = np.full(len(dataset.ids), "", dtype="<U5")
    for split, positions in dataset.splits.items():
        named[positions] = split
    return named


def _write_npz(output: Path, dataset: Dataset, batches: Iterator[np.ndarray]) -> int:
    arrays: dict[str, np.ndarray] = {"ids": np.array(dataset.ids)}
    if dataset.class_names:
        arrays |= {"labels": dataset.labels, "class_names": np.array(dataset.class_names), "splits": _splits(dataset)}
    with replacing(output) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with _member(archive, "features") as file:
            width = _write_rows(file, batches, len(dataset.ids))
        for name, array in arrays.items():
            with _member(archive, name) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return width


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """An array's place in an ``.npz``; it has no date, so that the same features are the same file."""
    return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)


def _write_rows(file: IO[bytes], batches: Iterator[np.ndarray], rows: int) -> int:
    """An ``.npy`` of ``rows`` rows as they come; returns their width."""
    width = 0
    for batch in batches:
        if not width:
            width = batch.shape[1]
            header = {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
            np.lib.format.write_array_header_1_0(file, header)
        file.write(batch.astype("<f4").tobytes())
    return width
