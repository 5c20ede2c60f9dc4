"""Networks in torch, forward, and forward and backward, beside the fastest that the machine multiplies matrices."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from convarium.errors import ConvariumError, UsageError
from convarium.evaluation.machine import Machine, quickest_product, this_machine, wait_for

if TYPE_CHECKING:
    import torch
    from rich.console import RenderableType

    from convarium.anatomy.describe import Description
    from convarium.evaluation.latency import Work
    from convarium.network import Network

FORWARD, TRAINING = "forward", "forward + backward"
LIMIT = "matrix product"
SHORTEST_S = 0.05  # of a measurement: quicker work is repeated


@dataclass(frozen=True)
class Spread:
    """The median over the rounds, and the values that a tenth and nine tenths of them are below."""

    median: float
    p10: float
    p90: float


@dataclass(frozen=True)
class Limit:
    """The quickest float32 product of two square matrices of ``side``, in 10^9 multiply-adds per second."""

    side: int
    library: str
    gmacs_per_second: Spread


@dataclass(frozen=True)
class Measured:
    """One network in one mode.

    ``macs`` are multiply-adds for one image; ``latency_ms`` is the whole batch's; ``percent_of_limit`` and ``ratio``
    (of latency to the first network's in the same mode) compare measurements of one round, as medians over the rounds.
    """

    network: str
    mode: str
    input_size: tuple[int, int, int]
    macs: int
    latency_ms: Spread
    images_per_second: float
    gmacs_per_second: float
    percent_of_limit: float
    ratio: Spread


@dataclass(frozen=True)
class Benchmark:
    """Every network forward, then every network forward and backward, in the order they were named."""

    machine: Machine
    threads: int
    batch: int
    rounds: int
    limit: Limit
    rows: list[Measured]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def render(self) -> RenderableType:
        return _tables(self)


@dataclass(frozen=True)
class Subject:
    """A network to be measured, and what it is called."""

    name: str
    model: Network
    described: Description

    def macs(self, mode: str) -> int:
        """Of one image. Backward costs each layer two products as large as its forward, one for the weights' gradient
        and one for the input's; the layer that reads the image needs no gradient of it."""
        first = next((layer.macs for layer in self.described.layers if layer.macs), 0)
        return self.described.macs if mode == FORWARD else 3 * self.described.macs - first


def measure(
    subjects: Sequence[Subject],
    *,
    batch: int,
    rounds: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Benchmark:
    """Measure networks that are built, by a clock that tells seconds."""
    import torch

    from convarium.console import counting
    from convarium.evaluation.latency import in_turns

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    product = quickest_product(device, clock)
    rows = [(place, mode) for mode in (FORWARD, TRAINING) for place in range(len(subjects))]
    works: dict[tuple[int, str], Work] = {(-1, LIMIT): product.work}
    with counting("measuring", (rounds + 1) * (len(rows) + 1)) as tick, memory_explained(batch):
        for place, subject in enumerate(subjects):
            works |= {(place, mode): work for mode, work in _works(subject, batch, device).items()}
        times = in_turns(works, rounds=rounds, seconds=seconds, shortest_s=SHORTEST_S, clock=clock, tick=tick)
    limits = [product.side**3 / 1e9 / taken for taken in times[-1, LIMIT]]
    return Benchmark(
        machine=this_machine(device),
        threads=torch.get_num_threads(),
        batch=batch,
        rounds=len(limits),
        limit=Limit(product.side, product.library, spread(limits)),
        rows=[
            summarise(subjects[place], mode, batch, times[place, mode], times[0, mode], limits) for place, mode in rows
        ],
    )


def summarise(
    subject: Subject, mode: str, batch: int, times: list[float], first: list[float], limits: list[float]
) -> Measured:
    """One row from the seconds of its rounds, those of the first network, and the machine's GMACs per second."""
    gmacs = batch * subject.macs(mode) / 1e9
    reached = [100 * gmacs / taken / limit for taken, limit in zip(times, limits, strict=True)]
    median = statistics.median(times)
    return Measured(
        network=subject.name,
        mode=mode,
        input_size=subject.described.input_size,
        macs=subject.macs(mode),
        latency_ms=spread([1000 * taken for taken in times]),
        images_per_second=batch / median,
        gmacs_per_second=gmacs / median,
        percent_of_limit=statistics.median(reached),
        ratio=spread([taken / other for taken, other in zip(times, first, strict=True)]),
    )


def spread(values: Sequence[float]) -> Spread:
    """Median and tenths, interpolated between values."""
    if len(values) == 1:
        return Spread(*values, *values, *values)
    tenths = statistics.quantiles(values, n=10, method="inclusive")
    return Spread(statistics.median(values), tenths[0], tenths[-1])


def open_subject(name: str, image_size: int | None) -> Subject:
    """A catalogue name or a run folder, to be measured in torch."""
    from convarium.anatomy.describe import describe
    from convarium.networks import create_model
    from convarium.runs import find_run

    run = find_run(name)
    if run is None:
        described = describe(name, input_size=image_size)  # refuses a bad size before any weights are made
        return Subject(name, create_model(name), described)
    side = image_size or run.preprocessing.size
    described = describe(run.model, input_size=(run.preprocessing.channels, side, side))
    return Subject(name, run.model, described)


def _works(subject: Subject, batch: int, device: torch.device) -> dict[str, Work]:
    import torch
    from torch.nn.functional import cross_entropy

    model = subject.model.to(device).eval()
    # The same weights in a second network, so that no time is lost on switching between the modes.
    training = copy.deepcopy(model, {id(p): p for p in model.parameters()}).train()
    images = torch.randn(batch, *subject.described.input_size, device=device)
    labels = torch.zeros(batch, dtype=torch.long, device=device)

    def forward() -> None:
        with torch.inference_mode():
            model(images)
        wait_for(device)

    def forward_backward() -> None:
        cross_entropy(training(images), labels).backward()
        training.zero_grad(set_to_none=True)  # the next network finds the memory free
        wait_for(device)

    return {FORWARD: forward, TRAINING: forward_backward}


@contextmanager
def memory_explained(batch: int) -> Iterator[None]:
    """What torch says of too large and too small a batch, in words that tell what to do."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UsageError(
            "batch norm cannot learn from one image that ends as one pixel: give --batch 2 or a larger --image-size"
        ) from None
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        raise ConvariumError(f"the memory does not hold a batch of {batch} images: give a smaller --batch") from None


# -- tables -----------------------------------------------------------------------------------------------------


def _tables(result: Benchmark) -> RenderableType:
    from rich.console import Group

    machine, limit = result.machine, result.limit
    images = "1 image" if result.batch == 1 else f"{result.batch} images"
    threads = "1 thread" if result.threads == 1 else f"{result.threads} threads"
    rounds = "1 round" if result.rounds == 1 else f"{result.rounds} rounds in turns"
    parts: list[RenderableType] = [
        f"{machine.device}, {threads} of {machine.cores} cores, torch {machine.torch_version}",
        f"{images} at once, {rounds}",
        f"the machine's limit: {limit.gmacs_per_second.median:.1f} GMAC/s ({_range(limit.gmacs_per_second)}), a "
        f"{limit.side}x{limit.side} matrix product by {limit.library}",
    ]
    for mode in (FORWARD, TRAINING):
        parts += ["", _table(mode, [row for row in result.rows if row.mode == mode])]
    parts.append("\nRanges are those of eight rounds in ten. Ratios are to the first network, within a round.")
    parts.append("Backward counts as two more forwards, less the input gradient of the first layer.")
    return Group(*parts)


def _table(mode: str, rows: list[Measured]) -> RenderableType:
    from convarium.console import short, table

    made = table(
        mode, "input", ">GMACs", ">ms", ">range", ">images/s", ">GMAC/s", ">of limit", ">ratio", ">range",
    )  # fmt: skip
    for row in rows:
        made.add_row(
            row.network,
            "x".join(map(str, row.input_size)),
            f"{row.macs / 1e9:.3g}",
            digits(row.latency_ms.median),
            _range(row.latency_ms),
            short(row.images_per_second) if row.images_per_second >= 1e4 else digits(row.images_per_second),
            digits(row.gmacs_per_second),
            percent_of(row.percent_of_limit),
            f"{row.ratio.median:.2f}",
            f"{row.ratio.p10:.2f}-{row.ratio.p90:.2f}",
        )
    return made


def digits(value: float) -> str:
    """Three digits, never as a power of ten: ``0.0123``, ``1.23``, ``1234``."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def percent_of(value: float) -> str:
    """Two digits: ``0.41 %``, ``8.3 %``, ``62 %``."""
    return f"{value:.2g} %" if value < 10 else f"{value:.0f} %"


def _range(values: Spread) -> str:
    return f"{digits(values.p10)}-{digits(values.p90)}"
