"""ONNX files that need nothing of this project: uint8 images of any size in, logits out, everything else inside.

A file appears only when onnxruntime gives what torch gives.
"""

from __future__ import annotations

import io
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
from convarium.deploy.inputs import Input, image_batches, image_input
from convarium.deploy.metadata import from_properties, to_properties
from convarium.deploy.parity import TOLERANCE, Logits, largest_difference, torch_reference
from convarium.errors import ConvariumError, DataError, GateError, UsageError, require

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from torch import nn

OPSET = 18  # what torch's exporter writes without converting; runtimes since early 2023 read it


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
    from torch import nn

    from convarium.data.resize import Preprocess

    graph = nn.Sequential(Preprocess(preprocessing), model).eval()
    reference = torch_reference(graph, image_batches(preprocessing, parity_images))
    if reference.classes != len(class_names):
        raise UsageError(f"the model has {reference.classes} outputs for {len(class_names)} class names")
    with replacing(path) as temporary:
        write_onnx(graph, image_input(preprocessing), temporary, metadata | to_properties(preprocessing, class_names))
        largest = largest_difference(open_onnx(temporary), reference)
        size = temporary.stat().st_size
    return Parity(reference.images, largest, TOLERANCE, OPSET, size)


def write_onnx(graph: nn.Module, takes: Input, path: Path, properties: dict[str, str]) -> None:
    """Write ``graph`` as a valid ONNX file that says ``properties``; nothing is compared.

    Raises:
        GateError: the file is not valid ONNX.
        ConvariumError: torch cannot export the model.
    """
    program = _convert(graph, takes)
    program.model.metadata_props.update(properties)
    program.save(path, external_data=False)
    _check_file(path)


def open_onnx(path: Path) -> Logits:
    """What a file of one input and one output gives, whoever wrote it; raises as :func:`load_onnx`."""
    session = _session(path, None)
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


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
    session = _session(path, threads)
    names, preprocessing = from_properties(path, session.get_modelmeta().custom_metadata_map)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if [node.name for node in inputs] != ["image"] or [node.shape[1:] for node in outputs] != [[len(names)]]:
        raise DataError(f"{path} does not map one image to the logits of its {len(names)} class names")
    return session, names, preprocessing


def _session(path: Path, threads: int | None) -> InferenceSession:
    require("onnxruntime", "onnx")
    import onnxruntime

    if not path.is_file():
        raise DataError(f"no exported file {path}: write one first (convarium export RUN)")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no narrower base
        raise DataError(f"{path} is not an ONNX file that can be run: {_first_line(error)}") from error


def _convert(graph: nn.Module, takes: Input) -> Any:
    """``graph`` as an ``ONNXProgram``, without the exporter's remarks on where each node came from."""
    import torch
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    try:
        with quiet():
            program: Any = torch.onnx.export(
                graph,
                (takes.example,),
                input_names=[takes.name],
                output_names=["logits"],
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes=(takes.dynamic,),
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
def quiet() -> Iterator[None]:
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


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
