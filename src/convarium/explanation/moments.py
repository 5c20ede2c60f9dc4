"""The moments of a run's history on a chart: what each is called, and colours from the first to the last."""

from __future__ import annotations

from collections.abc import Iterable

from matplotlib import colormaps
from matplotlib.colors import to_hex


def moment(epoch: int | None) -> str:
    """What a moment is called: 0 is before training, ``None`` that of a folder that does not tell."""
    return "as it is" if epoch is None else f"after epoch {epoch}" if epoch else "before training"


def moment_colours(count: int) -> list[str]:
    """``count`` colours from blue to yellow, neither end too dark for a dark page nor too light for a light one."""
    return [to_hex(colormaps["viridis"](0.3 + 0.5 * i / max(1, count - 1))) for i in range(count)]


def first_and_last(moments: Iterable[str]) -> list[str]:
    """The two moments that a sentence tells of; one where there is no other."""
    names = list(moments)
    return list(dict.fromkeys([names[0], names[-1]]))
