"""Eight-bit integers in two runtimes: OpenVINO, by NNCF, and onnxruntime, by its QDQ nodes.

Both begin from the exported float file, whose preprocessing stays as it is. Weights are signed, with a scale per output
channel; maps have one scale each.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from convarium.compression.layers import PREPROCESSING, last, layers_of_nodes
from convarium.compression.samples import Samples

VNNI_FLAGS = {"avx512_vnni", "avx_vnni"}


def has_vnni(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor adds products of eight-bit numbers without saturation (Intel's vector neural network
    instructions). Without them an x86 processor adds pairs of products in 16 bits, which weights of seven bits always
    fit into. Where the system does not tell: no, since seven bits are right everywhere.
    """
    try:
        with open(cpuinfo, encoding="utf-8") as lines:
            flags = next((line for line in lines if line.startswith("flags")), "")
    except OSError:
        return False
    return not VNNI_FLAGS.isdisjoint(flags.split())


@dataclass(frozen=True)
class Settings:
    """How to quantise.

    Attributes:
        seven_bits: weights of seven bits.
        in_float: layers that are left as they are.
    """

    seven_bits: bool
    in_float: Collection[str] = ()


# -- OpenVINO -----------------------------------------------------------------------------------------------------


def quantise_openvino(source: Path, output: Path, samples: Samples, settings: Settings) -> None:
    """Write the ONNX file ``source`` in int8 as OpenVINO IR: ``output``, which ends in .xml, and a .bin beside it."""
    with _quiet("nncf"):
        import nncf
        import onnx
        import openvino
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        nncf.set_log_level(logging.ERROR)
        model = openvino.convert_model(source)
        layers = dict(_operations(model, layers_of_nodes(onnx.load(source, load_external_data=False).graph)))
        quantised = nncf.quantize(
            model,
            nncf.Dataset(samples),
            subset_size=len(samples),
            ignored_scope=nncf.IgnoredScope(
                names=[name for name, layer in layers.items() if _is_float(layer, settings)], validate=False
            ),
            advanced_parameters=AdvancedQuantizationParameters(
                overflow_fix=OverflowFix.ENABLE if settings.seven_bits else OverflowFix.DISABLE,
                # By default NNCF cuts maps at the mean of their maxima, and corrects biases by what that and rounding
                # shift: the first cost LeNet-5 more than all rounding did, the second ResNet-20.
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
                disable_bias_correction=True,
            ),
        )
        _part_from_preprocessing(quantised, {name for name, layer in layers.items() if layer == PREPROCESSING})
        openvino.save_model(quantised, output, compress_to_fp16=False)
        gc.collect()  # NNCF's own cores end on this thread, whose signal stack they hold (deploy/openvino.py)


def _operations(model: Any, layers: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Names of an ``openvino.Model``'s operations, each with its layer: of one ONNX node OpenVINO makes several, called
    ``node`` and ``node/...``, and some without its name."""
    order = {layer: i for i, layer in enumerate(dict.fromkeys(layers.values()))}
    found: dict[str, str] = {}
    for operation in model.get_ordered_ops():
        name = operation.get_friendly_name()
        if operation.get_type_name() in ("Constant", "Parameter", "Result"):
            continue
        before = (found.get(value.get_source_output().get_node().get_friendly_name()) for value in operation.inputs())
        found[name] = layers.get(name.partition("/")[0]) or last(before, order)
        yield name, found[name]


def _part_from_preprocessing(model: Any, preprocessing: Collection[str]) -> None:
    """Put a minimum between the preprocessing and the rounding of its result: no change, since rounding cuts
    there as well.

    Without it, and where OpenVINO calculates in bfloat16 (its default on processors that have it), it makes one of
    normalising, rounding and the matrix product before them, takes columns for channels, and refuses the file.
    """
    from openvino import opset13

    for operation in model.get_ops():
        if operation.get_type_name() != "FakeQuantize":
            continue
        values, highest = operation.input(0).get_source_output(), operation.input(2).get_source_output()
        if values.get_node().get_friendly_name() in preprocessing:
            operation.input(0).replace_source_output(opset13.minimum(values, highest).output(0))
    model.validate_nodes_and_infer_types()


# -- onnxruntime --------------------------------------------------------------------------------------------------


def quantise_onnxruntime(source: Path, output: Path, samples: Samples, settings: Settings) -> None:
    """Write the ONNX file ``source`` in int8 as another, ``output``."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images = iter(samples)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {"image": image}

    graph = onnx.load(source).graph
    in_float = {name for name, layer in layers_of_nodes(graph).items() if _is_float(layer, settings)}
    with _quiet("root"), np.errstate(invalid="ignore"):  # scales of unbounded maps, which are calculated in vain
        quantize_static(
            source,
            output,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=settings.seven_bits,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=sorted(in_float | _unbounded(graph)),
        )


def _unbounded(graph: Any) -> set[str]:
    """Nodes that read a number which is not finite, as a padding before a maximum does: such a map has no scale."""
    from onnx.numpy_helper import to_array

    values = ((tensor.name, to_array(tensor)) for tensor in graph.initializer)
    infinite = {name for name, value in values if value.dtype.kind == "f" and not np.isfinite(value).all()}
    return {node.name for node in graph.node if infinite.intersection(node.input)}


# -----------------------------------------------------------------------------------------------------------------


def _is_float(layer: str, settings: Settings) -> bool:
    return layer == PREPROCESSING or layer in settings.in_float


@contextmanager
def _quiet(logger_name: str) -> Iterator[None]:
    """Keep the quantisers' remarks and bars off the terminal; their errors are exceptions and pass."""
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        logger.setLevel(level)
