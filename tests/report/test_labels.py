"""Labels: each in its bounds, on no circle and on no other label, near its circle where there is room."""

import random
from itertools import combinations

import pytest

from convarium.report.labels import Box, Circle, lead_line, place_labels

BOUNDS = Box(0, 0, 600, 400)


@pytest.mark.parametrize("seed", range(6))
def test_labels_meet_nothing(seed):
    chance = random.Random(seed)
    circles = [
        Circle(chance.gauss(300, 60), chance.gauss(200, 40), chance.choice([2, 5, 15])) for _ in range(25)
    ]  # a crowd
    sizes = [(chance.randint(30, 110), 11) for _ in circles]
    boxes = place_labels(circles, sizes, BOUNDS)
    assert all(boxes)
    for box, (width, height) in zip(boxes, sizes, strict=True):
        assert (box.width, box.height) == (width, height) and box.inside(BOUNDS)
        assert all(box.gap(circle) >= 0 for circle in circles)
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_a_lone_circle_has_its_label_at_its_side_without_a_line():
    circle = Circle(100, 100, 10)
    (box,) = place_labels([circle], [(50, 12)], BOUNDS)
    assert box == Box(112, 94, 50, 12) and lead_line(circle, box) is None


def test_a_label_is_nearer_to_its_own_circle_than_to_another_or_has_a_line():
    circles = [Circle(100, 100, 5), Circle(112, 100, 5), Circle(106, 112, 5)]
    boxes = place_labels(circles, [(60, 11)] * 3, BOUNDS)
    for circle, box in zip(circles, boxes, strict=True):
        assert lead_line(circle, box) or box.gap(circle) == min(box.gap(other) for other in circles)


def test_where_no_place_is_free_there_is_no_label():
    assert place_labels([Circle(50, 50, 5)], [(700, 11)], BOUNDS) == [None]


def test_boxes_by_hand():
    box = Box(10, 10, 20, 10)
    assert box.gap(Circle(20, 30, 4)) == 6 and box.gap(Circle(20, 15, 4)) == -4
    assert box.overlaps(Box(29, 19, 5, 5)) and not box.overlaps(Box(30, 10, 5, 5))
