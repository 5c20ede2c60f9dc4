"""The runtimes that can open a run or an exported file, and which of them is quickest on this machine."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convarium.data.preprocess import Preprocessing
from convarium.deploy.parity import Logits
from convarium.errors import UsageError, check_choice, require

if TYPE_CHECKING:
    from torch import nn

    from convarium.runs import Run

ROUNDS, SECONDS = 9, 0.4  # of timing
SHORTEST_S = 0.02  # of a measurement: threads of one runtime that wait for work in vain would trouble the next
FEW_THREADS_MS = 10.0  # of a forward below which a second thread may cost more than it gives


@dataclass(frozen=True)
class Opened:
    """A network ready to answer.

    Attributes:
        logits: uint8 ``(N, H, W, C)`` to float32 ``(N, classes)``.
        class_names: in the order of the logits.
        preprocessing: what is done to an image before the network sees it.
        runtime: what calculates.
        threads: of one forward; ``None`` where the runtime decides.
        said: why this runtime and these threads, where they were measured.
    """

    logits: Logits
    class_names: list[str]
    preprocessing: Preprocessing
    runtime: str
    threads: int | None
    said: str = ""


def runtimes_for(source: Path) -> list[str]:
    """The installed ones that open ``source``; the one that starts soonest is first.

    Raises:
        UsageError: none is installed, or ``source`` is a program of torch's.
    """
    if source.suffix == ".xml":
        require("openvino", "openvino")
        return ["openvino"]
    if source.suffix == ".pt2":
        raise UsageError(f"{source} opens in torch alone, torch.export.load({str(source)!r}): give its run folder here")
    if source.suffix == ".onnx" or source.is_file():
        found = [name for name in ("onnxruntime", "openvino") if find_spec(name)]
        if not found:
            require("onnxruntime", "onnx")
        return found
    return ["torch"]


def open_in(runtime: str, source: Path, threads: int | None) -> Opened:
    """Open a run folder or an exported file in one runtime.

    Raises:
        UsageError: a runtime that cannot open it.
        DataError: a source that cannot be read.
    """
    check_choice("runtime", runtime, runtimes_for(source))
    return OPENERS[runtime](source, threads)


def open_at_once(source: Path, runtime: str | None, threads: int | None) -> Opened:
    """Open ``source`` in the runtime that starts soonest, on every core, unless they are given."""
    runtime = runtime or runtimes_for(source)[0]
    return open_in(runtime, source, threads or (None if runtime == "torch" else cores()))


def open_quickest(source: Path, runtime: str | None, threads: int | None) -> Opened:
    """Open ``source``, measuring what is not given: every runtime that can, and for small networks one thread."""
    runtimes = [runtime] if runtime else runtimes_for(source)
    if runtimes == ["torch"]:
        return open_in("torch", source, threads)  # on the threads that training measured
    opened = [open_in(name, source, threads or cores()) for name in runtimes]
    if len(opened) == 1 and threads:
        return opened[0]
    times = _milliseconds(opened)
    best = min(opened, key=lambda each: times[each.runtime, each.threads])
    del opened
    if not threads and cores() > 1 and times[best.runtime, best.threads] < FEW_THREADS_MS:
        on_one = open_in(best.runtime, source, 1)
        times |= _milliseconds([best, on_one])
        best = min((best, on_one), key=lambda each: times[each.runtime, each.threads])
    return Opened(best.logits, best.class_names, best.preprocessing, best.runtime, best.threads, _say(best, times))


def cores() -> int:
    """Of the processor, that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _milliseconds(opened: Sequence[Opened]) -> dict[tuple[str, int | None], float]:
    """Of one image that needs no resizing, by runtime and threads; measured in turns."""
    from convarium.evaluation.latency import in_turns

    settings = opened[0].preprocessing
    image = np.zeros((1, settings.size, settings.size, settings.channels), np.uint8)

    def work(logits: Logits) -> Callable[[], object]:
        return lambda: logits(image)

    works = {(each.runtime, each.threads): work(each.logits) for each in opened}
    times = in_turns(works, rounds=ROUNDS, seconds=SECONDS, shortest_s=SHORTEST_S)
    return {key: 1000 * statistics.median(taken) for key, taken in times.items()}


def _say(best: Opened, times: dict[tuple[str, int | None], float]) -> str:
    def named(runtime: str, threads: int | None) -> str:
        return f"{runtime}, {threads} thread{'s' if threads != 1 else ''}"

    key = best.runtime, best.threads
    others = ", ".join(f"{named(*other)}: {taken:.3g} ms" for other, taken in times.items() if other != key)
    return f"{named(*key)}: {times[key]:.3g} ms an image" + (f" ({others})" if others else "")


def _open_onnxruntime(path: Path, threads: int | None) -> Opened:
    from convarium.deploy.onnx import load_onnx

    session, class_names, preprocessing = load_onnx(path, threads)
    return Opened(
        lambda images: session.run(None, {"image": images})[0], class_names, preprocessing, "onnxruntime", threads
    )


def _open_openvino(path: Path, threads: int | None) -> Opened:
    from convarium.deploy.openvino import load_openvino, model_cache

    return Opened(*load_openvino(path, threads, model_cache()), "openvino", threads)


def _open_torch(path: Path, threads: int | None) -> Opened:
    import torch

    from convarium.runs import load_run

    run = load_run(path)
    count = threads or run.own.get("threads") or torch.get_num_threads()  # as measured in training
    torch.set_num_threads(count)
    return Opened(run_logits(run), run.class_names, run.preprocessing, "torch", count)


def run_logits(run: Run, made: Callable[[nn.Module], nn.Module] = lambda network: network) -> Logits:
    """A loaded run's network with its preprocessing, in torch, or what is ``made`` of it."""
    import torch

    from convarium.data.resize import Preprocess

    network = made(torch.nn.Sequential(Preprocess(run.preprocessing), run.model))

    def logits(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.tensor(images)).numpy()

    return logits


OPENERS: dict[str, Callable[[Path, int | None], Opened]] = {
    "torch": _open_torch,
    "onnxruntime": _open_onnxruntime,
    "openvino": _open_openvino,
}
