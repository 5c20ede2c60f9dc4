"""Reading a printed figure, and judging ours by the digits that were printed."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Literal

from convarium.errors import DataError

Verdict = Literal["equal", "within printed rounding", "differs"]

EXPONENTS = {"": 0, "k": 1, "thousand": 1, "m": 2, "million": 2, "g": 3, "billion": 3}
BOUNDS = {"over": ">", "more than": ">", ">": ">", "under": "<", "less than": "<", "<": "<"}
FIGURE = re.compile(
    r"(?P<bound>over |more than |> ?|under |less than |< ?)?(?:~|about |close to )?"
    r"(?:10\^(?P<power>\d+)|(?P<digits>\d[\d,]*(?:\.\d+)?)(?:e(?P<exponent>\d+))?"
    r"(?P<suffix> ?(?:[kKMG]|thousand|million|billion)(?=B\b|FLOP|\b))?)(?P<rest>[^\d^]*)"
)


@dataclass(frozen=True)
class Printed:
    """``number`` x ``scale``; ``bound`` is ``">"`` or ``"<"`` for "over" and "under" a number; ``comma`` is what parted
    its thousands, ``after`` what followed its digits."""

    number: Decimal
    scale: int
    bound: str
    comma: str
    after: str

    @property
    def value(self) -> Fraction:
        return Fraction(self.number) * self.scale

    @property
    def decimals(self) -> int:
        return max(0, -int(self.number.as_tuple().exponent))

    def rounded(self, count: Fraction) -> Decimal:
        """``count`` to the digits that were printed, halves up, in units of ``scale``."""
        shift = 10**self.decimals
        return Decimal(math.floor(count / self.scale * shift + Fraction(1, 2))) / shift

    def alike(self, count: Fraction) -> str:
        """``count`` as the figure would have been printed."""
        if self.after.startswith("10^"):
            power = round(math.log10(count)) if count > 0 else 0
            return f"10^{power}" if count == 10**power else f"{float(count):.3g}"
        return f"{self.rounded(count):{self.comma}.{self.decimals}f}{self.after}"

    def verdict(self, count: Fraction) -> Verdict:
        """What ``count`` makes of the figure. A bound that holds is within the rounding of words."""
        if self.bound:
            holds = count > self.value if self.bound == ">" else count < self.value
            return "within printed rounding" if holds else "differs"
        if count == self.value:
            return "equal"
        return "within printed rounding" if self.rounded(count) == self.number else "differs"


def read_printed(text: str, kilo: int = 1000) -> Printed:
    """Read a figure: ``3.86 G``, ``60,000``, ``13.6e6``, ``15.3 billion``, ``~4 %``, ``over 500 MB``, ``10^12``.

    All digits count, also a whole number's last zeros. ``kilo`` is what K, M and G are powers of.

    Raises:
        DataError: no such figure.
    """
    found = FIGURE.fullmatch(text)
    if found is None:
        raise DataError(
            f"no figure can be read from {text!r}; written like 3.86 G, 60,000, 13.6e6, ~4 % or over 500 MB"
        )
    bound = BOUNDS.get((found["bound"] or "").strip(), "")
    if found["power"]:
        return Printed(Decimal(1), 10 ** int(found["power"]), bound, "", "10^")
    suffix = found["suffix"] or ""
    power = "" if found["exponent"] is None else f"e{found['exponent']}"
    scale = kilo ** EXPONENTS[suffix.strip().lower()] * 10 ** int(found["exponent"] or 0)
    digits = found["digits"]
    comma = "," if "," in digits else ""
    return Printed(Decimal(digits.replace(",", "")), scale, bound, comma, power + suffix + found["rest"])
