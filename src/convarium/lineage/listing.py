"""``list``: the catalogue with its facts, without importing torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from convarium.errors import UsageError, nearest
from convarium.facts import all_facts
from convarium.networks import CATALOGUE, list_models

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Listed:
    """One network: reference counts for the paper's input, and the first error its paper printed."""

    name: str
    year: int
    input: tuple[int, int, int]
    params: int
    macs: int
    published_top1_error_percent: float | None
    protocol: str
    changed: str


@dataclass(frozen=True)
class Listing:
    """The networks that match."""

    networks: list[Listed]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def render(self) -> RenderableType:
        from convarium.console import percent, short, table

        rows = table("network", ">year", ">input", ">params", ">MACs", ">error", "protocol")
        for row in self.networks:
            error = "" if row.published_top1_error_percent is None else percent(row.published_top1_error_percent)
            size = "x".join(map(str, row.input))
            rows.add_row(row.name, str(row.year), size, short(row.params), short(row.macs), error, row.protocol)
        return rows


def list_networks(filter: str = "", *, exclude: str = "") -> Listing:
    """List the networks whose name matches a wildcard.

    Args:
        filter: such as "se_*"; everything when empty.
        exclude: a wildcard of names to leave out.

    Raises:
        UsageError: nothing matches.
    """
    names = list_models(filter, exclude)
    if not names:
        raise UsageError(f"no network matches {filter!r}; {nearest(filter.strip('*'), CATALOGUE)}")
    facts = all_facts()
    rows = []
    for name in names:
        known = facts[name]
        error = known.printed("top1_error_percent")
        rows.append(
            Listed(
                name,
                known.paper.year,
                known.input,
                known.counts.params,
                known.counts.macs,
                error.value if error else None,
                error.protocol if error else "",
                known.changed,
            )
        )
    return Listing(rows)
