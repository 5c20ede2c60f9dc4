"""Predictions as a table on disk: a row for every image, written as they are made."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TextIO

from convarium.deploy.predictor import Prediction
from convarium.errors import UsageError


def check_table(path: Path) -> None:
    """Refuse a name that is not that of a table.

    Raises:
        UsageError: neither ``.csv`` nor ``.jsonl``, a folder, or in no folder.
    """
    if path.suffix not in WRITERS or path.is_dir():
        raise UsageError(f"--output must be a file that ends in .csv or .jsonl; got {str(path)!r}")
    if not path.parent.is_dir():
        raise UsageError(f"no folder {path.parent} to write {path.name} into: make it first")


def write_table(path: Path, kind: str, rows: Iterable[Prediction], top: int) -> None:
    """Write ``rows`` to ``path`` as a table of ``kind``, the suffix that it will have.

    Names of files that are not in UTF-8 are written as their own bytes.
    """
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        WRITERS[kind](file, rows, top)


def _write_csv(file: TextIO, rows: Iterable[Prediction], top: int) -> None:
    writer = csv.writer(file, lineterminator="\n")
    columns = [f"{name}_{place}" for place in range(1, top + 1) for name in ("label", "probability")]
    writer.writerow(["path", "error", *columns])
    for row in rows:
        pairs = zip(row.labels, row.probabilities, strict=True)
        cells = [cell for label, probability in pairs for cell in (label, f"{probability:.6f}")]
        writer.writerow([row.path, row.error, *cells, *[None] * (2 * top - len(cells))])


def _write_jsonl(file: TextIO, rows: Iterable[Prediction], top: int) -> None:
    for row in rows:
        known = {"error": row.error} if row.error else {"labels": row.labels, "probabilities": row.probabilities}
        file.write(json.dumps({"path": row.path, **known}, ensure_ascii=False) + "\n")


WRITERS: dict[str, Callable[[TextIO, Iterable[Prediction], int], None]] = {".csv": _write_csv, ".jsonl": _write_jsonl}
