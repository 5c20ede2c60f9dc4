"""The machine that is measured on: what it is, and how quickly it multiplies matrices."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from convarium.evaluation.latency import Work

SIDES = (512, 1024, 2048, 4096, 8192)  # of the matrices
LONGEST_PRODUCT_S = 0.25


@dataclass(frozen=True)
class Machine:
    """What was measured on. ``cores`` are those this process may use."""

    device: str
    cores: int
    torch_version: str


def this_machine(device: torch.device) -> Machine:
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(device=name, cores=cores, torch_version=str(torch.__version__))


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def product(side: int, device: torch.device) -> Work:
    """The matrix product that stands for what the machine can do: ``side**3`` multiply-adds."""
    import torch

    left, right, out = (torch.randn(side, side, device=device) for _ in range(3))

    def multiply() -> None:
        torch.mm(left, right, out=out)
        wait_for(device)

    return multiply


def matrix_side(device: torch.device, clock: Callable[[], float] = time.perf_counter) -> int:
    """The side at which products are quickest per multiply-add, of those that take less than a quarter of a second."""
    rates: dict[int, float] = {}
    for side in SIDES:
        multiply = product(side, device)
        multiply()
        taken = 1e9
        for _ in range(3):
            began = clock()
            multiply()
            taken = min(taken, max(clock() - began, 1e-9))
        rates[side] = side**3 / taken
        if 8 * taken > LONGEST_PRODUCT_S:  # what the next one would take
            break
    return max(rates, key=lambda side: rates[side])


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


@contextmanager
def same_precision() -> Iterator[None]:
    """On a GPU, matrix products in the precision that torch takes for convolutions (TF32 unless it is told not to)."""
    import torch

    matrices, before = torch.backends.cuda.matmul, torch.backends.cuda.matmul.allow_tf32
    matrices.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        matrices.allow_tf32 = before
