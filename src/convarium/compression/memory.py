"""The most memory that a process of its own takes to open a network and answer: ``python -m`` this module."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

STATUS = Path("/proc/self/status")


def peak_memory_mib(runtime: str, source: Path, shape: tuple[int, int, int, int]) -> float | None:
    """Mebibytes of a fresh process that answers one image and then a batch, its runtime and its libraries among them;
    ``None`` where the system does not tell, or has stopped that process.

    Args:
        runtime: ``openvino`` or ``onnxruntime`` for a file, ``torch`` for a run folder.
        source: the file or the folder.
        shape: ``(N, H, W, C)`` of the batch.
    """
    if not STATUS.exists():
        return None
    command = [sys.executable, "-m", __name__, runtime, str(source), *map(str, shape)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return int(ended.stdout.split()[-1]) / 2**10 if ended.returncode == 0 else None


def _open(runtime: str, source: Path) -> Callable[[np.ndarray], Any]:
    """Opened with nothing else imported than it takes: torch alone is larger than a network in its runtime."""
    if runtime == "torch":
        from convarium.compression.measure import open_run

        return open_run(source)
    from convarium.deploy.export import FORMATS

    return FORMATS["onnx" if runtime == "onnxruntime" else runtime].open(source)


def main(runtime: str, source: str, *shape: str) -> None:
    images = np.zeros([int(side) for side in shape], np.uint8)
    network = _open(runtime, Path(source))
    network(images[:1])
    network(images)
    # Of this program alone: getrusage's number begins with that of the process which started this one.
    peak = next(line for line in STATUS.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
    print(peak.split()[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
