"""How a race ended: what each candidate's weights do and cost, which of them nothing beats, and what to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convarium.race.rounds import Leg
from convarium.report.front import pareto_front

if TYPE_CHECKING:
    from rich.console import RenderableType

# A network is named beside the winner when it takes less than this part of the winner's time, and errs at most so many
# points more.
QUICKER, WORSE = 0.9, 10.0


@dataclass(frozen=True)
class Candidate:
    """One network, as its last finished round left it.

    Attributes:
        model, family, run: the network, its paper's short name, and the run folder of its last round; of a run that was
            entered its folder, and its network's paper.
        rounds, epochs: how far it came, all rounds together; no round of a run that was entered.
        seconds: of training arithmetic.
        chosen_by_percent: top-1 error on the held-out images after its last round, which chose who goes on.
        error_percent, low_percent, high_percent: top-1 error on the images that judge, and its 95 % interval.
        params, macs: trainable parameters; multiply-adds for one image.
        latency_ms: median for one image, all candidates in turns, on one thread of this machine.
        memory_mib: weights and the most maps alive at once for one image, in float32, counted.
        on_front: no other has as low an error for as little time.
    """

    model: str
    family: str
    run: Path
    rounds: int
    epochs: int
    seconds: float
    chosen_by_percent: float
    error_percent: float
    low_percent: float
    high_percent: float
    params: int
    macs: int
    latency_ms: float
    memory_mib: float
    on_front: bool = False


@dataclass(frozen=True)
class Race:
    """A finished race.

    Attributes:
        data, split, images: what judged: so many images of that split.
        budget, image_size, channels: as all candidates had them.
        candidates: the winner first, then who came as far, by what chose them.
        legs: every candidate's training in every round.
        advice: which to take, in a sentence or a few.
        notes: what to bear in mind.
        output, page: the folder, and the page in it.
        histories: per candidate the epochs of all rounds in one row.
    """

    data: str
    split: str
    images: int
    budget: str
    image_size: int
    channels: int
    candidates: list[Candidate]
    legs: list[Leg]
    advice: str
    notes: list[str]
    output: Path
    page: Path
    histories: dict[str, list[dict[str, Any]]] = field(repr=False)

    @property
    def seconds(self) -> float:
        """Of training, all candidates and rounds."""
        return sum(leg.seconds for leg in self.legs)

    def as_dict(self) -> dict[str, Any]:
        return asdict(replace(self, histories={})) | {"seconds": self.seconds}

    def render(self) -> RenderableType:
        from rich.console import Group

        from convarium.console import short, table

        rows = table(
            "network", ">rounds", ">epochs", ">trained", ">error", ">95 %", ">chosen by", ">params", ">MACs",
            ">latency", ">memory", "",
            title=f"{self.data}: top-1 error of {self.images:,} {self.split} images, {self.image_size} pixels",
        )  # fmt: skip
        for each in self.candidates:
            rows.add_row(
                each.model,
                str(each.rounds or "-"),
                str(each.epochs),
                f"{each.seconds:.1f} s",
                f"{each.error_percent:.2f} %",
                f"{each.low_percent:.1f}-{each.high_percent:.1f}",
                f"{each.chosen_by_percent:.2f} %",
                short(each.params),
                short(each.macs),
                f"{each.latency_ms:.2f} ms",
                f"{each.memory_mib:.2f} MiB",
                "front" if each.on_front else "",
            )
        lines = [f"\n{self.advice}", *[f"\n{note}" for note in self.notes], f"\npage: {self.page}"]
        winner = self.candidates[0].run
        lines.append(f"next: convarium evaluate {winner} --data {self.data}   convarium export {winner}")
        return Group(rows, *lines)


def mark_front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Candidates with ``on_front`` by error and latency."""
    front = pareto_front([(each.error_percent, each.latency_ms) for each in candidates])
    return [replace(each, on_front=on) for each, on in zip(candidates, front, strict=True)]


def advise(candidates: Sequence[Candidate], told_apart: str) -> str:
    """What to take: the winner, and the one to take instead where time matters more.

    Args:
        candidates: the winner first, the front marked.
        told_apart: a sentence on the winner and the runner-up; "" where there is none.
    """
    winner, *others = candidates
    said = f"Take {winner.model}: {winner.error_percent:.2f} % error in {winner.latency_ms:.2f} ms an image"
    quicker = [
        each
        for each in others
        if each.on_front
        and each.latency_ms < QUICKER * winner.latency_ms
        and each.error_percent <= winner.error_percent + WORSE
    ]
    if not quicker:
        said += ", and none that comes near it is much quicker."
    else:
        other = min(quicker, key=lambda each: (each.error_percent, each.latency_ms))
        saved, lost = winner.latency_ms - other.latency_ms, other.error_percent - winner.error_percent
        if lost <= 0:
            said += f"; or {other.model}, {saved:.2f} ms quicker, which errs no more on the images that judge."
        else:
            said += f"; if {saved:.2f} ms matter more than {lost:.2f} points, {other.model}."
    return f"{said} {told_apart}".strip()
