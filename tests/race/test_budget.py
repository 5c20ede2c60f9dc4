"""The shares of a budget: equal in every round, twice as much for each who goes on, and never more than there is."""

from itertools import pairwise

import pytest

from convarium.errors import UsageError
from convarium.race.budget import Budget, epochs_by_round, epochs_in, field_sizes, parse_budget, share_s


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("90s", Budget("90s", 90, 0)),
        ("1.5h", Budget("1.5h", 5400, 0)),
        (" 10 m", Budget("10 m", 600, 0)),
        ("20 epochs", Budget("20 epochs", 0, 20)),
        ("1epoch", Budget("1epoch", 0, 1)),
    ],
)
def test_budgets_are_read(text, budget):
    assert parse_budget(text) == budget


@pytest.mark.parametrize("text", ["20", "", "ten minutes", "0s", "0epochs", "2.5epochs", "-3m", "1d", "10m20s"])
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(UsageError, match="such as 90s, 10m or 1h"):
        parse_budget(text)


@pytest.mark.parametrize(("candidates", "sizes"), [(2, [2]), (3, [3, 2]), (4, [4, 2]), (5, [5, 3, 2]), (8, [8, 4, 2])])
def test_the_better_half_goes_on_until_two_are_left(candidates, sizes):
    assert field_sizes(candidates) == sizes


@pytest.mark.parametrize("rounds", [1, 2, 3, 4])
def test_epochs_add_up_and_double(rounds):
    for epochs in range(rounds, 200):
        parts = epochs_by_round(epochs, rounds)
        assert sum(parts) == epochs and min(parts) >= 1
        assert all(abs(after - 2 * before) <= 2 for before, after in pairwise(parts))
    assert epochs_by_round(7 * 2, 3) == [2, 4, 8]
    with pytest.raises(UsageError, match=f"{rounds}epochs"):
        epochs_by_round(rounds - 1, rounds)


def test_time_is_shared_by_rounds_and_then_by_those_who_run():
    assert share_s(120, [4, 2]) == 15 and share_s(60, [2]) == 30
    sizes, left = field_sizes(5), 90.0
    for place, running in enumerate(sizes):
        left -= running * share_s(left, sizes[place:])
    assert left == pytest.approx(0)


def test_epochs_are_whole_and_one_at_least():
    assert epochs_in(10, 3) == 3 and epochs_in(10, 11) == 1
