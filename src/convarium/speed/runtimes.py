"""Networks on every runtime that is installed, in float32 and int8, answering images in turns."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from convarium.console import counting
from convarium.data.datasets import check_classes
from convarium.deploy.runtimes import cores
from convarium.evaluation.latency import in_turns, on_threads, one_by_one
from convarium.evaluation.machine import INT8_PRODUCTS, Machine, Product, quickest_product, this_machine
from convarium.runs import WEIGHTS
from convarium.speed.modes import digits, memory_explained, percent_of
from convarium.speed.variants import FLOAT32, INT8, Variant, choose_runtimes, find_variants

if TYPE_CHECKING:
    from rich.console import RenderableType

    from convarium.data.datasets import Dataset


@dataclass(frozen=True)
class Limit:
    """The quickest product of two square matrices of ``side``, in 10^9 multiply-adds per second, the median of the
    rounds."""

    side: int
    library: str
    gmacs_per_second: float


@dataclass(frozen=True)
class OnRuntime:
    """One network on one runtime.

    Attributes:
        form: ``float32``, ``int8``, or of a file that was given, ``as exported``.
        macs: multiply-adds for one image; ``None`` for a file.
        p50_ms, p99_ms: of one image at a time.
        images_per_second: in batches.
        percent_of_limit: multiply-adds per second in batches, of the machine's limit for numbers of that kind.
        ratio: of images per second, to the network's first row, within a round; the median.
        memory_mib: the peak of a process that does nothing else, its runtime in it; ``None`` where it is not known.
        mib: what lies on the disk.
        error_percent: top-1, on held-out images, with the 95 % interval; ``None`` without data.
    """

    network: str
    runtime: str
    form: str
    macs: int | None
    p50_ms: float
    p99_ms: float
    images_per_second: float
    percent_of_limit: float | None
    ratio: float
    memory_mib: float | None
    mib: float
    error_percent: float | None
    interval_percent: tuple[float, float] | None


@dataclass(frozen=True)
class RuntimeBenchmark:
    """Every network on every runtime, in the order they were named."""

    machine: Machine
    threads: int
    batch: int
    rounds: int
    limits: dict[str, Limit]
    rows: list[OnRuntime]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def render(self) -> RenderableType:
        return _table(self)


def measure_on_runtimes(
    networks: Sequence[str],
    runtimes: str,
    *,
    int8: bool,
    data: str | None,
    batch: int,
    image_size: int | None,
    threads: int | None,
    rounds: int,
    seconds: float,
) -> RuntimeBenchmark:
    """As :func:`convarium.speed.benchmark.benchmark` says of runtimes."""
    from convarium.data.datasets import open_dataset

    chosen = choose_runtimes(runtimes, int8)
    dataset = open_dataset(data) if data else None
    with TemporaryDirectory(prefix="convarium-") as folder, on_threads(threads or cores()):
        variants = [
            variant
            for number, name in enumerate(networks)
            for variant in find_variants(
                name, chosen, int8=int8, image_size=image_size, dataset=dataset, folder=Path(folder) / str(number)
            )
        ]
        with memory_explained(batch):
            return _measure(variants, batch, rounds, seconds, dataset)


# -- measuring ------------------------------------------------------------------------------------------------------


def _measure(
    variants: Sequence[Variant], batch: int, rounds: int, seconds: float, dataset: Dataset | None
) -> RuntimeBenchmark:
    import torch

    device = torch.device("cpu")
    products = {FLOAT32: quickest_product(device), INT8: quickest_product(device, makers=INT8_PRODUCTS)}
    single = _single_times(variants, rounds, seconds / 2)
    together = _batch_times(variants, products, batch, rounds, seconds / 2)
    limits = {
        form: Limit(product.side, product.library, product.side**3 / 1e9 / statistics.median(together[form]))
        for form, product in products.items()
    }
    rows = []
    with counting("measuring memory", len(variants)) as tick:
        for place, variant in enumerate(variants):
            first = next(other for other in range(place + 1) if variants[other].network == variant.network)
            rows.append(_row(variant, batch, single[place], together[place], together[first], together, products))
            tick(place + 1)
    if dataset:
        rows = [_judged(row, variant, dataset) for row, variant in zip(rows, variants, strict=True)]
    return RuntimeBenchmark(this_machine(device), torch.get_num_threads(), batch, len(together[FLOAT32]), limits, rows)


def _single_times(variants: Sequence[Variant], rounds: int, seconds: float) -> dict[int, list[float]]:
    """Seconds of single images by the variant's place."""
    works = {place: partial(variant.logits, _images(variant, 1)) for place, variant in enumerate(variants)}
    with counting("measuring latency", (rounds + 1) * len(variants)) as tick:
        return one_by_one(works, rounds=rounds, seconds=seconds, tick=tick)


def _batch_times(
    variants: Sequence[Variant], products: Mapping[str, Product], batch: int, rounds: int, seconds: float
) -> dict[Any, list[float]]:
    """Seconds of a batch by the variant's place, and of the matrix products by their form."""
    works: dict[Any, Any] = {form: product.work for form, product in products.items()}
    for place, variant in enumerate(variants):
        works[place] = partial(variant.logits, _images(variant, batch))
    with counting("measuring throughput", (rounds + 1) * len(works)) as tick:
        return in_turns(works, rounds=rounds, seconds=seconds, shortest_s=0.02, tick=tick)


def _images(variant: Variant, count: int) -> np.ndarray:
    shape = count, variant.size, variant.size, variant.channels
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _row(
    variant: Variant,
    batch: int,
    single: list[float],
    together: list[float],
    first: list[float],
    times: Mapping[Any, list[float]],
    products: Mapping[str, Product],
) -> OnRuntime:
    from convarium.compression.cutting import cost_of
    from convarium.compression.memory import peak_memory_mib
    from convarium.compression.trials import parts

    macs = cost_of(variant.run, "macs") if variant.run else None
    reached = None
    if macs and variant.form in products:
        rates = zip(together, times[variant.form], strict=True)
        side = products[variant.form].side
        reached = statistics.median(100 * batch * macs / own / (side**3 / limit) for own, limit in rates)
    in_folder = variant.source.is_dir()
    files = [variant.source / WEIGHTS] if in_folder else parts(variant.source)
    shape = batch, variant.size, variant.size, variant.channels
    return OnRuntime(
        network=variant.network,
        runtime=variant.runtime,
        form=variant.form,
        macs=macs,
        p50_ms=1000 * statistics.median(single),
        p99_ms=1000 * float(np.quantile(single, 0.99)),
        images_per_second=batch / statistics.median(together),
        percent_of_limit=reached,
        ratio=statistics.median(other / own for own, other in zip(together, first, strict=True)),
        memory_mib=None if variant.runtime == "compile" else peak_memory_mib(variant.runtime, variant.source, shape),
        mib=sum(file.stat().st_size for file in files) / 2**20,
        error_percent=None,
        interval_percent=None,
    )


def _judged(row: OnRuntime, variant: Variant, dataset: Dataset) -> OnRuntime:
    """With the error on the held-out images, where the weights are somebody's."""
    from convarium.compression.samples import Samples
    from convarium.evaluation.statistics import error_interval_percent

    if variant.class_names is None:
        return row
    positions = dataset.positions(dataset.held_out)
    labels = check_classes(dataset, variant.class_names)[positions]
    samples = Samples(dataset, positions, labels, variant.channels)
    with counting(f"judging {variant.network}, {variant.runtime} {variant.form}", len(samples)) as tick:
        wrong = samples.logits(variant.logits, tick).argmax(axis=1) != labels
    return replace(row, error_percent=100 * float(wrong.mean()), interval_percent=error_interval_percent(wrong))


# -- table ----------------------------------------------------------------------------------------------------------


def _table(result: RuntimeBenchmark) -> RenderableType:
    from rich.console import Group

    from convarium.console import short, table

    machine = result.machine
    threads = "1 thread" if result.threads == 1 else f"{result.threads} threads"
    limits = ", ".join(
        f"{limit.gmacs_per_second:.0f} GMAC/s in {form} ({limit.side}x{limit.side}, {limit.library})"
        for form, limit in result.limits.items()
    )
    judged = any(row.error_percent is not None for row in result.rows)
    made = table(
        "network", "runtime", "numbers", ">p50 ms", ">p99 ms", ">images/s",
        ">ratio", ">of limit", ">MiB", ">memory", *([">error", ">95 %"] if judged else []),
    )  # fmt: skip
    for row in result.rows:
        cells = [
            *(row.network, row.runtime, row.form, digits(row.p50_ms), digits(row.p99_ms)),
            short(row.images_per_second) if row.images_per_second >= 1e4 else digits(row.images_per_second),
            f"{row.ratio:.2f}",
            "-" if row.percent_of_limit is None else percent_of(row.percent_of_limit),
            digits(row.mib),
            "-" if row.memory_mib is None else f"{row.memory_mib:.0f}",
        ]
        if row.error_percent is not None and row.interval_percent is not None:
            low, high = row.interval_percent
            cells += [f"{row.error_percent:.2f} %", f"{low:.2f}-{high:.2f}"]
        made.add_row(*cells)
    return Group(
        f"{machine.device}, {threads} of {machine.cores} cores, torch {machine.torch_version}; {result.rounds} rounds "
        "in turns",
        f"the machine's limit, a matrix product: {limits}",
        "",
        made,
        f"\nUint8 images of the network's size, preprocessing included: one at a time (ms), {result.batch} at once "
        "(images/s). Ratios are to the network's first row, limits for numbers of that kind.\n"
        "MiB are those on the disk; memory, in MiB too, is a process's that does nothing else, its runtime in it.",
    )
