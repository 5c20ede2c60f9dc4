"""Times of pieces of work side by side, in turns, so that a busy machine troubles all alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import nn

    from convarium.data.preprocess import Preprocessing

Key = TypeVar("Key", bound=Hashable)
Work = Callable[[], object]

LEAST_ROUNDS = 3
BURST_S, SETTLED_S = 0.03, 0.01
WARM_UPS = 2  # of each piece of work, uncounted


def in_turns(
    works: Mapping[Key, Work],
    *,
    rounds: int,
    seconds: float,
    shortest_s: float,
    clock: Callable[[], float] = time.perf_counter,
    tick: Callable[[int], None] = lambda done: None,
) -> dict[Key, list[float]]:
    """Seconds that each piece of work takes: one measurement of each, round after round.

    Work that takes less than ``shortest_s`` is repeated within a measurement until it takes that long, and the time is
    divided by the repeats. Each piece is done twice beforehand, uncounted: to warm up, and to find those repeats.

    Args:
        works: what to measure, in this order in every round.
        rounds: how many.
        seconds: no round but the first three begins later than this.
        shortest_s: well above the grain of the clock.
        clock: seconds since some moment.
        tick: is told after every measurement how many are done, the warm-up's among them.

    Returns:
        As many times for every key as rounds were made.
    """
    began, done = clock(), 0
    repeats: dict[Key, int] = {}
    for key, work in works.items():  # as often as WARM_UPS
        work()
        repeats[key] = max(1, math.ceil(shortest_s / max(_timed(work, 1, clock), 1e-7)))
        tick(done := done + 1)
    times: dict[Key, list[float]] = {key: [] for key in works}
    for round_ in range(rounds):
        if round_ >= LEAST_ROUNDS and clock() - began > seconds:
            break
        for key, work in works.items():
            times[key].append(_timed(work, repeats[key], clock))
            tick(done := done + 1)
    return times


def one_by_one(
    works: Mapping[Key, Work],
    *,
    rounds: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    tick: Callable[[int], None] = lambda done: None,
) -> dict[Key, list[float]]:
    """Seconds of single calls, for percentiles: of repeated ones the slowest would be hidden in a mean.

    In its turn a piece of work is called for :data:`BURST_S`. Calls that begin in the first :data:`SETTLED_S` of those
    are not counted, unless they alone take as long: the threads of the runtime before still wait for work there, and
    keep a core from this one. The rest is as for :func:`in_turns`.
    """
    bursts: dict[Key, list[list[float]]] = {key: [] for key in works}

    def burst(key: Key) -> None:
        counted: list[float] = []
        began = now = clock()
        while now - began < BURST_S:
            works[key]()
            done = clock()
            if max(now - began, done - now) >= SETTLED_S:
                counted.append(done - now)
            now = done
        bursts[key].append(counted)

    turns = {key: partial(burst, key) for key in works}
    in_turns(turns, rounds=rounds, seconds=seconds, shortest_s=0.0, clock=clock, tick=tick)
    return {key: [taken for counted in own[WARM_UPS:] for taken in counted] for key, own in bursts.items()}


def _timed(work: Work, repeats: int, clock: Callable[[], float]) -> float:
    began = clock()
    for _ in range(repeats):
        work()
    return (clock() - began) / repeats


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Torch works on ``count`` threads within the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def latency_ms(networks: Mapping[Key, tuple[nn.Module, Preprocessing]]) -> dict[Key, float]:
    """Median milliseconds of one forward of one image, on one thread, preprocessing not included."""
    import torch

    def forward(model: nn.Module, settings: Preprocessing) -> Work:
        image = torch.randn(1, settings.channels, settings.size, settings.size)
        return lambda: model(image)

    works = {key: forward(*each) for key, each in networks.items()}
    with on_threads(1), torch.inference_mode():
        times = in_turns(works, rounds=25, seconds=10.0, shortest_s=0.005)
    return {key: 1000 * statistics.median(taken) for key, taken in times.items()}
