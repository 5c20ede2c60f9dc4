"""The machine that is measured on: what it is, and how quickly it multiplies matrices."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
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


@dataclass(frozen=True)
class Product:
    """The product of two square matrices, ``side**3`` multiply-adds, by one of torch's libraries."""

    side: int
    library: str
    work: Work


def quickest_product(
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
    makers: Sequence[Callable[[int, torch.device], Product | None]] = (),
) -> Product:
    """Of the products that take less than about a quarter of a second, the one of most multiply-adds per second.

    On a CPU torch has two libraries, and which is quicker is the processor's to say: convolutions use oneDNN, and
    ``torch.mm`` a BLAS, which on some processors leaves half of the arithmetic units idle.
    """
    rates: dict[Product, float] = {}
    for make in makers or FLOAT32_PRODUCTS:
        for side in SIDES:
            product = make(side, device)
            if product is None:
                break
            product.work()
            taken = min(_timed(product.work, clock) for _ in range(3))
            rates[product] = side**3 / taken
            if 8 * taken > LONGEST_PRODUCT_S:  # what the next one would take
                break
    return max(rates, key=lambda product: rates[product])


def _timed(work: Work, clock: Callable[[], float]) -> float:
    began = clock()
    work()
    return max(clock() - began, 1e-9)


def by_mm(side: int, device: torch.device) -> Product:
    import torch

    left, right, out = (torch.randn(side, side, device=device) for _ in range(3))

    def multiply() -> None:
        torch.mm(left, right, out=out)
        wait_for(device)

    return Product(side, "torch.mm", multiply)


def by_onednn(side: int, device: torch.device) -> Product | None:
    import torch
    from torch.nn.functional import linear

    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return None
    left, right = (torch.randn(side, side).to_mkldnn() for _ in range(2))

    def multiply() -> None:
        with torch.inference_mode():
            linear(left, right)

    return Product(side, "oneDNN", multiply)


def by_int_mm(side: int, device: torch.device) -> Product | None:
    """Of eight-bit integers."""
    import torch

    if device.type != "cpu":
        return None
    left, right = (torch.randint(-128, 128, (side, side), dtype=torch.int8) for _ in range(2))
    return Product(side, "torch._int_mm", lambda: torch._int_mm(left, right))


def by_onednn_int8(side: int, device: torch.device) -> Product | None:
    """Of eight-bit integers, rounded to eight bits again: as in a quantised network."""
    import torch

    if device.type != "cpu" or not hasattr(torch.ops.onednn, "qlinear_prepack"):
        return None
    left = torch.randint(0, 256, (side, side), dtype=torch.uint8)
    right = torch.ops.onednn.qlinear_prepack(torch.randint(-128, 128, (side, side), dtype=torch.int8), [side, side])
    scales, zeros = torch.full((side,), 0.01), torch.zeros(side, dtype=torch.int64)

    def multiply() -> None:
        torch.ops.onednn.qlinear_pointwise(
            left, 0.01, 0, right, scales, zeros, None, 1.0, 0, torch.uint8, "none", [], ""
        )

    return Product(side, "oneDNN", multiply)


FLOAT32_PRODUCTS, INT8_PRODUCTS = (by_mm, by_onednn), (by_int_mm, by_onednn_int8)


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
