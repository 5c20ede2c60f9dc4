"""The facts: files that are wrong are refused by name, and what they say is what every view shows."""

import dataclasses
from pathlib import Path

import pytest

from convarium.cli import main
from convarium.errors import DataError
from convarium.facts import all_facts, read_facts, read_folder
from convarium.lineage.chart import comparison_figure
from convarium.lineage.compare import compare
from convarium.lineage.tree import tree

FACTS = """
[paper]
name = "N"
title = "T"
authors = "A"
venue = "V"
year = 2000
idea = "I"
lead = "n"
[networks.n]
changed = "c"
input = [1, 2, 3]
counts = { params = 1, macs = 2, source = "hand" }
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('changed = "c"', 'changd = "c"', "f.toml, n: unknown key 'changd'; keys: name, paper"),
        ("year = 2000", "", "f.toml, paper: .*missing 1 required positional argument: 'year'"),
        ("macs = 2,", "", "f.toml, n, counts: .*'macs'"),
        ('lead = "n"', 'lead = "m"', "f.toml, paper: no network named 'm' to lead it; choices: n"),
        ("year = 2000", "year =", r"f.toml is not TOML: .*line 7"),
        ("[paper]", "[papers]", "f.toml: unknown table 'papers'; tables: paper, networks"),
        ("[networks.n]", "[claims.n]", r"f.toml: no \[networks\]"),
    ],
)
def test_a_fact_file_that_is_wrong_is_refused(old, new, message):
    assert read_facts(FACTS, "f.toml")["n"].counts.macs == 2
    with pytest.raises(DataError, match=message):
        read_facts(FACTS.replace(old, new), "f.toml")


def test_a_parent_that_does_not_exist_is_named_with_its_file_and_the_nearest(tmp_path):
    (tmp_path / "old.toml").write_text(FACTS.replace('"n"', '"resnet50"').replace("networks.n", "networks.resnet50"))
    new = FACTS.replace("input", 'parents = ["resnet50"]\ninput')
    (tmp_path / "new.toml").write_text(new)
    assert read_folder(tmp_path)["n"].parents == ("resnet50",)
    (tmp_path / "new.toml").write_text(new.replace("resnet50", "resnet5O"))
    with pytest.raises(DataError) as error:
        read_folder(tmp_path)
    assert str(error.value) == "new.toml, n: no network named 'resnet5O', its parent; nearest: resnet50"


def printed(capsys, *arguments: str) -> str:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def chart(capsys) -> str:
    """What the circles' middles stand for."""
    compared = compare(("resnet*",), protocol="ImageNet validation, 1 crop")
    circles = comparison_figure(compared.points, compared.protocol).axes[0].collections
    return " ".join(f"{macs:.0f} {error}" for circle in circles for macs, error in circle.get_offsets())


# Every place that shows facts, as text. A new one (claims) gets a line here.
VIEWS = {
    "list": lambda capsys: printed(capsys, "list", "resnet50*"),
    "list --json": lambda capsys: printed(capsys, "list", "resnet50*", "--json"),
    "tree": lambda capsys: printed(capsys, "tree", "resnet101"),
    "tree --json": lambda capsys: printed(capsys, "tree", "resnet101", "--json"),
    "tree --svg": lambda capsys: tree(["resnet50"]).draw(),
    "compare": lambda capsys: printed(capsys, "compare", "resnet*"),
    "compare --json": lambda capsys: printed(capsys, "compare", "resnet*", "--json"),
    "compare --figure": chart,
    "describe": lambda capsys: printed(capsys, "describe", "resnet50"),
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_fact_changed_in_memory_is_changed_in_every_view(view, capsys, monkeypatch):
    facts = all_facts()["resnet50"]
    assert 24.7 in [figure.value for figure in facts.published] and "77.77" not in VIEWS[view](capsys)
    figures = [dataclasses.replace(f, value=77.77) if f.value == 24.7 else f for f in facts.published]
    monkeypatch.setitem(all_facts(), "resnet50", dataclasses.replace(facts, published=tuple(figures)))
    assert "77.77" in VIEWS[view](capsys)


@pytest.mark.parametrize(
    ("change", "views", "told"),
    [
        (dict(changed="a new thing"), ["tree", "tree --json", "list --json"], "a new thing"),
        (dict(parents=("vgg16",)), ["tree --json"], '"over": "vgg16"'),
        (dict(input=(3, 123, 123)), ["list", "compare"], "3x123x123"),
    ],
)
def test_what_changed_parents_and_inputs_too(change, views, told, capsys, monkeypatch):
    monkeypatch.setitem(all_facts(), "resnet50", dataclasses.replace(all_facts()["resnet50"], **change))
    for view in views:
        assert told in VIEWS[view](capsys)


def test_counts_too(capsys, monkeypatch):
    facts = all_facts()["resnet50"]
    counts = dataclasses.replace(facts.counts, params=10 * facts.counts.params, macs=10 * facts.counts.macs)
    monkeypatch.setitem(all_facts(), "resnet50", dataclasses.replace(facts, counts=counts))
    for view in ("list", "compare"):
        assert "256 M" in VIEWS[view](capsys) and "38.6 G" in VIEWS[view](capsys)
    words = " ".join(VIEWS["tree --svg"](capsys).split())
    assert "×1.78" in words and "×1.97" in words  # 255.6 M over VGG-19's 143.7 M; 38.58 G over its 19.63 G
    assert str(counts.macs) in VIEWS["compare --figure"](capsys)


def test_the_drawings_in_the_docs_are_those_of_today():
    """Made by ``convarium tree --svg docs/tree.svg`` and ``convarium compare --figure docs/compare.svg``."""
    docs = Path(__file__).parents[1] / "docs"
    assert (docs / "tree.svg").read_text() == tree().draw()
    compared, drawn = compare(), (docs / "compare.svg").read_text()
    assert compared.protocol in drawn and all(f">{point.name}<" in drawn for point in compared.points)
