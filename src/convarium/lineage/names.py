"""Names of the catalogue: found by wildcards, and many of them in few words."""

import re
from collections.abc import Iterable

from convarium.errors import UsageError, nearest
from convarium.networks import CATALOGUE, list_models


def matching(names: Iterable[str]) -> list[str]:
    """Catalogue names that match any of ``names``, which may be wildcards.

    Raises:
        UsageError: one of them matches nothing.
    """
    found: dict[str, None] = {}
    for name in names:
        matches = list_models(name) if name else []
        if not matches:
            raise UsageError(
                f"no network matches {name!r}; {nearest(name.strip('*'), CATALOGUE)} (all: convarium list)"
            )
        found |= dict.fromkeys(matches)
    return list(found)


def short_names(names: Iterable[str]) -> list[str]:
    """Names that differ in their first number alone in one: ``resnet18/34/50``, ``resnet20/56_cifar``."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name in names:
        before, number, after = re.fullmatch(r"(\D*)(\d*)(.*)", name).groups()  # type: ignore[union-attr]
        groups.setdefault((before, after), []).append(number)
    return [f"{before}{'/'.join(numbers)}{after}" for (before, after), numbers in groups.items()]


def many(count: int, thing: str) -> str:
    """``1 paper``, ``18 papers``."""
    return f"{count} {thing}" + "s" * (count != 1)
