"""``predict``: names for images, from a run folder or an exported file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from convarium.atomic import replacing
from convarium.console import counting, stderr
from convarium.data.images import image_files, list_images
from convarium.deploy.features import Features, extract_features
from convarium.deploy.predictor import Prediction, Predictor
from convarium.deploy.tables import check_table, write_table
from convarium.errors import DataError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

STDIN = Path("-")
MANY = 100  # images from which on it pays to measure the runtimes first


@dataclass(frozen=True)
class Predictions:
    """One row per image, likeliest class first."""

    rows: list[Prediction]

    @property
    def exit_code(self) -> int:
        return DataError.exit_code if any(row.error for row in self.rows) else 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def render(self) -> RenderableType:
        return "\n".join(f"{row.path}: {row.error or _likeliest(row)}" for row in self.rows)


@dataclass(frozen=True)
class Table:
    """Predictions on disk: a row for each of ``images``; ``unreadable`` of them have a reason instead of classes."""

    output: Path
    images: int
    unreadable: int

    @property
    def exit_code(self) -> int:
        return DataError.exit_code if self.unreadable else 0

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "output": str(self.output)}

    def render(self) -> RenderableType:
        return f"{self.images:,} images, a row for each: {self.output}"


@overload
def predict(
    source: Path, images: list[Path], /, *, top: int = 5, output: None = None, features: None = None,
    runtime: Literal["torch", "onnxruntime", "openvino"] | None = None, threads: int | None = None,
) -> Predictions: ...  # fmt: skip
@overload
def predict(
    source: Path, images: list[Path], /, *, top: int = 5, output: Path | None = None, features: Path | None = None,
    runtime: Literal["torch", "onnxruntime", "openvino"] | None = None, threads: int | None = None,
) -> Predictions | Table | Features: ...  # fmt: skip
def predict(
    source: Path,
    images: list[Path],
    /,
    *,
    top: int = 5,
    output: Path | None = None,
    features: Path | None = None,
    runtime: Literal["torch", "onnxruntime", "openvino"] | None = None,
    threads: int | None = None,
) -> Predictions | Table | Features:
    """Name what is in images, with probabilities; or write what the classifier reads of them.

    An image that cannot be read has a row with the reason, and the others go on; the exit code is then 3.

    Args:
        source: a run folder (torch), or an exported .onnx or .xml file (without torch).
        images: image files, or folders of them; "-" reads their names from stdin, one a line. With --features also a
            data set ("digits", or a folder of class folders, which brings labels and splits).
        top: how many classes to name.
        output: write a table to this file, a row per image: .csv or .jsonl. It appears when all are done.
        features: write the features before the classifier to this file instead: .npy (with a .csv of the images'
            names beside it), or .npz (names and labels inside).
        runtime: what calculates; for many images, what is measured to be quickest when not given.
        threads: of one forward; likewise.

    Raises:
        UsageError: no image, top or threads below 1, an output that is no table, a runtime that does not open the
            source, or features of an exported file.
        DataError: a run or file that cannot be read, or images of which none can be.
    """
    if top < 1:
        raise UsageError(f"--top must be 1 or more; got {top}")
    if not images:
        raise UsageError("no image to predict: convarium predict RUN IMAGE...")
    images = [Path(path) for path in images]
    if features is not None:
        if output is not None or STDIN in images:
            raise UsageError("--features is written by itself, of files and folders: without --output and without -")
        return extract_features(source, images, features)
    if output is not None:
        check_table(output := Path(output))
    files: Iterable[Path] = _listed(images)
    count = None
    if STDIN not in images:
        files = list(files)
        count = len(files)
    few = count is not None and count < MANY
    predictor = (Predictor.at_once if few else Predictor)(source, threads, runtime)
    if predictor.said:
        stderr().print(predictor.said)
    tally = Tally()
    rows = tally.of(predictor.predict(files, top), count)
    if output is None:
        result: Predictions | Table = Predictions(list(rows))
        tally.check()
    else:
        with replacing(output) as temporary:
            write_table(temporary, output.suffix, rows, min(top, len(predictor.class_names)))
            tally.check()
        result = Table(output, tally.images, tally.unreadable)
    if tally.unreadable:
        stderr().print(f"{tally.unreadable:,} of {tally.images:,} images could not be read; their rows say why")
    return result


class Tally:
    """How many images have passed, and of how many of them nothing could be read."""

    def __init__(self) -> None:
        self.images = self.unreadable = 0
        self.first_error = ""

    def of(self, rows: Iterable[Prediction], total: int | None) -> Iterator[Prediction]:
        """``rows`` as they come, counted on a bar."""
        with counting("predicting", total) as tick:
            for row in rows:
                self.images += 1
                if row.error:
                    self.unreadable += 1
                    self.first_error = self.first_error or row.error
                tick(self.images)
                yield row

    def check(self) -> None:
        """Refuse a job without any result.

        Raises:
            DataError: no image was named, or none could be read.
        """
        if not self.images:
            raise DataError("no image was named on stdin: one file or folder a line is wanted")
        if self.images == self.unreadable:
            several = f"none of the {self.images:,} images could be read; the first: " if self.images > 1 else ""
            raise DataError(several + self.first_error)


def _listed(images: list[Path]) -> Iterator[Path]:
    """The files named, read from stdin in the place of "-"; folders are opened."""
    for path in images:
        if path != STDIN:
            yield from list_images([path])
            continue
        for line in sys.stdin.buffer:
            if name := line.rstrip(b"\r\n"):
                named = Path(os.fsdecode(name))
                yield from (image_files(named)[0] or [named]) if named.is_dir() else [named]


def _likeliest(row: Prediction) -> str:
    return ", ".join(f"{label} {100 * p:.1f} %" for label, p in zip(row.labels, row.probabilities, strict=True))
