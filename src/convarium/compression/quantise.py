"""A run in eight-bit integers as an exported file, or no file where that costs more errors than the budget allows."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from convarium.atomic import replacing
from convarium.compression.quantised import OverBudget, Quantised, Sensitivity
from convarium.compression.samples import choose_samples
from convarium.compression.sensitivity import fewest
from convarium.compression.trials import BACKENDS, Trials
from convarium.data.datasets import Dataset
from convarium.deploy.seal import seal
from convarium.errors import UsageError, check_choice, require
from convarium.runs import Run


def quantise(
    run: Run,
    dataset: Dataset,
    *,
    output: Path,
    backend: Literal["openvino", "onnxruntime"] = "openvino",
    samples: int = 300,
    max_drop: float = 0.5,
) -> Quantised:
    """Write a run in int8 as a file that takes uint8 images of any size; its preprocessing stays in float.

    Where that costs too many errors, the most sensitive layers are left in float, as few as will do and as long as
    int8 is faster.

    Args:
        run: a trained run.
        dataset: its training images give the ranges of the maps; its held-out images judge.
        output: the file: .xml (a .bin is written beside it) for OpenVINO, .onnx for onnxruntime.
        backend: openvino (quantised by NNCF, the quickest on x86), or onnxruntime (one portable file).
        samples: training images for the ranges, as many of each class as there are.
        max_drop: points of top-1 error that int8 may cost.

    Raises:
        UsageError: an option that cannot be met, or a package that is missing.
        DataError: no images to calibrate or to judge on, or classes that are not the run's.
        OverBudget: no way was within the budget (exit code 4); no file is written.
    """
    output = Path(output)
    _check(output, backend, samples, max_drop)
    calibration, judges = choose_samples(run, dataset, samples)
    with TemporaryDirectory(prefix="convarium-") as folder:
        trials = Trials(run, BACKENDS[backend], calibration, judges, Path(folder))
        first = trials.attempt([])
        noise = {} if first.costs_at_most(max_drop) else trials.sensitivity()
        chosen = (
            first
            if first.costs_at_most(max_drop)
            else fewest(
                list(noise),
                trials.attempt,
                fits=lambda tried: tried.costs_at_most(max_drop),
                worth=lambda tried: tried.speed_up > 1,
            )
        )
        best = chosen or min(trials.attempts, key=lambda tried: tried.difference.difference_percent)
        result = Quantised(
            path=str(output) if chosen else None,
            backend=backend,
            weight_bits=7 if trials.seven_bits else 8,
            samples=len(calibration),
            max_drop=max_drop,
            float_error_percent=100 * float(trials.float_wrong.mean()),
            float_bytes=trials.source.stat().st_size,
            best=best,
            attempts=trials.attempts,
            sensitivity=[Sensitivity(layer, decibels, layer in best.in_float) for layer, decibels in noise.items()],
        )
        if not chosen:
            raise OverBudget(result)
        seal(trials.files(chosen)[-1])
        for part in trials.files(chosen):
            with replacing(output.with_suffix(part.suffix)) as temporary:
                shutil.copyfile(part, temporary)
    return result


def _check(output: Path, backend: str, samples: int, max_drop: float) -> None:
    check_choice("backend", backend, BACKENDS)
    for module, extra in BACKENDS[backend].needs.items():
        require(module, extra)
    suffix = BACKENDS[backend].suffix
    if output.suffix != suffix or output.is_dir():
        raise UsageError(f"{backend} writes a file that ends in {suffix}; got {str(output)!r}")
    if not output.parent.is_dir():
        raise UsageError(f"no folder {output.parent} to write {output.name} into: make it first")
    if samples < 1:
        raise UsageError(f"samples must be 1 or more; got {samples}")
    if not 0 <= max_drop <= 100:
        raise UsageError(f"max_drop must be points of error, 0 to 100; got {max_drop}")
