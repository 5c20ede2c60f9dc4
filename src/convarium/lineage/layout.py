"""Where the boxes and lines of a family tree go: rows in time, few crossings, straight lines.

After Sugiyama, Tagawa and Toda (1981): a line that passes a row has a place of its own there, the order within the
rows is improved in turn, and positions are drawn towards their neighbours. Lines out of one box share their places.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

Place = tuple[str, int]  # a box in its row, or a line out of it in a row below

PASSING = 16  # px that a passing line takes
STARTS, SWEEPS, PULLS = 16, 10, 120


@dataclass(frozen=True)
class Layout:
    """``rows`` holds the places from left to right, ``x`` their middles in px, ``links`` the lines between places of
    neighbouring rows, each with the children it leads to."""

    rows: list[list[Place]]
    x: dict[Place, float]
    links: dict[tuple[Place, Place], set[str]]


def arrange(
    parents: Mapping[str, Sequence[str]], times: Mapping[str, int], widths: Sequence[float], left: float, right: float,
    gap: float,
) -> Layout:  # fmt: skip
    """Arrange boxes between ``left`` and ``right`` px.

    Args:
        parents: of each box; all of them boxes too.
        times: the row of each box, as :func:`rows_in_time` gives it.
        widths: of the boxes of each row, in px.
        left: px.
        right: px.
        gap: px between boxes.
    """
    links = _links(parents, times)
    rows = _ordered(links, times)

    def is_box(place: Place) -> bool:
        return times[place[0]] == place[1]

    def width(place: Place) -> float:
        return widths[place[1]] + gap if is_box(place) else PASSING

    return Layout(rows, _positions(rows, links, width, is_box, left, right), links)


def rows_in_time(parents: Mapping[str, Sequence[str]], years: Mapping[str, int]) -> dict[str, int]:
    """The row of each box: later years further down, and a box below its parents within a year."""

    def depth(name: str) -> int:
        return 1 + max((depth(p) for p in parents[name] if years[p] == years[name]), default=-1)

    keys = sorted({(years[name], depth(name)) for name in parents})
    return {name: keys.index((years[name], depth(name))) for name in parents}


def passing(parents: Mapping[str, Sequence[str]], times: Mapping[str, int]) -> list[int]:
    """How many lines pass each row."""
    places = {place for link in _links(parents, times) for place in link if times[place[0]] != place[1]}
    return [sum(row == place[1] for place in places) for row in range(max(times.values()) + 1)]


def crossings(rows: Sequence[Sequence[Place]], links: Mapping[tuple[Place, Place], set[str]]) -> int:
    """How many pairs of lines cross."""
    at = {place: i for row in rows for i, place in enumerate(row)}
    count = 0
    for row in range(len(rows)):
        between = [(at[upper], at[lower]) for upper, lower in links if upper[1] == row]
        count += sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for a, b in combinations(between, 2))
    return count


def spread(wanted: Sequence[float], gaps: Sequence[float], low: float, high: float) -> list[float]:
    """The positions nearest to ``wanted`` (least squares) that keep their order, ``gaps`` apart, within low..high.

    ``gaps[i]`` lies between i and i + 1. By pooling adjacent violators on the positions less the gaps before them.
    """
    before = [sum(gaps[:i]) for i in range(len(wanted))]
    pools: list[list[float]] = []
    for value, offset in zip(wanted, before, strict=True):
        pools.append([value - offset, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            mean, count = pools.pop()
            pools[-1] = [(pools[-1][0] * pools[-1][1] + mean * count) / (pools[-1][1] + count), pools[-1][1] + count]
    flat = [mean for mean, count in pools for _ in range(int(count))]
    high -= before[-1] if before else 0
    return [min(max(value, low), max(low, high)) + offset for value, offset in zip(flat, before, strict=True)]


def _links(parents: Mapping[str, Sequence[str]], times: Mapping[str, int]) -> dict[tuple[Place, Place], set[str]]:
    links: dict[tuple[Place, Place], set[str]] = {}
    for child in parents:
        for parent in parents[child]:
            way = [(parent, row) for row in range(times[parent], times[child])] + [(child, times[child])]
            for link in pairwise(way):
                links.setdefault(link, set()).add(child)
    return links


def _ordered(links: Mapping[tuple[Place, Place], set[str]], times: Mapping[str, int]) -> list[list[Place]]:
    """The rows in the order with the fewest crossings that several starts find."""
    places = dict.fromkeys([*((name, row) for name, row in times.items()), *(p for link in links for p in link)])
    rows: list[list[Place]] = [[p for p in places if p[1] == row] for row in range(max(times.values()) + 1)]
    chance = random.Random(0)
    best = rows
    for start in range(STARTS):
        if start:
            rows = [chance.sample(row, len(row)) for row in rows]
        for _ in range(SWEEPS):
            rows = _swept(rows, links)
            best = min(best, rows, key=lambda rows: (crossings(rows, links), _slant(rows, links)))
    return best


def _swept(rows: list[list[Place]], links: Mapping[tuple[Place, Place], set[str]]) -> list[list[Place]]:
    """Every row ordered by the mean place of its neighbours, downwards by those above and then upwards."""
    rows = [list(row) for row in rows]
    for order, near, far in ((range(1, len(rows)), 0, 1), (range(len(rows) - 2, -1, -1), 1, 0)):
        for row in order:
            at = {place: i / len(line) for line in rows for i, place in enumerate(line)}

            def middle(place: Place, at: dict[Place, float] = at, near: int = near, far: int = far) -> float:
                found = [at[link[near]] for link in links if link[far] == place]
                return sum(found) / len(found) if found else at[place]

            rows[row].sort(key=middle)
    return rows


def _slant(rows: Sequence[Sequence[Place]], links: Mapping[tuple[Place, Place], set[str]]) -> float:
    at = {place: (i + 0.5) / len(row) for row in rows for i, place in enumerate(row)}
    return sum(abs(at[upper] - at[lower]) for upper, lower in links)


def _positions(
    rows: Sequence[Sequence[Place]],
    links: Iterable[tuple[Place, Place]],
    width: Callable[[Place], float],
    is_box: Callable[[Place], bool],
    left: float,
    right: float,
) -> dict[Place, float]:
    """Middles in px: drawn towards their neighbours, as far as the order of the row lets them.

    A pull is divided by the distance, so that in the end distances are minimised and not their squares: one bend
    rather than many slight ones. Between passing lines it is the strongest.
    """
    x: dict[Place, float] = {}
    for row in rows:
        step = (right - left) / len(row)
        x |= {place: left + (i + 0.5) * step for i, place in enumerate(row)}
    near: dict[Place, list[tuple[Place, int]]] = {place: [] for row in rows for place in row}
    for upper, lower in links:
        weight = (8, 2, 1)[is_box(upper) + is_box(lower)]
        near[upper].append((lower, weight))
        near[lower].append((upper, weight))
    for sweep in range(PULLS):
        for row in rows if sweep % 2 else reversed(rows):
            wanted = []
            for place in row:
                pulls = [(x[other], weight / (10 + abs(x[other] - x[place]))) for other, weight in near[place]]
                total = sum(pull for _, pull in pulls)
                wanted.append(sum(at * pull for at, pull in pulls) / total if pulls else x[place])
            gaps = [(width(a) + width(b)) / 2 for a, b in pairwise(row)]
            low, high = left + width(row[0]) / 2, right - width(row[-1]) / 2
            x |= dict(zip(row, spread(wanted, gaps, low, high), strict=True))
    ends = [(x[place] - width(place) / 2, x[place] + width(place) / 2) for place in near]
    shift = (left + right - min(low for low, _ in ends) - max(high for _, high in ends)) / 2
    return {place: at + shift for place, at in x.items()}
