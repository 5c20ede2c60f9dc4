"""The predictor: names with probabilities for images, from a run folder (torch) or an exported file (without torch)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convarium.deploy.runtimes import Opened, open_at_once, open_quickest
from convarium.deploy.seal import check_seal
from convarium.deploy.stream import batches
from convarium.errors import DataError, UsageError
from convarium.evaluation.metrics import softmax


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one image, best first; ``path`` is ``None`` for an image that came as an array.

    Where a file could not be read, ``error`` says why, and there are no classes.
    """

    path: str | None
    labels: list[str]
    probabilities: list[float]
    error: str | None = None


class Predictor:
    """Classifies images of any size. What is not given is measured: the runtime, where several open the file, and
    the threads, unless a run folder says them.

    Args:
        source: an exported ``.onnx`` or ``.xml`` file, or a run folder.
        threads: of one forward. For a run folder this is torch's number of threads, which the whole process shares;
            ``None`` means the number that training measured to be quickest.
        runtime: ``onnxruntime`` or ``openvino`` for a file; a run folder takes ``torch``.

    Attributes:
        class_names: in the order of the logits.
        preprocessing: what is done to an image before the network sees it.
        runtime: what calculates.
        threads: of one forward.
        said: why that runtime and those threads; empty where nothing was measured.

    Raises:
        UsageError: fewer than 1 thread, or a runtime that is missing or does not open the source.
        DataError: a source that cannot be read, or that was altered.
    """

    def __init__(self, source: str | Path, threads: int | None = None, runtime: str | None = None) -> None:
        self._take(open_quickest(_checked(source, threads), runtime, threads))

    @classmethod
    def at_once(cls, source: str | Path, threads: int | None = None, runtime: str | None = None) -> Predictor:
        """Without measuring: what is not given is the runtime that starts soonest, on every core."""
        made = cls.__new__(cls)
        made._take(open_at_once(_checked(source, threads), runtime, threads))
        return made

    def _take(self, opened: Opened) -> None:
        self._logits = opened.logits
        self.class_names, self.preprocessing = opened.class_names, opened.preprocessing
        self.runtime, self.threads, self.said = opened.runtime, opened.threads, opened.said

    def predict(self, images: Iterable[str | Path | np.ndarray], top: int = 5) -> Iterator[Prediction]:
        """One prediction per image, in their order, made as they are asked for; few images are in memory at a time.

        A file that cannot be read has a prediction that says why, and the next ones follow.

        Args:
            images: files, or uint8 arrays ``(H, W, 3)`` or ``(H, W, 1)``.
            top: how many classes to name; all where there are fewer.

        Raises:
            UsageError: ``top`` below 1.
            DataError: an array that is no image.
        """
        if top < 1:
            raise UsageError(f"top must be 1 or more; got {top}")
        return self._predict(images, top)

    def _predict(self, images: Iterable[str | Path | np.ndarray], top: int) -> Iterator[Prediction]:
        for batch in batches(images, self.preprocessing.channels):
            pixels = [image.pixels for image in batch if image.pixels is not None]
            if not pixels:
                yield from (Prediction(image.path, [], [], image.error) for image in batch)
                continue
            for image, row in zip(batch, softmax(self._logits(np.stack(pixels))), strict=True):
                best = np.argsort(-row, kind="stable")[:top]
                yield Prediction(image.path, [self.class_names[i] for i in best], row[best].tolist())


def _checked(source: str | Path, threads: int | None) -> Path:
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be 1 or more; got {threads}")
    path = Path(source)
    if path.is_file() and path.suffix == ".safetensors":
        raise DataError(f"{path} holds weights alone: give its run folder, {path.parent}")
    check_seal(path)
    return path
