"""OpenVINO's form of an exported file: an .xml and, beside it, the weights in a .bin of the same name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from convarium.atomic import make_folder
from convarium.data.preprocess import Preprocessing
from convarium.deploy.metadata import from_properties
from convarium.errors import ConvariumError, DataError, require

# What is not in int8 is in float32, also where the processor would rather round to bfloat16.
PRECISION = {"INFERENCE_PRECISION_HINT": "f32"}


def write_ir(onnx_file: Path, path: Path) -> None:
    """Write an exported ONNX file as ``path``, which ends in .xml, its weights in float32; the metadata goes along."""
    import openvino

    openvino.save_model(openvino.convert_model(onnx_file), path, compress_to_fp16=False)


def load_openvino(
    path: Path, threads: int | None = None, cache: Path | None = None
) -> tuple[Callable[[np.ndarray], np.ndarray], list[str], Preprocessing]:
    """Open an exported .xml or .onnx file; torch is not imported.

    Args:
        path: the file.
        threads: for one forward; ``None`` leaves it to OpenVINO.
        cache: a folder for what OpenVINO makes of the file for this processor, read from there the next time.

    Returns:
        A function from uint8 ``(N, H, W, C)`` to float32 logits, the class names in their order, and the preprocessing
        inside the graph.

    Raises:
        DataError: no such file, one that OpenVINO cannot read, or one that something else wrote.
        UsageError: OpenVINO is missing.
    """
    model = _read(path)
    names, preprocessing = from_properties(path, _properties(model))
    outputs = [output.partial_shape[1] for output in model.outputs]
    if [value.any_name for value in model.inputs] != ["image"] or outputs != [len(names)]:
        raise DataError(f"{path} does not map one image to the logits of its {len(names)} class names")
    return _compiled(path, model, threads, cache), names, preprocessing


def open_openvino(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """What a file of one input and one output gives, whoever wrote it; raises as :func:`load_openvino`."""
    return _compiled(path, _read(path))


def _read(path: Path) -> Any:
    require("openvino", "openvino")
    if not path.is_file():
        raise DataError(f"no exported file {path}: write one first (convarium export RUN --format openvino)")
    if path.suffix == ".xml" and not path.with_suffix(".bin").is_file():
        raise DataError(f"{path} lacks its weights: {path.with_suffix('.bin').name} belongs beside it")
    try:
        return _core().read_model(path)
    except RuntimeError as error:
        raise DataError(f"{path} is not a file that OpenVINO can read: {_last_line(error)}") from None


def _compiled(
    path: Path, model: Any, threads: int | None = None, cache: Path | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    settings: dict[str, Any] = dict(PRECISION)
    if cache:
        settings["CACHE_DIR"] = str(cache)
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        compiled = _core().compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise DataError(f"OpenVINO cannot run {path} on this processor: {_last_line(error)}") from None
    request = compiled.create_infer_request()
    return lambda batch: request.infer([batch])[0]


@functools.cache
def _core() -> Any:
    """One for the process. OpenVINO's processor plugin gives the thread that first needs it a signal stack, and frees
    that with its core, be it on another thread: the next Ctrl-C would then end in a segmentation fault."""
    import openvino

    return openvino.Core()


def _properties(model: Any) -> dict[str, str]:
    """An ONNX file's metadata, which OpenVINO keeps under the name of where the model came from."""
    information = model.get_rt_info()
    if "framework" not in information:
        return {}
    return {key: value.astype(str) for key, value in information["framework"].items()}


def model_cache() -> Path | None:
    """Where OpenVINO keeps what it has compiled, in the user's cache; ``None`` where nothing can be written."""
    from convarium.weights.cache import cache_folder

    try:
        folder = cache_folder() / "openvino"
        folder.parent.mkdir(parents=True, exist_ok=True)
        make_folder(folder)
    except (OSError, ConvariumError):
        return None
    return folder


def _last_line(error: RuntimeError) -> str:
    """OpenVINO says first where in its own code it was, and then what was wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
