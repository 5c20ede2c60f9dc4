"""What is measured on runtimes: a network on each of them, in float32 and int8."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from convarium.console import stderr
from convarium.data.datasets import check_classes
from convarium.deploy.parity import Logits
from convarium.deploy.runtimes import Opened, open_in, run_logits, runtimes_for
from convarium.errors import UsageError, check_choice, require
from convarium.networks import CATALOGUE
from convarium.runs import Run, find_run, load_run

if TYPE_CHECKING:
    from torch import nn

    from convarium.data.datasets import Dataset

FLOAT32, INT8, FILE = "float32", "int8", "as exported"
RANGES = 64  # images that int8's ranges are taken from
# Runtime to what it needs: module to extra.
NEEDS: dict[str, dict[str, str]] = {
    "torch": {},
    "compile": {},
    "onnxruntime": {"onnx": "onnx", "onnxscript": "onnx", "onnxruntime": "onnx"},
    "openvino": {"onnx": "onnx", "onnxscript": "onnx", "openvino": "openvino"},
}


class Variant(NamedTuple):
    """A network on a runtime: what lies where, and what answers. ``class_names`` are ``None`` of one with random
    weights, whose error means nothing."""

    network: str
    runtime: str
    form: str
    source: Path
    run: Run | None
    logits: Logits
    size: int
    channels: int
    class_names: list[str] | None


def choose_runtimes(runtimes: str, int8: bool) -> list[str]:
    """The runtimes that were asked for, or all that are installed.

    Raises:
        UsageError: one that is not known, or not installed.
    """
    if runtimes == "all":
        chosen = [name for name, needs in NEEDS.items() if all(map(find_spec, needs))]
        return [name for name in chosen if name != "compile" or _compiler()]
    chosen = [name.strip() for name in runtimes.split(",")]
    for name in chosen:
        check_choice("--runtimes", name, NEEDS)
        for module, extra in NEEDS[name].items():
            require(module, extra)
        if name == "compile" and not _compiler():
            raise UsageError("torch.compile needs a C++ compiler, such as g++: install one, or leave compile out")
    if int8 and not {"onnxruntime", "openvino"}.intersection(chosen):
        raise UsageError(f"--int8 is of onnxruntime and openvino; the runtimes are {', '.join(chosen)}")
    return chosen


def _compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "")) or shutil.which("g++") or shutil.which("clang++")


def find_variants(
    name: str, runtimes: Sequence[str], *, int8: bool, image_size: int | None, dataset: Dataset | None, folder: Path
) -> Iterator[Variant]:
    """A catalogue name, a run folder or an exported file on each of ``runtimes``, on as many threads as torch has.

    Args:
        name: which.
        runtimes: as :func:`choose_runtimes` gives them.
        int8: in int8 too.
        image_size: as for :func:`convarium.speed.benchmark.benchmark`.
        dataset: its training images give the ranges of int8.
        folder: where files that this takes are written; it does not exist yet.
    """
    folder.mkdir()
    if Path(name).is_file():
        yield from _of_file(name, runtimes, image_size, dataset)
        return
    run = _as_run(name, image_size, folder)
    class_names = None if name in CATALOGUE else run.class_names
    if dataset and class_names:
        check_classes(dataset, class_names)
    made = partial(
        Variant,
        name,
        run=run,
        size=run.preprocessing.size,
        channels=run.preprocessing.channels,
        class_names=class_names,
    )
    yield from _of_run(made, run, runtimes, int8, dataset if class_names else None, folder)


def _as_run(name: str, image_size: int | None, folder: Path) -> Run:
    """A run folder; of a catalogue name, or for images of another size, one that is written for the purpose."""
    from convarium.anatomy.describe import describe
    from convarium.data.preprocess import Preprocessing
    from convarium.networks import create_model
    from convarium.runs import save_run

    run = find_run(name)
    if run and image_size in (None, run.preprocessing.size):
        return run
    if run is None:
        described = describe(name, input_size=image_size)  # refuses a bad size before any weights are made
        model = create_model(name)
        channels, size, _ = described.input_size
        settings = Preprocessing(size, channels, model.mean, model.std, model.crop_pct, model.interpolation)
        names = [str(number) for number in range(model.head.num_classes)]
        save_run(folder, model, settings, names, data={"name": "none", "fingerprint": "", "seed": 0})
    else:
        assert image_size is not None
        side = run.preprocessing.channels, image_size, image_size
        describe(run.model, input_size=side)
        settings = replace(run.preprocessing, size=image_size)
        save_run(folder, run.model, settings, run.class_names, data=run.own["data"])
    return load_run(folder)


def _of_run(
    made: Callable[..., Variant], run: Run, runtimes: Sequence[str], int8: bool, dataset: Dataset | None, folder: Path
) -> Iterator[Variant]:
    from convarium.deploy.export import export

    floats = folder / "float.onnx"
    if {"onnxruntime", "openvino"}.intersection(runtimes):
        export(run.path, output=floats)
    for runtime in runtimes:
        if runtime == "torch":
            yield made(runtime, FLOAT32, run.path, logits=run_logits(run))
        elif runtime == "compile":
            yield made(runtime, FLOAT32, run.path, logits=run_logits(run, _compiled))
        else:
            yield made(runtime, FLOAT32, floats, logits=_open(runtime, floats).logits)
            if int8:
                file = _quantised(run, floats, runtime, dataset, folder)
                yield made(runtime, INT8, file, logits=_open(runtime, file).logits)


def _of_file(name: str, runtimes: Sequence[str], image_size: int | None, dataset: Dataset | None) -> Iterator[Variant]:
    path = Path(name)
    if image_size:
        raise UsageError(f"the image size of {name} is fixed: leave --image-size out, or give its run folder")
    able = [runtime for runtime in runtimes_for(path) if runtime in runtimes]
    if not able:
        raise UsageError(f"{name} opens in {', '.join(runtimes_for(path))}: add that to --runtimes")
    for runtime in able:
        opened = _open(runtime, path)
        if dataset:
            check_classes(dataset, opened.class_names)
        settings = opened.preprocessing
        yield Variant(
            name, runtime, FILE, path, None, opened.logits, settings.size, settings.channels, opened.class_names
        )


def _open(runtime: str, path: Path) -> Opened:
    """As for a prediction, with nothing left in the user's cache of compiled networks."""
    import torch

    threads = torch.get_num_threads()
    if runtime == "openvino":
        from convarium.deploy.openvino import load_openvino

        return Opened(*load_openvino(path, threads), runtime, threads)
    return open_in(runtime, path, threads)


def _compiled(network: nn.Module) -> nn.Module:
    import torch

    return torch.compile(network, dynamic=False)  # type: ignore[return-value]


class _Noise:
    """Images to take ranges from where there are none of the user's: what the numbers are is the same to the clock."""

    def __init__(self, size: int, channels: int) -> None:
        self.shape = 1, size, size, channels

    def __len__(self) -> int:
        return RANGES

    def __iter__(self) -> Iterator[np.ndarray]:
        generator = np.random.default_rng(0)
        for _ in range(len(self)):
            yield generator.integers(0, 256, self.shape, dtype=np.uint8)


def _quantised(run: Run, floats: Path, runtime: str, dataset: Dataset | None, folder: Path) -> Path:
    """All layers in int8, whatever that costs in error."""
    from convarium.compression.int8 import Settings, has_vnni
    from convarium.compression.samples import choose_samples
    from convarium.compression.trials import BACKENDS

    for module, extra in BACKENDS[runtime].needs.items():
        require(module, extra)
    settings = run.preprocessing
    samples: Any = _Noise(settings.size, settings.channels)
    if dataset:
        samples, _ = choose_samples(run, dataset, RANGES)
    file = folder / f"int8-{runtime}{BACKENDS[runtime].suffix}"
    with stderr().status(f"quantising for {runtime}"):
        BACKENDS[runtime].quantise(floats, file, samples, Settings(seven_bits=not has_vnni()))
    return file
