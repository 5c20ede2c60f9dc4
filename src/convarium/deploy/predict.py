"""``predict``: names for images, from a run folder or an exported file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from convarium.console import counting
from convarium.data.images import list_images
from convarium.deploy.features import Features, extract_features
from convarium.deploy.predictor import Prediction, Predictor
from convarium.errors import UsageError

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


@overload
def predict(source: Path, images: list[Path], /, *, top: int = 5, features: None = None) -> Predictions: ...
@overload
def predict(source: Path, images: list[Path], /, *, top: int = 5, features: Path) -> Features: ...
def predict(
    source: Path, images: list[Path], /, *, top: int = 5, features: Path | None = None
) -> Predictions | Features:
    """Name what is in images, with probabilities; or write what the classifier reads of them.

    Args:
        source: a run folder (torch), or an exported .onnx file (onnxruntime, without torch).
        images: image files, or folders of them; with --features also a data set ("digits", or a folder of class
            folders, which brings labels and splits).
        top: how many classes to name.
        features: write the features before the classifier to this file instead: .npy (with a .csv of the images'
            names beside it), or .npz (names and labels inside).

    Raises:
        UsageError: no image, top below 1, or features of an exported file.
        DataError: a run, file or image that cannot be read.
    """
    if top < 1:
        raise UsageError(f"--top must be 1 or more; got {top}")
    if not images:
        raise UsageError("no image to predict: convarium predict RUN IMAGE...")
    images = [Path(path) for path in images]
    if features is not None:
        return extract_features(source, images, features)
    files = list_images(images)
    rows: list[Prediction] = []
    predictor = Predictor(source)
    with counting("predicting", len(files)) as tick:
        for prediction in predictor.predict(files, top=top):
            rows.append(prediction)
            tick(len(rows))
    return Predictions(rows)
