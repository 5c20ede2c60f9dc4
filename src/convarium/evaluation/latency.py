"""Latency of networks side by side, in turns, so that a busy machine troubles all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import nn

    from convarium.data.preprocess import Preprocessing

Key = TypeVar("Key", bound=Hashable)

ROUNDS = 25
BUDGET_S = 10.0


def latency_ms(networks: Mapping[Key, tuple[nn.Module, Preprocessing]]) -> dict[Key, float]:
    """Median milliseconds of one forward of one image, on one thread, preprocessing not included."""
    import torch

    inputs = {
        key: torch.randn(1, settings.channels, settings.size, settings.size) for key, (_, settings) in networks.items()
    }
    times: dict[Key, list[float]] = {key: [] for key in networks}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    began = time.perf_counter()
    try:
        with torch.inference_mode():
            for round_ in range(ROUNDS + 3):
                if round_ > 3 and time.perf_counter() - began > BUDGET_S:
                    break
                for key, (model, _) in networks.items():
                    start = time.perf_counter()
                    model(inputs[key])
                    times[key].append(1000 * (time.perf_counter() - start))
    finally:
        torch.set_num_threads(threads)
    return {key: statistics.median(taken[min(3, len(taken) - 1) :]) for key, taken in times.items()}
