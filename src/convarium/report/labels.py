"""Labels beside circles without collisions: a greedy search over places around each circle, nearest first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

GAP = 2.0  # px between a label and whatever is next to it
ANGLES = (0, 180, 45, 135, -45, -135, 90, -90, 20, 160, -20, -160, 67, 113, -67, -113)  # degrees, the dearest first
STEP, RINGS, FARTHEST = 4.0, 8, 600.0  # px between rings, rings to look at once one has room, px to the last
PASSES = 4
NEAR = 12.0  # px from a circle within which a label seems its own
CROWD = 60.0  # px within which circles compete for places

Point = tuple[float, float]
Lead = tuple[Point, Point]


@dataclass(frozen=True)
class Circle:
    """What a label is for, in px."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Box:
    """A label's place, in px."""

    left: float
    low: float
    width: float
    height: float

    def overlaps(self, other: Box) -> bool:
        return (
            self.left < other.left + other.width
            and other.left < self.left + self.width
            and self.low < other.low + other.height
            and other.low < self.low + self.height
        )

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The point of the box that is nearest to (x, y)."""
        return (
            min(max(x, self.left), self.left + self.width),
            min(max(y, self.low), self.low + self.height),
        )

    def gap(self, circle: Circle) -> float:
        """Px between the box and the circle's rim; negative where they overlap."""
        return math.dist(self.nearest(circle.x, circle.y), (circle.x, circle.y)) - circle.radius

    def inside(self, other: Box) -> bool:
        return (
            other.left <= self.left
            and other.low <= self.low
            and self.left + self.width <= other.left + other.width
            and self.low + self.height <= other.low + other.height
        )


def place_labels(circles: Sequence[Circle], sizes: Sequence[tuple[float, float]], bounds: Box) -> list[Box | None]:
    """A box for each circle's label, of its (width, height), that meets no circle and no other label.

    Those with the most circles around them come first: they have the least choice. Later passes mend what those after
    them made worse. ``None`` where no place is free.
    """
    crowd = [sum(math.dist((a.x, a.y), (b.x, b.y)) < CROWD for b in circles) for a in circles]
    order = sorted(range(len(circles)), key=lambda i: (-crowd[i], circles[i].x))
    placed: dict[int, Box] = {}
    for i in order * PASSES:
        placed.pop(i, None)
        box = _best(i, circles, sizes[i], placed, bounds)
        if box:
            placed[i] = box
    return [placed.get(i) for i in range(len(circles))]


def lead_line(circle: Circle, box: Box) -> Lead | None:
    """From the circle's middle to its label, where they are not side by side."""
    lead = _lead(circle, box)
    return lead if math.dist(*lead) > circle.radius + 3 * GAP else None


def _lead(circle: Circle, box: Box) -> Lead:
    return (circle.x, circle.y), box.nearest(circle.x, circle.y)


def _best(
    i: int, circles: Sequence[Circle], size: tuple[float, float], taken: dict[int, Box], bounds: Box
) -> Box | None:
    """The cheapest free place: of the nearest ring that has one and of a few beyond it."""
    best: tuple[float, Box] | None = None
    rings, distance = 0, circles[i].radius + GAP
    while distance < FARTHEST and rings < RINGS:
        for box in _ring(circles[i], size, distance):
            if _is_free(box, circles, taken.values(), bounds):
                cost = _cost(i, box, circles, taken)
                best = (cost, box) if best is None or cost < best[0] - 1e-6 else best
        if best and best[0] <= distance + 0.1:  # nothing is in its way: farther ones cost more
            break
        rings += best is not None
        distance += STEP
    return best[1] if best else None


def _ring(circle: Circle, size: tuple[float, float], distance: float) -> Iterator[Box]:
    """Boxes whose corner or side that faces the circle's middle is ``distance`` from it."""
    width, height = size
    for degrees in ANGLES:
        across, up = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        x, y = circle.x + distance * across, circle.y + distance * up
        yield Box(x - width * (1 - _side(across)) / 2, y - height * (1 - _side(up)) / 2, width, height)


def _side(value: float) -> int:
    return 0 if abs(value) < 0.1 else 1 if value > 0 else -1


def _is_free(box: Box, circles: Sequence[Circle], taken: Iterable[Box], bounds: Box) -> bool:
    around = Box(box.left - GAP, box.low - GAP / 2, box.width + 2 * GAP, box.height + GAP)
    return (
        box.inside(bounds)
        and not any(around.overlaps(other) for other in taken)
        and not any(box.gap(circle) < 0 for circle in circles)
    )


def _cost(i: int, box: Box, circles: Sequence[Circle], taken: dict[int, Box]) -> float:
    """The distance in px; much more when a lead would run through a label, another lead or another circle, and more
    when the label would seem another circle's."""
    lead = _lead(circles[i], box)
    leads = [_lead(circles[j], other) for j, other in taken.items()]
    met = sum(_enters(lead, other) for other in taken.values()) + sum(_enters(other, box) for other in leads)
    crossed = sum(_cross(lead, other) for other in leads)
    passed = sum(_distance(lead, circle) < circle.radius for j, circle in enumerate(circles) if j != i)
    own = min(box.gap(circles[i]), NEAR)
    strange = sum(box.gap(circle) < own for j, circle in enumerate(circles) if j != i)
    return math.dist(*lead) + 60 * (met + crossed + strange) + 20 * passed


def _cross(a: Lead, b: Lead) -> bool:
    def turn(p: Point, q: Point, r: Point) -> float:
        return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])

    return turn(*a, b[0]) * turn(*a, b[1]) < 0 and turn(*b, a[0]) * turn(*b, a[1]) < 0


def _enters(lead: Lead, box: Box) -> bool:
    """A line meets a box when an end lies in it or it cuts a diagonal."""
    right, top = box.left + box.width, box.low + box.height
    diagonals = ((box.left, box.low), (right, top)), ((box.left, top), (right, box.low))
    return any(box.nearest(*end) == end for end in lead) or any(_cross(lead, diagonal) for diagonal in diagonals)


def _distance(lead: Lead, circle: Circle) -> float:
    (x, y), (to_x, to_y) = lead
    length = (to_x - x) ** 2 + (to_y - y) ** 2
    part = ((circle.x - x) * (to_x - x) + (circle.y - y) * (to_y - y)) / length if length else 0
    part = min(max(part, 0), 1)
    return math.dist((x + part * (to_x - x), y + part * (to_y - y)), (circle.x, circle.y))
