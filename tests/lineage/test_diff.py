"""Laws of a difference: nothing from a network to itself, the mirror image the other way, parts that add up to the
whole; and what each famous step is known to have changed."""

import json
from functools import cache
from itertools import pairwise

import pytest
from torch import nn

from convarium import create_model
from convarium.cli import main
from convarium.errors import DataError, UsageError
from convarium.facts import all_facts
from convarium.lineage.changes import align
from convarium.lineage.diff import diff, relation
from convarium.networks import create_on_meta

PAIRS = [
    ("resnet18", "se_resnet18"),
    ("resnet50", "resnet50_v1_5"),
    ("resnet34", "resnet50"),
    ("vgg16", "vgg16_bn"),
    ("vgg16", "resnet50"),
    ("googlenet", "googlenet_tv"),
    ("plain20_cifar", "resnet20_cifar"),
    ("lenet5", "alexnet"),
    ("nin_cifar", "googlenet"),
    ("mobilenet_v1", "mobilenet_v1_050"),
]


@cache
def between(a, b):
    """The difference of two names, made once for all tests."""
    return diff(a, b)


def totals(found):
    return {row.quantity: row for row in found.totals}


def names(stage):
    return [part and part.name for part in (stage.a, stage.b)]


@pytest.mark.parametrize("name", ["lenet5", "resnet50", "googlenet", "squeezenet1_1"])
def test_nothing_changes_from_a_network_to_itself(name):
    for found in (diff(name, name), diff(name, create_on_meta(name))):
        assert found.equal and found.changes == [] and found.published == []
        assert all(row.difference == 0 and row.ratio == 1 for row in found.totals if row.a)
        assert not any(stage.differs or stage.params_difference or stage.macs_difference for stage in found.stages)


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_parts_add_up_to_the_whole(a, b):
    found = between(a, b)
    counts = [all_facts()[name].counts for name in (a, b)]
    apart = [stage for stage in found.stages if None in names(stage)]
    for quantity in ("params", "macs"):
        whole = getattr(counts[1], quantity) - getattr(counts[0], quantity)
        assert totals(found)[quantity].difference == whole
        assert sum(getattr(stage, f"{quantity}_difference") for stage in found.stages) == whole
        assert sum(getattr(each, f"{quantity}_difference") for each in [*found.changes, *apart]) == whole


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_seen_from_the_other_side_it_is_mirrored(a, b):
    found, mirrored = between(a, b), between(b, a)
    assert {tuple(names(s)) for s in found.stages} == {tuple(reversed(names(s))) for s in mirrored.stages}
    changes = {(c.a, c.b, len(c.places), c.params_difference, c.macs_difference) for c in found.changes}
    assert changes == {(c.b, c.a, len(c.places), -c.params_difference, -c.macs_difference) for c in mirrored.changes}
    assert found.relation == mirrored.relation
    for row, other in zip(found.totals, mirrored.totals, strict=True):
        assert (row.a, row.b) == (other.b, other.a)


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_every_stage_has_one_row_in_its_order(a, b):
    found = between(a, b)
    for side, name in enumerate((a, b)):
        shown = [names(stage)[side] for stage in found.stages if names(stage)[side]]
        model = create_on_meta(name)
        assert shown == [*model.stages, *(part.rpartition(".")[2] for part in model.head.parts())]


def test_an_alignment_keeps_both_orders_and_every_item():
    pairs = list(align("kitten", "sitting", lambda x, y: float(x == y)))
    assert "".join(x or "" for x, _ in pairs) == "kitten" and "".join(y or "" for _, y in pairs) == "sitting"
    assert [x for x, y in pairs if x and y] == list("ittn")  # their longest common subsequence
    assert list(align("", "ab", lambda x, y: 1.0)) == [(None, "a"), (None, "b")]


@pytest.mark.parametrize(
    ("base", "blocks"), [("resnet50", {256: 3, 512: 4, 1024: 6, 2048: 3}), ("resnet20_cifar", {16: 3, 32: 3, 64: 3})]
)
def test_se_adds_one_gate_to_every_block(base, blocks):
    """Two dense layers with biases: 2 C^2 / r + C / r + C parameters, 2 C^2 / r MACs (SENet, Section 4)."""
    (gate,) = between(base, f"se_{base}").changes
    assert (gate.a, gate.b) == ("", "squeeze-and-excitation") and len(gate.places) == sum(blocks.values())
    hidden = {c: max(1, c // 16) for c in blocks}
    assert gate.macs_difference == sum(n * 2 * c * hidden[c] for c, n in blocks.items())
    assert gate.params_difference == gate.macs_difference + sum(n * (c + hidden[c]) for c, n in blocks.items())


def test_v1_5_moves_the_stride():
    found = between("resnet50", "resnet50_v1_5")
    first, second = found.changes
    assert (first.a, first.b) == ("conv 1x1/2", "conv 1x1") and (second.a, second.b) == ("conv 3x3", "conv 3x3/2")
    assert first.places == second.places == ["conv3_x.0", "conv4_x.0", "conv5_x.0"]
    # Three quarters of the first 1x1 of each of those stages, at four times the places: C/2 inputs, C/4 outputs.
    by_hand = sum((2 * side) ** 2 * (c // 2) * (c // 4) * 3 // 4 for c, side in ((512, 28), (1024, 14), (2048, 7)))
    assert first.macs_difference == totals(found)["macs"].difference == by_hand == 231_211_008
    assert totals(found)["params"].difference == second.macs_difference == 0


def test_shortcuts_have_neither_parameters_nor_macs():
    found = between("plain20_cifar", "resnet20_cifar")
    assert [(c.b, len(c.places)) for c in found.changes] == [
        ("addition of the shortcut", 9),
        ("zero-padded shortcut", 2),
    ]
    assert not found.equal and {c.params_difference for c in found.changes} == {0}


def test_batch_norm_adds_two_parameters_per_channel():
    (change,) = between("vgg16", "vgg16_bn").changes
    assert (change.a, change.b, len(change.places)) == ("conv 3x3", "conv 3x3, batch norm", 13)
    assert change.params_difference == 2 * (2 * 64 + 2 * 128 + 3 * 256 + 6 * 512)


def test_torchvisions_googlenet_has_3x3_for_5x5():
    changes = {(c.a, c.b): len(c.places) for c in between("googlenet", "googlenet_tv").changes}
    assert changes["conv 5x5", "conv 3x3, batch norm"] == 9


def test_deeper_nets_add_whole_blocks():
    (change,) = diff("resnet50", "resnet101").changes
    assert change.b.startswith("block of conv 1x1, conv 3x3, conv 1x1") and change.places == [
        f"conv4_x.{i}" for i in range(6, 23)
    ]


def test_networks_in_memory_and_other_activations():
    found = diff("resnet20_cifar", create_model("resnet20_cifar", act=nn.Tanh))
    assert {(c.a, c.b) for c in found.changes} >= {("ReLU", "Tanh")} and found.published == []
    assert totals(found)["params"].difference == 0


def test_each_at_its_own_size_or_both_at_one():
    found = between("lenet5", "alexnet")
    assert found.a.input_size == all_facts()["lenet5"].input and found.b.input_size == all_facts()["alexnet"].input
    assert diff("resnet18", "resnet34", input_size=64).b.input_size == (3, 64, 64)
    with pytest.raises(UsageError, match="at least 32x32"):
        diff("resnet18", "resnet34", input_size=16)


def test_how_networks_are_related():
    facts = all_facts()
    assert relation("resnet50", "se_resnet50").startswith("se_resnet50 descends from resnet50: ")
    assert facts["se_resnet50"].changed in relation("se_resnet50", "resnet50")
    assert relation("resnet34", "se_resnet50") == "se_resnet50 descends from resnet34 through resnet50"
    assert relation("se_resnet50", "resnext50_32x4d").endswith("both descend from resnet50")
    assert relation("resnet50", "resnet50") == ""
    chain = relation("lenet5", "se_resnet50").partition(" through ")[2].split(", ")
    for parent, child in pairwise(["lenet5", *chain, "se_resnet50"]):
        assert parent in facts[child].parents


def test_published_errors_are_of_one_protocol_and_one_table_where_there_is_one():
    for a, b in PAIRS:
        for row in between(a, b).published:
            assert row.a.quantity == row.b.quantity == row.quantity
            assert row.a.protocol == row.b.protocol == row.protocol
    top1 = between("resnet50", "se_resnet50").published[0]
    assert top1.one_table and (top1.a.value, top1.b.value) == (24.8, 23.29)  # both trained by SENet's authors


def test_runs_differ_in_recipe_error_and_size(run, tmp_path, images):
    from convarium import train

    other = tmp_path / "other"
    train(str(images), model="se_resnet20_cifar", output=other, image_size=16, epochs=1, batch_size=8, threads=1)
    found = diff(str(run), str(other))
    rows = {row.name: (row.a, row.b) for row in found.runs}
    assert rows["recipe: epochs"] == (4, 1) and rows["recipe: model"] == ("resnet20_cifar", "se_resnet20_cifar")
    assert rows["weights_mib"][1] > rows["weights_mib"][0]
    measured = [json.loads((folder / "evaluation.json").read_text())["top1_error_percent"] for folder in (run, other)]
    assert list(rows["top1_error_percent"]) == measured
    assert found.a.input_size == (3, 16, 16) and [c.b for c in found.changes] == ["squeeze-and-excitation"]
    assert diff(str(run), "se_resnet20_cifar").runs == []
    with pytest.raises(DataError, match="not a run"):
        diff(str(tmp_path), str(run))


def test_on_the_command_line(capsys):
    assert main(["diff", "resnet50", "se_resnet50"]) == 0
    shown = capsys.readouterr().out
    assert "16 x  + squeeze-and-excitation" in shown and "+2,530,992" in shown and "+2,514,944" in shown
    assert main(["diff", "resnet50", "se_resnet50", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["equal"] is False and found["changes"][0]["params_difference"] == 2_530_992
    assert main(["diff", "lenet5", "lenet5"]) == 0
    assert "lenet5 equals itself" in capsys.readouterr().out
    assert main(["diff", "vgg16", "resnet50"]) == 0
    assert "fc6" in capsys.readouterr().out


@pytest.mark.parametrize("pair", PAIRS)
def test_tables_fit_120_columns(pair):
    from rich.console import Console

    console = Console(width=120, record=True, markup=False)
    with console.capture() as shown:
        console.print(between(*pair).render())
    assert max(map(len, shown.get().splitlines())) <= 120 and "…" not in shown.get()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["resnet50", "rasnet50"], 2, "no network named 'rasnet50'; nearest: resnet50"),
        (["resnet50"], 2, "B"),
        (["nowhere/run", "resnet50"], 3, "no run folder nowhere/run"),
        (["resnet50", "resnet101", "--input-size", "16"], 2, "at least 32x32"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(capsys, arguments, code, said):
    assert main(["diff", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and said in err
