"""Intervals and paired tests, against scipy, hand computations, and how often they hold the truth."""

import numpy as np
import pytest
from scipy import stats

from convarium.errors import DataError, UsageError
from convarium.evaluation.metrics import top_k_error_percent, top_k_wrong
from convarium.evaluation.statistics import (
    error_interval_percent,
    mcnemar_p_value,
    mean_interval,
    paired_test,
    wilson_interval,
)


def flags(count: int, images: int) -> np.ndarray:
    return np.arange(images) < count


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (0, 5), (5, 5), (3, 11), (40, 60), (510, 600)])
def test_mcnemar_is_the_exact_binomial_test(only_first, only_second):
    differing = only_first + only_second
    expected = stats.binomtest(only_first, differing).pvalue if differing else 1.0
    assert mcnemar_p_value(only_first, only_second) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_by_hand():
    assert mcnemar_p_value(0, 5) == 2 / 32  # all five heads or all five tails
    assert mcnemar_p_value(1, 4) == 2 * (1 + 5) / 32
    assert mcnemar_p_value(7, 7) == 1.0


def test_mcnemar_of_many_images_neither_overflows_nor_vanishes():
    assert mcnemar_p_value(9_800, 10_200) == pytest.approx(stats.binomtest(9_800, 20_000).pvalue, rel=1e-9)
    assert mcnemar_p_value(0, 1_000) == 2.0**-999


@pytest.mark.parametrize("hits", [0, 1, 37, 360])
def test_wilson_is_scipys(hits):
    expected = stats.binomtest(hits, 360).proportion_ci(0.95, method="wilson")
    assert wilson_interval(hits, 360) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("values", [flags(7, 360).astype(float), np.random.default_rng(3).exponential(size=360)])
def test_the_bootstrap_is_scipys_bca(values):
    """Of rates, which are drawn as counts, and of values that all differ."""
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    width = expected.high - expected.low
    assert mean_interval(values) == pytest.approx((expected.low, expected.high), abs=0.06 * width)


def test_the_bootstrap_of_many_ordinary_values_is_the_normal_interval():
    values = np.random.default_rng(0).normal(3, 2, 2_000)
    half = 1.96 * values.std() / 2_000**0.5
    assert mean_interval(values) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05 * half)


def test_resamples_are_seeded():
    values = np.random.default_rng(0).random(500)
    assert mean_interval(values) == mean_interval(values) != mean_interval(values, seed=1)


@pytest.mark.parametrize("error", [0.005, 0.01, 0.03, 0.1])
def test_the_interval_holds_the_true_error_about_95_times_in_a_hundred(error):
    """Over every number of mistakes that 360 images can show, by its probability."""
    held = 0.0
    for mistakes in range(361):
        chance = stats.binom.pmf(mistakes, 360, error)
        if chance > 1e-5:
            low, high = error_interval_percent(flags(mistakes, 360))
            held += chance * (low <= 100 * error <= high)
    assert 0.93 < held < 0.99


def test_no_mistake_in_few_images_is_not_an_error_of_nothing():
    low, high = error_interval_percent(flags(0, 100))
    assert low == 0 and high == pytest.approx(100 * 1.959964**2 / (100 + 1.959964**2))
    assert error_interval_percent(flags(100, 100)) == pytest.approx((100 - high, 100))


def test_a_better_network_is_said_to_be_better_by_how_much():
    first, second = flags(60, 1_000), flags(30, 1_000)
    paired = paired_test(first, second, first="A", second="B")
    assert (paired.only_first_wrong, paired.only_second_wrong) == (30, 0)
    assert paired.difference_percent == pytest.approx(-3.0) and paired.better == "B"
    low, high = paired.interval_percent
    assert low < -3 < high < 0
    assert paired.sentence().startswith("B makes 3.0 points fewer errors than A (95 % interval 2.")
    assert paired.sentence().endswith("p < 0.001)")


def test_who_comes_first_does_not_matter():
    generator = np.random.default_rng(0)
    first, second = generator.random(2_000) < 0.10, generator.random(2_000) < 0.06
    there = paired_test(first, second, first="A", second="B")
    back = paired_test(second, first, first="B", second="A")
    assert there.better == back.better == "B" and there.p_value == back.p_value
    assert there.difference_percent == -back.difference_percent
    assert there.interval_percent == pytest.approx([-end for end in reversed(back.interval_percent)], abs=0.1)


def test_what_the_images_cannot_tell_is_said():
    paired = paired_test(flags(20, 360), np.roll(flags(18, 360), 5), first="A", second="B")
    assert paired.better is None
    assert paired.sentence() == (
        "These 360 images cannot tell A and B apart: 5 are wrong with the first only, 3 with the second only (p = 0.73)"
    )
    same = paired_test(flags(20, 360), flags(20, 360), first="A", second="B")
    assert same.sentence() == "These 360 images cannot tell A and B apart: both err on the same ones"
    assert same.p_value == 1 and same.interval_percent == pytest.approx((-1.056, 1.056), abs=1e-3)  # Wilson, 0 of 360


@pytest.mark.parametrize("effect", [0.0, 0.02])
def test_a_true_difference_is_in_the_interval_and_equal_networks_are_seldom_told_apart(effect):
    generator, held, told = np.random.default_rng(7), 0, 0
    for _ in range(300):
        hard, luck = generator.random(1_000) < 0.05, generator.random((2, 1_000))
        paired = paired_test(hard | (luck[0] < 0.05 + effect), hard | (luck[1] < 0.05), first="A", second="B")
        low, high = paired.interval_percent
        held += low <= -100 * effect * 0.95 <= high
        told += paired.better is not None
    assert 0.91 < held / 300 < 0.98
    if not effect:
        assert told / 300 < 0.06  # the exact test is told apart by chance at most 1 time in 20


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="no images to judge on"):
        error_interval_percent(flags(0, 0))
    with pytest.raises(UsageError, match="A and B were judged on 3 and 4 images: a paired test needs the same ones"):
        paired_test(flags(0, 3), flags(0, 4), first="A", second="B")


def test_top_k_by_hand():
    probabilities = np.array([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.4, 0.4, 0.2]])
    assert top_k_wrong(probabilities, np.array([1, 2, 1]), 1).tolist() == [True, False, True]  # a tie: the lower class
    assert top_k_wrong(probabilities, np.array([1, 0, 1]), 2).tolist() == [False, True, False]
    assert top_k_error_percent(probabilities, np.array([1, 0, 1]), 2) == pytest.approx(100 / 3)
