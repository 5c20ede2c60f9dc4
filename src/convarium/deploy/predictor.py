"""The predictor: names with probabilities for images, from a run folder (torch) or an exported file (without torch)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convarium.data.images import as_channels, read_image
from convarium.data.preprocess import Preprocessing
from convarium.errors import DataError, UsageError
from convarium.evaluation.metrics import softmax

Logits = Callable[[np.ndarray], np.ndarray]  # uint8 (N, H, W, C) to float32 (N, classes)


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one image, best first; ``path`` is ``None`` for an image that came as an array."""

    path: str | None
    labels: list[str]
    probabilities: list[float]


class Predictor:
    """Classifies images of any size.

    Args:
        source: an exported ``.onnx`` file, or a run folder.
        threads: for one image; ``None`` leaves it to the runtime. For a run folder this is torch's number of threads,
            which the whole process shares; ``None`` means the number that training measured to be quickest.

    Attributes:
        class_names: in the order of the logits.
        preprocessing: what is done to an image before the network sees it.

    Raises:
        UsageError: fewer than 1 thread.
        DataError: a source that cannot be read.
    """

    class_names: list[str]
    preprocessing: Preprocessing

    def __init__(self, source: str | Path, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise UsageError(f"threads must be 1 or more; got {threads}")
        path = Path(source)
        if path.is_file() and path.suffix == ".safetensors":
            raise DataError(f"{path} holds weights alone: give its run folder, {path.parent}")
        exported = path.suffix == ".onnx" or path.is_file()
        open_source = _open_onnx if exported else _open_run
        self._logits, self.class_names, self.preprocessing = open_source(path, threads)

    def predict(self, images: Iterable[str | Path | np.ndarray], top: int = 5) -> Iterator[Prediction]:
        """One prediction per image, in their order, each made when it is asked for.

        Args:
            images: files, or uint8 arrays ``(H, W, 3)`` or ``(H, W, 1)``.
            top: how many classes to name; all where there are fewer.

        Raises:
            UsageError: ``top`` below 1.
            DataError: an image that cannot be read.
        """
        if top < 1:
            raise UsageError(f"top must be 1 or more; got {top}")
        return (self._predict_one(image, top) for image in images)

    def _predict_one(self, image: str | Path | np.ndarray, top: int) -> Prediction:
        channels = self.preprocessing.channels
        if isinstance(image, np.ndarray):
            path, pixels = None, as_channels(_checked(image), channels)
        else:
            path, pixels = str(image), read_image(image, channels)
        probabilities = softmax(self._logits(np.ascontiguousarray(pixels[None])))[0]
        best = np.argsort(-probabilities, kind="stable")[:top]
        return Prediction(path, [self.class_names[i] for i in best], probabilities[best].tolist())


def _checked(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3) or not image.size:
        raise DataError(f"an image is uint8 (height, width, 1 or 3); got {image.dtype} {image.shape}")
    return image


def _open_onnx(path: Path, threads: int | None) -> tuple[Logits, list[str], Preprocessing]:
    from convarium.deploy.onnx import load_onnx

    session, class_names, preprocessing = load_onnx(path, threads)

    def logits(images: np.ndarray) -> np.ndarray:
        return session.run(None, {"image": images})[0]

    return logits, class_names, preprocessing


def _open_run(path: Path, threads: int | None) -> tuple[Logits, list[str], Preprocessing]:
    import torch

    from convarium.data.resize import Preprocess
    from convarium.runs import load_run

    run = load_run(path)
    network = torch.nn.Sequential(Preprocess(run.preprocessing), run.model)
    torch.set_num_threads(threads or run.own.get("threads") or torch.get_num_threads())  # as measured in training

    def logits(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.tensor(images)).numpy()

    return logits, run.class_names, run.preprocessing
