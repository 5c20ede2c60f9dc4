"""What came of quantising a run: what it cost, what it gained, and which layers stayed in float."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from convarium.errors import GateError
from convarium.evaluation.statistics import Paired

if TYPE_CHECKING:
    from rich.console import RenderableType

TIMED_BATCH = 8  # images


@dataclass(frozen=True)
class Attempt:
    """One way to quantise, measured.

    Attributes:
        in_float: the layers left in float; where there are too many to measure each, what several begin with.
        difference: int8 against float on the same images in the same runtime.
        speed_up: float's time over int8's, for a batch of :data:`TIMED_BATCH` images, in turns.
        bytes: size of the exported file.
    """

    in_float: list[str]
    difference: Paired
    speed_up: float
    bytes: int

    def costs_at_most(self, points: float) -> bool:
        return self.difference.difference_percent <= points


@dataclass(frozen=True)
class Sensitivity:
    """What int8 in one layer alone does to the logits.

    Attributes:
        layer: the module, or what several begin with.
        sqnr_db: power of the float logits over that of their change (signal to quantisation noise ratio), in decibels;
            less is worse.
        in_float: whether it was left in float.
    """

    layer: str
    sqnr_db: float
    in_float: bool


@dataclass(frozen=True)
class Quantised:
    """A network in int8 beside itself in float.

    Attributes:
        path: the file; ``None`` where no way was within the budget.
        backend: the runtime that both were measured in.
        weight_bits: 8, or 7 on processors without VNNI.
        samples: images that the ranges were taken from.
        max_drop: what int8 may cost, in points of error.
        float_error_percent: top-1, on the images of ``best.difference``.
        float_bytes: size of the file exported in float.
        best: the way that was chosen, or what came nearest to the budget.
        attempts: all ways that were tried, the first with every layer in int8.
        sensitivity: every layer's, most sensitive first; empty where the first attempt was within the budget.
    """

    path: str | None
    backend: str
    weight_bits: int
    samples: int
    max_drop: float
    float_error_percent: float
    float_bytes: int
    best: Attempt
    attempts: list[Attempt]
    sensitivity: list[Sensitivity]

    @property
    def int8_error_percent(self) -> float:
        """Top-1, on the same images."""
        return self.float_error_percent + self.best.difference.difference_percent

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"int8_error_percent": self.int8_error_percent}

    def sentence(self) -> str:
        """What int8 costs and gains."""
        difference, float_layers = self.best.difference, len(self.best.in_float)
        low, high = difference.interval_percent
        kept = f", {float_layers} of {len(self.sensitivity)} layers in float" if float_layers else ""
        return (
            f"{self.backend}{kept}: top-1 error {self.int8_error_percent:.2f} %, {self.float_error_percent:.2f} % in "
            f"float ({difference.difference_percent:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}, "
            f"{difference.images:,} images); {self.best.speed_up:.2f} times as fast as float (batches of {TIMED_BATCH})"
        )

    def render(self) -> RenderableType:
        from rich.console import Group

        from convarium.console import table

        head = (
            f"{self.path or 'no file'}: {self.best.bytes / 2**20:.2f} MiB, in float {self.float_bytes / 2**20:.2f} "
            f"MiB; {self.weight_bits}-bit weights, ranges from {self.samples:,} images"
        )
        if not self.sensitivity:
            return Group(head, self.sentence())
        tried = table(">layers in float", ">points of error", ">times as fast")
        for attempt in self.attempts:
            points = f"{attempt.difference.difference_percent:+.2f}"
            tried.add_row(str(len(attempt.in_float)), points, f"{attempt.speed_up:.2f}")
        layers = table("layer", ">signal to noise alone in int8", "left in")
        for row in self.sensitivity:
            layers.add_row(row.layer, f"{row.sqnr_db:.1f} dB", "float" if row.in_float else "int8")
        return Group(head, self.sentence(), "", tried, "", layers)


class OverBudget(GateError):
    """Int8 costs more errors than allowed; ``result`` is the best that was found, with the table of the layers."""

    def __init__(self, result: Quantised) -> None:
        rows = "\n".join(f"  {row.sqnr_db:6.1f} dB  {row.layer}" for row in result.sensitivity)
        super().__init__(
            f"int8 costs more than the {result.max_drop:g} points of error allowed, and no file is written. The best "
            f"of {len(result.attempts)} ways: {result.sentence()}. Allow more points, or leave the run in float. "
            f"Signal to noise of the logits with one layer alone in int8:\n{rows}"
        )
        self.result = result
