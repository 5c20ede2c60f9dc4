"""``benchmark``: how fast networks are on this machine."""

from __future__ import annotations

from convarium.errors import UsageError
from convarium.speed.modes import Benchmark, measure, open_subject
from convarium.speed.runtimes import RuntimeBenchmark, measure_on_runtimes

BATCH_ON_RUNTIMES = 8


def benchmark(
    networks: list[str],
    /,
    *,
    batch: int | None = None,
    image_size: int | None = None,
    threads: int | None = None,
    runtimes: str | None = None,
    int8: bool = False,
    data: str | None = None,
    rounds: int = 25,
    seconds: float = 60.0,
) -> Benchmark | RuntimeBenchmark:
    """Measure how fast networks are on this machine.

    By itself: in torch, forward, and forward and backward with the weights' gradients. Inputs are random; loading and
    preprocessing are not included. A GPU is used when torch has one.

    With --runtimes: on the processor, answering uint8 images of the network's size, preprocessing included; the
    percentiles of one image's latency, the throughput of a batch, memory, size and, with --data, the error.

    Either way each is measured once in every round, one after the other, and a matrix product with them: ratios hold
    on a busy machine.

    Args:
        networks: catalogue names (with random weights), run folders and, on runtimes, exported files.
        batch: images at once; 1, and on runtimes 8, when not given.
        image_size: the side of the images; each network's own when not given.
        threads: on the CPU; torch's own number, and on runtimes every core, when not given.
        runtimes: "all", or some of torch, compile (torch.compile), onnxruntime and openvino, with commas.
        int8: on onnxruntime and openvino in eight-bit integers too.
        data: a data set: its held-out images judge, its training images give the ranges of int8, which are those of
            noise without it.
        rounds: how many measurements of each.
        seconds: no new round begins after that time, but three are always made.

    Raises:
        UsageError: no network, an unknown one, a number out of its range, a runtime that is missing, or images that a
            network cannot take.
        DataError: a folder that is no run, or data that cannot be used.
        ConvariumError: the memory does not hold that batch.
    """
    if not networks:
        raise UsageError("no network to measure: convarium benchmark NAME... (convarium list)")
    for option, value, least in (
        ("batch", batch, 1), ("image-size", image_size, 1), ("threads", threads, 1), ("rounds", rounds, 1),
        ("seconds", seconds, 0),
    ):  # fmt: skip
        if value is not None and not value >= least:
            raise UsageError(f"--{option} must be {least} or more; got {value}")
    if runtimes is not None or int8 or data is not None:
        return measure_on_runtimes(
            networks, runtimes or "all", int8=int8, data=data, batch=batch or BATCH_ON_RUNTIMES, image_size=image_size,
            threads=threads, rounds=rounds, seconds=seconds,
        )  # fmt: skip

    import torch

    from convarium.evaluation.latency import on_threads
    from convarium.evaluation.machine import same_precision

    subjects = [open_subject(name, image_size) for name in networks]
    with on_threads(threads or torch.get_num_threads()), same_precision():
        return measure(subjects, batch=batch or 1, rounds=rounds, seconds=seconds)
