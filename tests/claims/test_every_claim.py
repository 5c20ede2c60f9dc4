"""Every claim: judged, explained where it differs, and on the pages."""

import html
from html.parser import HTMLParser
from pathlib import Path

import pytest

from convarium.claims.claims import claims
from convarium.claims.page import write_html, write_markdown
from convarium.claims.printed import read_printed
from convarium.facts import all_facts
from convarium.facts.claims import all_claims

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("claims")]

DOCS = Path(__file__).parents[2] / "docs" / "claims.md"


@pytest.fixture(scope="module")
def every():
    return claims()


def test_every_figure_is_a_row(every):
    measured = ("top1_error_percent", "top5_error_percent", "latency_ms")  # only training or their machine would tell
    figures = [f for facts in all_facts().values() for f in facts.published if f.quantity not in measured]
    assert len(every.rows) == len(figures) + len(all_claims()) == sum(every.summary.values())
    assert len({row.anchor for row in every.rows}) == len(every.rows)


def test_what_differs_has_a_cause(every):
    assert [row.claim for row in every.rows if row.verdict == "differs" and not row.cause] == []


def test_what_is_called_truncated_is(every):
    """The count cut after the printed digits is the print."""
    cut = [row for row in every.rows if row.cause.startswith(("truncated", "cut"))]
    assert len(cut) > 5
    for row in cut:
        kilo = 1024 if "K = 1024" in row.where else 1000
        printed = read_printed(row.published, kilo)
        assert row.verdict == "differs"
        assert printed.value <= row.ours < printed.value + printed.scale / 10**printed.decimals, row.claim


def test_counts_are_the_references(every):
    for row in every.rows:
        name, _, quantity = row.claim.partition(": ")
        if name in all_facts() and quantity in ("parameters", "multiply-adds"):
            counts = all_facts()[name].counts
            assert row.ours == (counts.params if quantity == "parameters" else counts.macs)


def test_papers_stand_in_the_order_of_their_years(every):
    years = [row.year or 9999 for row in every.rows]
    assert years == sorted(years) and years[-1] == 9999


def test_the_page_has_every_row(every, tmp_path):
    write_html(tmp_path / "page.html", every)
    text = (tmp_path / "page.html").read_text()
    page = Page(text)
    assert page.ids == [row.anchor for row in every.rows]
    assert "http" not in text and "<script" not in text
    for row in every.rows:
        for shown in (row.claim, row.published, row.verdict, row.cause):
            assert html.escape(shown, quote=False).replace('"', "&#34;").replace("'", "&#39;") in text


def test_the_documentation_is_what_the_command_writes(every, tmp_path):
    write_markdown(tmp_path / "claims.md", every)
    written = "convarium claims --markdown docs/claims.md"
    assert (tmp_path / "claims.md").read_text() == DOCS.read_text(), f"write it anew: {written}"


class Page(HTMLParser):
    """The anchors of the rows of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "tr" and (anchor := dict(attributes).get("id")):
            self.ids.append(anchor)
