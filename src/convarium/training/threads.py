"""How many threads: on small networks a second thread can cost more than it gives, so it is measured, not assumed."""

from __future__ import annotations

import copy
import os
import statistics
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BUDGET_S = 6.0


def calibrate(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[int, dict[int, float]]:
    """Time training steps on a throwaway copy with 1, 2, 4, ... threads in turns.

    Args:
        model: any network; it is not touched.
        images: one training batch ``(N, C, H, W)``.
        labels: ``(N,)``.

    Returns:
        The count with the smallest median, and the medians in seconds per step.
    """
    cores = available_cores()
    counts = sorted({2**i for i in range(cores.bit_length()) if 2**i <= cores} | {cores})
    if len(counts) == 1:
        return counts[0], {}
    before, began = torch.get_num_threads(), time.perf_counter()
    copied = copy.deepcopy(model).train()
    times: dict[int, list[float]] = {count: [] for count in counts}
    try:
        # The first round only warms up; a network too slow for a second one is judged by it.
        for round_ in range(8):
            if round_ and time.perf_counter() - began > BUDGET_S:
                break
            for count in counts:
                torch.set_num_threads(count)
                times[count].append(_step(copied, images, labels))
    finally:
        torch.set_num_threads(before)
    medians = {count: statistics.median(taken[1:] or taken) for count, taken in times.items()}
    return min(medians, key=lambda count: medians[count]), medians


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _step(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    began = time.perf_counter()
    model.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    return time.perf_counter() - began
