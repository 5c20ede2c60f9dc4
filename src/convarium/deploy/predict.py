"""``predict``: names for images, from a run folder or an exported file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convarium.console import counting
from convarium.data.images import image_files
from convarium.deploy.predictor import Prediction, Predictor
from convarium.errors import DataError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Predictions:
    """One row per image, likeliest class first."""

    rows: list[Prediction]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def render(self) -> RenderableType:
        return "\n".join(
            f"{row.path}: "
            + ", ".join(f"{label} {100 * p:.1f} %" for label, p in zip(row.labels, row.probabilities, strict=True))
            for row in self.rows
        )


def predict(source: Path, images: list[Path], /, *, top: int = 5) -> Predictions:
    """Name what is in images, with probabilities.

    Args:
        source: a run folder (torch), or an exported .onnx file (onnxruntime, without torch).
        images: image files, or folders of them.
        top: how many classes to name.

    Raises:
        UsageError: no image, or top below 1.
        DataError: a run, file or image that cannot be read.
    """
    if top < 1:
        raise UsageError(f"--top must be 1 or more; got {top}")
    if not images:
        raise UsageError("no image to predict: convarium predict RUN IMAGE...")
    files = _files([Path(path) for path in images])
    rows: list[Prediction] = []
    predictor = Predictor(source)
    with counting("predicting", len(files)) as tick:
        for prediction in predictor.predict(files, top=top):
            rows.append(prediction)
            tick(len(rows))
    return Predictions(rows)


def _files(images: list[Path]) -> list[Path]:
    files = []
    for path in images:
        if path.is_dir():
            inside, _ = image_files(path)
            if not inside:
                raise DataError(f"{path} holds no images")
            files += inside
        else:
            files.append(path)
    return files
