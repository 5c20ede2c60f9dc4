"""The front on hand-made points, and the advice that follows from it."""

from pathlib import Path

import numpy as np

from convarium.data.datasets import Dataset
from convarium.race.judge import cautions
from convarium.race.result import Candidate, advise, mark_front
from convarium.report.front import pareto_front


def candidate(model: str, error: float, latency: float) -> Candidate:
    return Candidate(model, "", Path(model), 1, 1, 1.0, error, error, error, error, 1000, 1000, latency, 1.0)


def test_the_front_by_hand():
    points = [(5.0, 4.0), (7.0, 2.0), (7.0, 3.0), (9.0, 1.0), (5.0, 4.0), (9.0, 5.0), (4.9, 9.0)]
    assert pareto_front(points) == [True, True, False, True, True, False, True]
    assert pareto_front([(1.0, 1.0)]) == [True]


def test_the_quicker_one_is_named_with_its_price():
    field = mark_front([candidate("slow", 2.0, 5.0), candidate("quick", 3.5, 1.0), candidate("neither", 4.0, 6.0)])
    assert [each.on_front for each in field] == [True, True, False]
    said = advise(field, "They cannot be told apart.")
    assert said.startswith(
        "Take slow: 2.00 % error in 5.00 ms an image; if 4.00 ms matter more than 1.50 points, quick"
    )
    assert said.endswith("They cannot be told apart.")


def test_no_price_is_named_for_what_errs_no_more():
    field = mark_front([candidate("chosen", 3.0, 5.0), candidate("lucky", 2.5, 4.0)])
    assert "or lucky, 1.00 ms quicker, which errs no more" in advise(field, "")


def test_what_nobody_would_trade_is_not_named():
    field = mark_front([candidate("good", 3.0, 5.0), candidate("guess", 90.0, 0.1), candidate("same", 3.1, 4.9)])
    assert all(each.on_front for each in field)
    assert (
        advise(field, "") == "Take good: 3.00 % error in 5.00 ms an image, and none that comes near it is much quicker."
    )


def test_a_winner_that_only_guesses_is_called_so():
    labels = np.array([0, 0, 0, 1, 1] * 2)
    data = Dataset(
        "made", ["a", "b"], labels, [], np.zeros((10, 1, 1, 1)), {"val": np.arange(10), "test": np.arange(10)}
    )
    guessing, optimistic, *_ = cautions(data, "val", 2, 38.0)
    assert "commonest class always (40.0 % error)" in guessing and "those that chose" in optimistic
    assert cautions(data, "test", 1, 10.0) == []
