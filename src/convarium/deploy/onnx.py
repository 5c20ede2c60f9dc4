"""ONNX files that need nothing of this project: uint8 images of any size in, logits out, everything else inside.

A file appears only when onnxruntime gives what torch gives.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convarium.atomic import replacing
from convarium.data.preprocess import Preprocessing
from convarium.errors import ConvariumError, DataError, GateError, UsageError, require

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from torch import nn

OPSET = 18  # what torch's exporter writes without converting; runtimes since early 2023 read it
TOLERANCE = 1e-4
TASK = "image-classification"


@dataclass(frozen=True)
class Parity:
    """How an exported file compares with torch.

    Attributes:
        images: how many were compared.
        largest_difference: of their logits, relative to the largest logit of the image or to 1 if that is less.
        tolerance: what ``largest_difference`` may be.
        opset: version of the ONNX operators in the file.
        bytes: size of the file.
    """

    images: int
    largest_difference: float
    tolerance: float
    opset: int
    bytes: int


def export_onnx(
    model: nn.Module,
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    path: Path,
    *,
    metadata: dict[str, str],
    parity_images: list[np.ndarray],
) -> Parity:
    """Write ``model`` with its preprocessing as one ONNX file, or raise and leave ``path`` as it was.

    The input ``image`` is uint8 ``(batch, height, width, channels)``; the output ``logits``, ``(batch, classes)``.

    Args:
        model: ``(N, C, size, size)`` to logits, on the CPU; it is put in evaluation mode.
        preprocessing: becomes the first part of the graph.
        class_names: in the order of the logits.
        path: the file to write or replace.
        metadata: more keys for the file's properties, beside ours.
        parity_images: ``(H, W, C)`` uint8 of any size, compared beside made-up images of awkward sizes.

    Raises:
        GateError: the file is not valid ONNX, or does not agree with torch.
        ConvariumError: torch cannot export the model, or the file cannot be written.
        UsageError: the number of names is not that of the logits.
    """
    import torch
    from torch import nn

    from convarium.data.resize import Preprocess

    graph = nn.Sequential(Preprocess(preprocessing), model).eval()
    batches = [*(np.ascontiguousarray(image)[None] for image in parity_images), *_awkward_batches(preprocessing)]
    with torch.inference_mode():
        expected = [graph(torch.tensor(batch)).numpy() for batch in batches]
    if expected[0].shape[1] != len(class_names):
        raise UsageError(f"the model has {expected[0].shape[1]} outputs for {len(class_names)} class names")
    program = _convert(graph, preprocessing)
    program.model.metadata_props.update({**metadata, **_to_properties(preprocessing, class_names)})
    with replacing(path) as temporary:
        program.save(temporary, external_data=False)
        _check_file(temporary)
        session, *_ = load_onnx(temporary)
        largest = max(_compare(session, batch, logits) for batch, logits in zip(batches, expected, strict=True))
        size = temporary.stat().st_size
    return Parity(sum(map(len, batches)), largest, TOLERANCE, OPSET, size)


def load_onnx(path: Path, threads: int | None = None) -> tuple[InferenceSession, list[str], Preprocessing]:
    """Open a file that :func:`export_onnx` wrote; torch is not imported.

    Args:
        path: the file.
        threads: for one forward; ``None`` lets onnxruntime use every core.

    Returns:
        A session from ``image`` to ``logits``, the class names in their order, and the preprocessing inside the graph.

    Raises:
        DataError: no such file, one that is not ONNX, or one that something else wrote.
        UsageError: onnxruntime is missing.
    """
    require("onnxruntime", "onnx")
    import onnxruntime

    if not path.is_file():
        raise DataError(f"no exported file {path}: write one first (convarium export RUN)")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no narrower base
        raise DataError(f"{path} is not an ONNX file that can be run: {_first_line(error)}") from error
    try:
        names, preprocessing = _from_properties(session.get_modelmeta().custom_metadata_map)
    except (KeyError, TypeError, ValueError) as error:
        missing = f"no {error}" if isinstance(error, KeyError) else _first_line(error)
        raise DataError(
            f"{path} does not say how to use it ({missing} in its metadata): write it with convarium export RUN"
        ) from None
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if [node.name for node in inputs] != ["image"] or [node.shape[1:] for node in outputs] != [[len(names)]]:
        raise DataError(f"{path} does not map one image to the logits of its {len(names)} class names")
    return session, names, preprocessing


def _to_properties(preprocessing: Preprocessing, class_names: Sequence[str]) -> dict[str, str]:
    values = {
        "names": list(class_names),
        "input_size": [preprocessing.channels, preprocessing.size, preprocessing.size],
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "crop_pct": preprocessing.crop_pct,
    }
    texts = {"interpolation": preprocessing.interpolation, "task": TASK}
    return {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()} | texts


def _from_properties(properties: dict[str, str]) -> tuple[list[str], Preprocessing]:
    keys = ("names", "input_size", "mean", "std", "crop_pct")
    names, (channels, size, _), mean, std, crop_pct = (json.loads(properties[key]) for key in keys)
    return names, Preprocessing(size, channels, tuple(mean), tuple(std), crop_pct, properties["interpolation"])


def _convert(graph: nn.Module, preprocessing: Preprocessing) -> Any:
    """``graph`` as an ``ONNXProgram``, without the exporter's remarks on where each node came from."""
    import torch
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass
    from torch.export import Dim

    # Sides that differ from each other and from the crop's, so that none is taken for a constant.
    example = torch.zeros(2, preprocessing.size + 5, preprocessing.size + 9, preprocessing.channels, dtype=torch.uint8)
    try:
        with _quiet():
            program: Any = torch.onnx.export(
                graph,
                (example,),
                input_names=["image"],
                output_names=["logits"],
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes=({0: Dim("batch"), 1: Dim("height"), 2: Dim("width")},),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason: BaseException = error
        while reason.__cause__:
            reason = reason.__cause__
        raise ConvariumError(f"torch cannot export this model to ONNX: {_first_line(reason)}") from error
    ClearMetadataAndDocStringPass()(program.model)
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's warnings and listings off the terminal; its errors are exceptions and pass."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _check_file(path: Path) -> None:
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GateError(f"the exported file is not valid ONNX, and is not kept: {_first_line(error)}") from error


def _compare(session: InferenceSession, batch: np.ndarray, expected: np.ndarray) -> float:
    """The largest relative difference between the file's logits and torch's, or a :class:`GateError`."""
    (received,) = session.run(None, {"image": batch})
    scale = np.maximum(1, np.abs(expected).max(axis=1))
    difference = float((np.abs(received - expected).max(axis=1) / scale).max())
    best_two = np.sort(expected, axis=1)[:, -2:]
    decided = (best_two[:, -1] - best_two[:, 0]) / scale > TOLERANCE
    flipped = int((decided & (received.argmax(axis=1) != expected.argmax(axis=1))).sum())
    if flipped or not difference <= TOLERANCE:  # not ">": NaN fails too
        count, height, width, _ = batch.shape
        raise GateError(
            f"the exported file does not agree with torch, and is not kept: on {count} images of {height}x{width} its "
            f"logits differ by {difference:.1e} of the largest (at most {TOLERANCE:.0e} is allowed) and {flipped} "
            "have another best class"
        )
    return difference


def _awkward_batches(preprocessing: Preprocessing) -> list[np.ndarray]:
    """Images smaller than the crop, equal to it, many times it, long and thin, and three at once."""
    size = preprocessing.size
    shapes = [
        (1, size // 4 + 1, size // 3 + 1),
        (1, size, size),
        (1, 7 * size + 3, 5 * size),
        (1, size // 2 + 1, 20 * size),
        (3, 2 * size + 1, size + 5),
    ]
    generator = np.random.default_rng(0)
    return [_patches_and_noise(generator, (*shape, preprocessing.channels)) for shape in shapes]


def _patches_and_noise(generator: np.random.Generator, shape: tuple[int, int, int, int]) -> np.ndarray:
    """Noise, which shows a resize that skips pixels, on 5x5 patches, which are still seen after any resize."""
    count, height, width, channels = shape
    patches = generator.integers(0, 128, (count, 5, 5, channels))
    rows, columns = (np.arange(side) * 5 // side for side in (height, width))
    return (patches[:, rows][:, :, columns] + generator.integers(0, 128, shape)).astype(np.uint8)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
