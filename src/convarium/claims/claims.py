"""``claims``: every published figure that can be recomputed without training, and whether it is true."""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convarium.claims.printed import Verdict, read_printed
from convarium.errors import DataError, UsageError, nearest
from convarium.facts import NetworkFacts, Paper, Published, all_facts
from convarium.facts.claims import Claim, all_claims

if TYPE_CHECKING:
    from rich.console import RenderableType

VERDICTS: tuple[Verdict, ...] = ("equal", "within printed rounding", "differs")
SIGNS: dict[Verdict, str] = {"equal": "=", "within printed rounding": "≈", "differs": "≠"}
POPULAR = "Popular texts"

# The measure of a figure in a network's ``published``, by its quantity; figures in operations count twice.
MEASURES = {"params": "params", "macs": "macs", "connections": "connections", "neurons": "neurons"}
NAMES = {
    "params": "parameters", "macs": "multiply-adds", "operations": "operations", "connections": "connections",
    "neurons": "neurons",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One claim judged: ``ours`` as counted, and ``ours_printed`` to the digits of ``published``; ``cause`` says why it
    differs, or what else is known of it. ``anchor`` names the row on the page."""

    claim: str
    networks: tuple[str, ...]
    paper: str
    paper_title: str
    year: int | None
    where: str
    published: str
    unit: str
    ours: int | float
    ours_printed: str
    verdict: Verdict
    cause: str
    anchor: str


@dataclass(frozen=True)
class Claims:
    """The rows by paper, oldest first, and the files that were written."""

    rows: list[Row]
    written: tuple[Path, ...] = ()

    @property
    def summary(self) -> dict[str, int]:
        """How many rows have each verdict."""
        counted = Counter(row.verdict for row in self.rows)
        return {verdict: counted[verdict] for verdict in VERDICTS}

    def groups(self) -> list[tuple[str, list[Row]]]:
        """Title and rows of each paper."""
        titles = dict.fromkeys(_title(row) for row in self.rows)
        return [(title, [row for row in self.rows if _title(row) == title]) for title in titles]

    def as_dict(self) -> dict[str, Any]:
        return {"summary": self.summary, "claims": [asdict(row) for row in self.rows]}

    def render(self) -> RenderableType:
        from convarium.claims.page import claims_tables

        return claims_tables(self)


def claims(filter: str = "", /, *, html: Path | None = None, markdown: Path | None = None) -> Claims:
    """Recompute what papers and popular texts print: parameters, multiply-adds, ratios, sizes, receptive fields.

    Every network is built on the meta device and counted; nothing is trained and error rates are no claims. A count
    that rounds to the printed digits is "within printed rounding"; one that does not "differs", and its cause is told.

    Args:
        filter: a wildcard of networks or papers, such as "googlenet*" or "SENet"; everything when empty.
        html: also write one self-contained page.
        markdown: also write the tables as Markdown.

    Raises:
        UsageError: nothing matches.
        DataError: a claim in the fact files that cannot be measured.
        ConvariumError: a file that cannot be written.
    """
    from convarium.claims.measures import Measurer
    from convarium.console import counting

    chosen = find_claims(filter)
    measurer = Measurer()
    rows = []
    with counting("counting", len(chosen)) as tick:
        for number, claim in enumerate(chosen, 1):
            rows.append(_judge(claim, measurer.measure))
            tick(number)
    judged = Claims(rows, tuple(Path(path) for path in (html, markdown) if path))
    if html or markdown:
        from convarium.claims.page import write_html, write_markdown

        if html:
            write_html(Path(html), judged)
        if markdown:
            write_markdown(Path(markdown), judged)
    return judged


def find_claims(filter: str = "") -> list[Claim]:
    """The claims on networks or of papers whose name matches a wildcard, by the papers' years, popular texts last.

    Raises:
        UsageError: nothing matches.
    """
    from convarium.claims.measures import networks_of

    every = sorted([*_published_claims(), *all_claims()], key=_order)
    if not filter:
        return every
    names = {id(claim): {_name(claim.paper), *networks_of(claim.ours)} for claim in every}
    found = [c for c in every if any(fnmatch.fnmatch(name.lower(), filter.lower()) for name in names[id(c)])]
    if not found:
        known = sorted(set().union(*names.values()))
        raise UsageError(f"no claim is on {filter!r}; {nearest(filter.strip('*'), known)}")
    return found


def _order(claim: Claim) -> tuple[int, str]:
    return (claim.paper.year, claim.paper.title) if claim.paper else (9999, "")


def _published_claims() -> Iterator[Claim]:
    """The figures of every network's ``published`` that can be recomputed: all but errors."""
    for network in all_facts().values():
        for fact in network.published:
            if fact.quantity in MEASURES:
                yield _published_claim(network, fact)


def _published_claim(network: NetworkFacts, fact: Published) -> Claim:
    measure = "operations" if fact.unit == "operations" else MEASURES[fact.quantity]
    return Claim(
        claim=f"{network.name}: {NAMES[measure]}",
        where=fact.where,
        published=fact.printed or f"{fact.value:,.0f}",
        unit=fact.unit,
        ours={"measure": measure, "network": network.name},
        cause=fact.note,
        paper=network.paper,
    )


def _judge(claim: Claim, measure: Any) -> Row:
    from convarium.claims.measures import networks_of

    try:
        printed = read_printed(claim.published, claim.kilo)
        count: Fraction = measure(claim.ours)
    except DataError as error:
        raise DataError(f"{_name(claim.paper)}, claim {claim.claim!r}: {error}") from None
    return Row(
        claim=claim.claim,
        networks=tuple(sorted(networks_of(claim.ours))),
        paper=_name(claim.paper),
        paper_title=claim.paper.title if claim.paper else "",
        year=claim.paper.year if claim.paper else None,
        where=claim.where,
        published=claim.published,
        unit=claim.unit,
        ours=int(count) if count.denominator == 1 else float(count),
        ours_printed=printed.alike(count),
        verdict=printed.verdict(count),
        cause=claim.cause,
        anchor=_slug(f"{_name(claim.paper)} {claim.claim} {claim.where}"),
    )


def _name(paper: Paper | None) -> str:
    return paper.name if paper else POPULAR


def _title(row: Row) -> str:
    return f"{row.paper} ({row.year})" if row.year else row.paper


def _slug(text: str) -> str:
    return "-".join(re.findall(r"[a-z0-9.]+", text.lower()))


def shown(count: int | float) -> str:
    """A count in full, a ratio with four digits."""
    return f"{count:,}" if isinstance(count, int) else f"{count:.4g}"


def summary_line(judged: Claims) -> str:
    """``245 claims: = 40 equal, ≈ 110 within printed rounding, ≠ 95 differ``."""
    noun = "claim" if len(judged.rows) == 1 else "claims"
    counted = ((verdict, judged.summary[verdict]) for verdict in VERDICTS)
    counts = (f"{SIGNS[verdict]} {n} {'differ' if verdict == 'differs' else verdict}" for verdict, n in counted)
    return f"{len(judged.rows)} {noun}: {', '.join(counts)}"
