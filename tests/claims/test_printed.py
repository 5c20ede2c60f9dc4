"""Reading printed figures, and the verdict by their digits."""

from fractions import Fraction

import pytest

from convarium.claims.printed import read_printed
from convarium.errors import DataError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("60,000", 60_000),
        ("4096", 4096),
        ("3.86 G", 3_860_000_000),
        ("13.6e6", 13_600_000),
        ("0.714e9", 714_000_000),
        ("6797.7K", 6_797_700),
        ("~70k", 70_000),
        ("15.3 billion", 15_300_000_000),
        ("over 60 million", 60_000_000),
        ("> 500 MB", 500_000_000),
        ("1.72 GFLOPS/image", 1_720_000_000),
        ("~4 %", 4),
        ("close to 10 times", 10),
        ("10^12", 10**12),
    ],
)
def test_every_way_of_printing_is_read(text, value):
    assert read_printed(text).value == value


def test_kilo_is_what_k_and_m_are_powers_of():
    assert read_printed("112K", 1024).value == 114_688
    assert read_printed("2 MB", 1024).value == 2 * 2**20


@pytest.mark.parametrize(
    ("text", "count", "verdict", "alike"),
    [
        ("60,000", 60_000, "equal", "60,000"),
        ("3.86 G", 3_857_973_248, "within printed rounding", "3.86 G"),
        ("3.8e9", 3_857_973_248, "differs", "3.9e9"),  # truncated
        ("3.86 G", 3_855_000_000, "within printed rounding", "3.86 G"),  # halves go up
        ("3.86 G", 3_865_000_000, "differs", "3.87 G"),
        ("3.86 G", 3_854_999_999, "differs", "3.85 G"),
        ("650,000", 659_272, "differs", "659,272"),  # a whole number is printed to the unit
        ("60 million", 60_965_224, "differs", "61 million"),
        ("over 60 million", 60_965_224, "within printed rounding", "61 million"),
        ("over 60 million", 60_000_000, "differs", "60 million"),
        ("under 25 million", 23_834_568, "within printed rounding", "24 million"),
        ("~4 %", Fraction(368, 100), "within printed rounding", "4 %"),
        ("28 %", Fraction(700, 25), "equal", "28 %"),
        ("2.78 times", Fraction(25, 9), "within printed rounding", "2.78 times"),
        ("2.78 times", Fraction(25, 18), "differs", "1.39 times"),
        ("10^12", 10**12, "equal", "10^12"),
        ("10^8", 98_208_100, "within printed rounding", "9.82e+07"),
        ("10^8", 340_000_000, "differs", "3.4e+08"),
    ],
)
def test_the_digits_decide(text, count, verdict, alike):
    printed = read_printed(text)
    assert printed.verdict(Fraction(count)) == verdict
    assert printed.alike(Fraction(count)) == alike


@pytest.mark.parametrize("text", ["", "many", "5x5", "3.8.6 G", "3 to 4", "10^"])
def test_what_is_no_figure_is_refused(text):
    with pytest.raises(DataError, match="no figure can be read"):
        read_printed(text)
