"""One run quantised in several ways, each judged and timed beside float in the same runtime."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from convarium import __version__
from convarium.compression import int8
from convarium.compression.layers import PREPROCESSING, in_groups, layers_of_nodes
from convarium.compression.quantised import TIMED_BATCH, Attempt
from convarium.compression.samples import Logits, Samples
from convarium.compression.sensitivity import sqnr_db
from convarium.console import counting, stderr
from convarium.deploy.export import FORMATS
from convarium.evaluation.latency import in_turns
from convarium.evaluation.statistics import paired_test
from convarium.runs import Run

MOST_GROUPS = 64  # of layers, whose sensitivity is measured one by one
FEW_SAMPLES = 16  # for that


class Backend(NamedTuple):
    """A runtime: what writes its int8 file, what opens it, how the file ends, and what to install: module to extra."""

    quantise: Callable[[Path, Path, Samples, int8.Settings], None]
    open: Callable[[Path], Logits]
    suffix: str
    needs: dict[str, str]


ONNX = {"onnx": "onnx", "onnxscript": "onnx", "onnxruntime": "onnx"}
OPENVINO = {"openvino": "openvino", "nncf": "openvino"}
BACKENDS = {
    "openvino": Backend(int8.quantise_openvino, FORMATS["openvino"].open, ".xml", {**OPENVINO, **ONNX}),
    "onnxruntime": Backend(int8.quantise_onnxruntime, FORMATS["onnx"].open, ".onnx", ONNX),
}


class Trials:
    """Ways to quantise a run, with their files in ``folder``.

    Attributes:
        source: the run exported in float.
        groups: the layers, each by itself or, where there are more than :data:`MOST_GROUPS`, by blocks or stages.
        seven_bits: whether weights have seven bits.
        float_wrong: ``(n,)``, true for each judging image that float takes for another class.
        attempts: what was tried so far.
    """

    def __init__(self, run: Run, backend: Backend, calibration: Samples, judges: Samples, folder: Path) -> None:
        self.backend, self.calibration, self.judges, self.folder = backend, calibration, judges, folder
        self.source = folder / "float.onnx"
        self.groups = in_groups(_export(run, self.source), MOST_GROUPS)
        self.seven_bits = not int8.has_vnni()
        self.float_network = backend.open(self.source)
        self.float_wrong = self._wrong(self.float_network, "judging float")
        size, channels = run.preprocessing.size, run.preprocessing.channels
        self.timed = np.zeros((TIMED_BATCH, size, size, channels), np.uint8)
        self.attempts: list[Attempt] = []

    def attempt(self, in_float: Sequence[str]) -> Attempt:
        """Quantise all layers but the groups ``in_float``, and measure."""
        file = self._file(len(self.attempts))
        with stderr().status(f"quantising, with the ranges of {len(self.calibration)} images"):
            self._quantise(file, self.calibration, in_float)
        network = self.backend.open(file)
        wrong = self._wrong(network, "judging int8")
        attempt = Attempt(
            in_float=list(in_float),
            difference=paired_test(self.float_wrong, wrong, first="float", second="int8"),
            speed_up=speed_up(self.float_network, network, self.timed),
            bytes=sum(part.stat().st_size for part in parts(file)),
        )
        self.attempts.append(attempt)
        return attempt

    def files(self, attempt: Attempt) -> list[Path]:
        return parts(self._file(self.attempts.index(attempt)))

    def sensitivity(self) -> dict[str, float]:
        """Signal to noise of the logits, in decibels, with each group of layers alone in int8; the worst first."""
        few, file = self.calibration.first(FEW_SAMPLES), self.folder / f"alone{self.backend.suffix}"
        exact = few.logits(self.float_network)
        found: dict[str, float] = {}
        with counting("measuring the layers", len(self.groups)) as tick:
            for group in self.groups:
                self._quantise(file, few, [other for other in self.groups if other != group])
                found[group] = sqnr_db(exact, few.logits(self.backend.open(file)))
                tick(len(found))
        return dict(sorted(found.items(), key=lambda item: item[1]))

    def _file(self, number: int) -> Path:
        return self.folder / f"{number}{self.backend.suffix}"

    def _quantise(self, file: Path, samples: Samples, in_float: Sequence[str]) -> None:
        layers = {layer for group in in_float for layer in self.groups[group]}
        self.backend.quantise(self.source, file, samples, int8.Settings(self.seven_bits, layers))

    def _wrong(self, network: Logits, what: str) -> np.ndarray:
        with counting(what, len(self.judges)) as tick:
            return self.judges.logits(network, tick).argmax(axis=1) != self.judges.labels


def parts(file: Path) -> list[Path]:
    """An exported file, and what belongs to it before it: OpenVINO's weights."""
    return [part for part in (file.with_suffix(".bin"), file) if part.exists()]


def speed_up(before: Logits, after: Logits, images: np.ndarray) -> float:
    """How many times as fast the second network is: the median of ratios taken within a round."""
    works = {"before": lambda: before(images), "after": lambda: after(images)}
    times = in_turns(works, rounds=15, seconds=2.0, shortest_s=0.005)
    return statistics.median(slow / fast for slow, fast in zip(times["before"], times["after"], strict=True))


def _export(run: Run, path: Path) -> list[str]:
    """Write the run in float, and return the names of its layers."""
    import onnx

    from convarium.deploy.onnx import export_onnx

    metadata = {"architecture": run.model.name, "class_hash": run.own["class_hash"], "convarium": __version__}
    with stderr().status("exporting in float"):
        export_onnx(run.model, run.preprocessing, run.class_names, path, metadata=metadata, parity_images=[])
    graph = onnx.load(path, load_external_data=False).graph
    return [layer for layer in dict.fromkeys(layers_of_nodes(graph).values()) if layer != PREPROCESSING]
