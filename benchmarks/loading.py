"""What loading costs: `create_model(name, weights=FILE)` against reading the same file with safetensors.

python benchmarks/loading.py > benchmarks/loading.md

The files are random weights as their library writes them. Milliseconds are medians of rounds that take turns in one
process, which has loaded another network before; "cold" are those for which the system forgot the file first.
safetensors maps a file and reads nothing of it until it is used, so that "reading" is mapping it and copying every
tensor into memory of its own, which is how loading leaves them. "Building" is the network on the meta device, without
weights. Memory is the peak of a process of its own above what it held before, in sizes of the file.
"""

import contextlib
import io
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from convarium import create_model
from convarium.networks import create_on_meta
from convarium.weights.layouts import find_layout

ROUNDS = 11
FILES = (
    ("resnet50_v1_5", "torchvision"),
    ("inception_v4", "timm"),
    ("senet154", "timm"),
    ("vgg16", "torchvision"),
)
WARM = "squeezenet1_1"


def read(path: Path) -> None:
    tensors = {key: tensor.clone() for key, tensor in load_file(path).items()}
    assert tensors


def load(name: str, path: Path) -> None:
    with contextlib.redirect_stderr(io.StringIO()):  # what is said about files of unknown origin
        create_model(name, weights=path)


def forget(path: Path) -> None:
    """Have the system read the file from the disk when it is next asked for."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def taking(work: Callable[[], object], path: Path, cold: bool) -> float:
    if cold:
        forget(path)
    return seconds(work)


def peak_bytes() -> int:
    """Of this program alone: what getrusage tells is handed down to it by the one that started it."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


def print_growth(name: str, path: Path, warm: Path) -> None:
    """In a process of its own: how much its peak grows as it loads one file after another."""
    load(WARM, warm)
    before = peak_bytes()
    load(name, path)
    print(peak_bytes() - before)


def growth(*arguments: str | Path) -> int:
    command = [sys.executable, __file__, *map(str, arguments)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def write(folder: Path, name: str, library: str) -> Path:
    layout = find_layout(library, name)
    assert layout is not None
    path = folder / f"{name}.safetensors"
    save_file(layout.save(create_model(name)), path)
    return path


def main() -> None:
    torch.manual_seed(0)
    cores = os.cpu_count()
    print("# What loading weights costs\n")
    print(
        f"`python benchmarks/loading.py`: median of {ROUNDS} rounds in turn, {cores} cores, torch {torch.__version__}."
    )
    print(
        "Allowed are 1.3 times reading the file with safetensors, and 1.2 times its size in memory. Where the file is"
    )
    print("in memory already, what a network of many layers costs is building them and naming their tensors.\n")
    print(
        "| network | library | MB | building | reading | loading | of reading | cold reading | cold loading "
        "| of reading | peak, of the size |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        warm = write(folder, WARM, "torchvision")
        for name, library in FILES:
            path = write(folder, name, library)
            size = path.stat().st_size
            memory = growth(name, path, warm) / size
            building = statistics.median(seconds(partial(create_on_meta, name)) for _ in range(ROUNDS))
            works = partial(read, path), partial(load, name, path)
            cells = [name, library, f"{size / 1e6:.0f}", f"{1000 * building:.0f}"]
            for cold in (False, True):
                times = [[taking(work, path, cold) for work in works] for _ in range(ROUNDS + 1)][1:]
                cells += [f"{1000 * statistics.median(column):.0f}" for column in zip(*times, strict=True)]
                cells.append(f"{statistics.median(last / first for first, last in times):.2f}")
            print(f"| {' | '.join(cells)} | {memory:.2f} |", flush=True)
            path.unlink()


if __name__ == "__main__":
    print_growth(sys.argv[1], *map(Path, sys.argv[2:])) if sys.argv[1:] else main()
