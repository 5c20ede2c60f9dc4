"""The layout's laws: rows in time, no needless crossing, positions that keep order and distance."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convarium.lineage.layout import arrange, crossings, rows_in_time, spread


def arranged(parents, times):
    return arrange(parents, times, [100] * (max(times.values()) + 1), 0, 2000, 10)


@pytest.mark.parametrize("seed", range(12))
def test_a_tree_is_drawn_without_crossings(seed):
    """Where everyone has one parent, there always is such a drawing."""
    chance = random.Random(seed)
    parents, years = {"0": []}, {"0": 0}
    for i in range(1, 16):
        parent = chance.choice(list(parents))
        years[str(i)] = years[parent] + chance.randint(0, 3)
        parents[str(i)] = [parent]
    layout = arranged(parents, rows_in_time(parents, years))
    assert crossings(layout.rows, layout.links) == 0


def test_crossings_by_hand():
    rows = [[("a", 0), ("b", 0)], [("c", 1), ("d", 1)]]
    straight = {(("a", 0), ("c", 1)): {"c"}, (("b", 0), ("d", 1)): {"d"}}
    crossed = {(("a", 0), ("d", 1)): {"d"}, (("b", 0), ("c", 1)): {"c"}}
    assert crossings(rows, straight) == 0 and crossings(rows, crossed) == 1
    assert crossings(rows, straight | crossed) == 1


def test_rows_follow_the_years_and_parents_within_a_year():
    parents = {"a": [], "b": ["a"], "c": ["b"], "d": ["a"], "e": ["d", "c"]}
    rows = rows_in_time(parents, {"a": 1998, "b": 2012, "c": 2012, "d": 2012, "e": 2013})
    assert rows == {"a": 0, "b": 1, "c": 2, "d": 1, "e": 3}


def test_boxes_keep_their_order_and_distance_and_long_lines_are_straight():
    parents = {"a": [], "b": ["a"], "c": ["a"], "d": ["a", "c"], "e": ["a"]}
    layout = arranged(parents, {"a": 0, "b": 1, "c": 1, "d": 2, "e": 4})
    for left, right in pairwise(layout.rows[1]):
        both = sum(name in "bc" for name, _ in (left, right))
        assert layout.x[right] - layout.x[left] >= {2: 110, 1: (110 + 16) / 2, 0: 16}[both] - 1e-6
    assert layout.x["a", 2] == pytest.approx(layout.x["a", 3], abs=2)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=6), st.data())
def test_spread_is_the_nearest_lawful_place(wanted, data):
    gaps = data.draw(st.lists(st.floats(0, 20), min_size=len(wanted) - 1, max_size=len(wanted) - 1))
    found = spread(wanted, gaps, -150, 150)
    assert all(b - a >= gap - 1e-6 for (a, b), gap in zip(pairwise(found), gaps, strict=True))
    assert found[0] >= -150 - 1e-6 and found[-1] <= 150 + 1e-6
    off = sum((a - b) ** 2 for a, b in zip(found, wanted, strict=True))
    # Lawful positions are a convex set: from the nearest one, every way to another lawful one leads away.
    more = data.draw(st.lists(st.floats(0, 10), min_size=len(wanted), max_size=len(wanted)))
    lawful = [-150 + more[0]]
    for gap, extra in zip(gaps, more[1:], strict=True):
        lawful.append(lawful[-1] + gap + extra)
    for part in (0.01, 0.1, 1):
        between = [a + part * (b - a) for a, b in zip(found, lawful, strict=True)]
        assert sum((a - b) ** 2 for a, b in zip(between, wanted, strict=True)) >= off - 1e-6


def test_spread_by_hand():
    assert spread([0, 0], [10], -100, 100) == [-5, 5]
    assert spread([3, 50], [10], -100, 100) == [3, 50]
    assert spread([-40, 90], [10], 0, 80) == [0, 80]
