"""The command, and the claims of the fact files."""

import json
import re
from dataclasses import replace

import pytest

from convarium.claims import claims as module
from convarium.claims.claims import VERDICTS, claims, find_claims
from convarium.cli import main
from convarium.errors import DataError, UsageError
from convarium.facts import all_facts, read_facts
from convarium.facts.claims import read_claims

# -- the command ------------------------------------------------------------------------------------------------


def test_a_wildcard_of_networks_or_papers():
    assert {row.paper for row in claims("lenet5").rows} == {"LeNet", "Popular texts"}
    assert {claim.paper.name for claim in find_claims("xcep*")} == {"Xception"}
    assert {claim.paper for claim in find_claims("popular*")} == {None}
    with pytest.raises(UsageError, match=r"no claim is on 'lenet6'; nearest: lenet5"):
        claims("lenet6")


def test_the_command(capsys, tmp_path):
    assert main(["claims", "LeNet", "--html", str(tmp_path / "c.html"), "--markdown", str(tmp_path / "c.md")]) == 0
    out = capsys.readouterr().out
    assert "lenet5: connections" in out and "340,908  =  340,908" in out
    assert re.search(r"\d+ claims: = \d+ equal, ≈ 0 within printed rounding, ≠ 0 differ\nwritten to ", out)
    assert "340,908" in (tmp_path / "c.html").read_text() and "| 340,908 |" in (tmp_path / "c.md").read_text()
    assert main(["claims", "LeNet", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["summary"]["differs"] == 0 and list(document["summary"]) == list(VERDICTS)
    assert document["claims"][0]["ours"] == 60_000 and document["claims"][0]["where"] == "Section II-B"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["lenet6"], 2, "no claim is on 'lenet6'; nearest: lenet5"),
        (["LeNet", "--htm", "x"], 2, "no option --htm; nearest: --html"),
        (["LeNet", "--html", "nowhere/c.html"], 1, "cannot write nowhere/c.html"),
        (["LeNet", "--markdown", "nowhere/c.md"], 1, "cannot write nowhere/c.md"),
    ],
)
def test_bad_requests(capsys, arguments, code, said):
    assert main(["claims", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and said in err


def test_a_changed_fact_is_seen(monkeypatch):
    facts = all_facts()["lenet5"]
    wrong = replace(facts.published[0], value=61_000, printed="61,000", note="for a test")
    monkeypatch.setitem(all_facts(), "lenet5", replace(facts, published=(wrong,)))
    row = claims("LeNet").rows[0]
    assert (row.published, row.verdict, row.cause) == ("61,000", "differs", "for a test")


# -- fact files -------------------------------------------------------------------------------------------------

CLAIM = """
[[claims]]
claim = "c"
where = "w"
published = "3"
unit = "u"
ours = { measure = "params", network = "lenet5" }
"""


def test_a_file_of_claims_alone_has_no_networks():
    (claim,) = read_claims(CLAIM, "f.toml")
    assert claim.paper is None and claim.kilo == 1000 and claim.cause == ""
    assert read_facts(CLAIM, "f.toml") == {}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('unit = "u"', 'unitt = "u"', "f.toml, claim 'c': unknown key 'unitt'; keys: claim, where, published"),
        ('where = "w"', "", "f.toml, claim 'c': .*'where'"),
        ('claim = "c"', "", "f.toml, claim 1: .*'claim'"),
    ],
)
def test_a_claim_with_a_wrong_key_is_refused(old, new, message):
    with pytest.raises(DataError, match=message):
        read_claims(CLAIM.replace(old, new), "f.toml")


def test_an_unknown_table_is_refused():
    with pytest.raises(DataError, match=r"f.toml: unknown table 'claim'; tables: paper, networks, claims"):
        read_facts(CLAIM.replace("[[claims]]", "[[claim]]"), "f.toml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"3"', '"three"', "Popular texts, claim 'c': no figure can be read from 'three'"),
        ('"params"', '"parms"', "Popular texts, claim 'c': no measure 'parms'; nearest: params"),
        ('"lenet5"', '"lenet6"', "Popular texts, claim 'c': no network named 'lenet6'; nearest: lenet5"),
    ],
)
def test_a_claim_that_cannot_be_measured_is_named(monkeypatch, old, new, message):
    found = tuple(read_claims(CLAIM.replace(old, new), "f.toml"))
    monkeypatch.setattr(module, "all_claims", lambda: found)
    with pytest.raises(DataError, match=message):
        claims("Popular texts")
