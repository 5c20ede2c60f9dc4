"""How far maps and numbers move, by hand and against scipy; two runs side by side on one page."""

import json
import shutil

import numpy as np
import pytest

from convarium import explain
from convarium.cli import main
from convarium.errors import DataError, UsageError
from convarium.explanation.moved import heat_moved, numbers_moved, overlap, rank_correlation, ranks
from convarium.runs import load_run, save_run


def test_ranks_share_their_mean_and_the_correlation_is_spearmans():
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1, 3.5, 2]
    # Without ties Spearman's is 1 - 6 sum(d^2) / n(n^2 - 1): here d = 1, 1, 0, so 1 - 12 / 24.
    assert rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([20.0, 10.0, 30.0])) == pytest.approx(0.5)
    stats = pytest.importorskip("scipy.stats")
    a, b = np.random.default_rng(0).integers(0, 5, (2, 6, 6)).astype(float)
    assert rank_correlation(a, b) == pytest.approx(stats.spearmanr(a.ravel(), b.ravel()).statistic)


def test_what_did_not_move_moved_nowhere():
    heat = np.random.default_rng(0).random((10, 10))
    same, opposite = heat_moved(heat, 3 * heat + 1), heat_moved(heat, -heat)
    assert (same.rank_correlation, same.overlap) == (pytest.approx(1), 1)
    assert (opposite.rank_correlation, opposite.overlap) == (pytest.approx(-1), 0)
    assert heat_moved(heat, np.zeros((10, 10))).rank_correlation is None


def test_the_overlap_by_hand_and_maps_of_two_sizes():
    a, b = np.zeros((2, 10)), np.zeros((2, 10))
    a[0, [1, 5]], b[0, [5, 7]] = 1, 1  # the strongest tenth of 20 are two; one is common
    assert overlap(a, b) == 0.5
    coarse = np.arange(16.0).reshape(4, 4)
    assert heat_moved(coarse.repeat(2, 0).repeat(2, 1), coarse).rank_correlation > 0.95


def test_numbers_are_compared_under_the_same_path():
    moved = numbers_moved(
        {"a": 1.0, "b": {"c": [1, 2]}, "name": "x", "flag": True, "alone": 3}, {"a": 1.5, "b": {"c": [1, 4.0]}}
    )
    assert (moved.shared, moved.mean_difference, moved.largest) == (3, pytest.approx(2.5 / 3), "b.c[1]")
    assert (moved.before, moved.after) == (2, 4)
    assert numbers_moved({"a": "x"}, {"a": "y"}) is None


# -- two runs ----------------------------------------------------------------------------------------------------

METHODS = "gradcam,gradient,faithfulness"


@pytest.fixture(scope="module")
def other(run, tmp_path_factory):
    """The same network after its early filters were made half as large."""
    copy = load_run(run)
    copy.model.stages["conv1"][0].weight.data.mul_(0.5)
    return saved(copy, tmp_path_factory.mktemp("other") / "halved", copy.class_names)


@pytest.fixture(scope="module")
def renamed(run, tmp_path_factory):
    """The same weights under other names, of which two are shared, in another order."""
    return saved(load_run(run), tmp_path_factory.mktemp("renamed") / "renamed", ["bee", "ant", "dog"])


def saved(run, path, names):
    path.mkdir()
    save_run(path, run.model, run.preprocessing, names, data=run.own["data"])
    return path


@pytest.mark.long
def test_a_run_beside_itself_has_not_moved(run, images, tmp_path):
    result = explain(run, [images / "bee" / "000.png"], beside=run, method=METHODS, output=tmp_path)
    heat = [row.heat for row in result.moved if row.heat]
    assert [(each.rank_correlation, each.overlap) for each in heat] == [(pytest.approx(1), 1)] * 2
    (curves,) = [row.numbers for row in result.moved if row.numbers]
    assert curves.mean_difference == 0 and curves.shared == 13
    assert result.images == result.beside_images


@pytest.mark.long
def test_two_runs_stand_side_by_side(run, other, images, tmp_path, capsys):
    pictures = [str(images / name / "000.png") for name in ("bee", "cat")]
    arguments = ["explain", str(run), *pictures, "--beside", str(other), "--method", METHODS, "--output", str(tmp_path)]
    assert main([*arguments, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert len(shown["rows"]) == 10 and {row["run"] for row in shown["rows"]} == {str(run), str(other)}
    assert len(list(tmp_path.glob("*.png"))) == 10 == len({row["picture"] for row in shown["rows"]})
    moved = [row["heat"]["rank_correlation"] for row in shown["moved"] if row["heat"]]
    assert len(moved) == 4 and all(-1 <= each < 0.9999 for each in moved)
    page = (tmp_path / "index.html").read_text()
    assert page.count("<svg") == 10 and page.count("rank correlation") == 4
    assert main(arguments) == 0
    assert "same strongest tenth" in capsys.readouterr().out


def test_both_speak_of_the_class_that_the_first_predicts(run, other, images, tmp_path):
    """On the data set, too, and for the same images."""
    result = explain(run, data=str(images), count=2, beside=other, method="gradcam", output=tmp_path)
    first, second = ([row for row in result.rows if row.run == str(each)] for each in (run, other))
    assert [(row.name, row.numbers["class"]) for row in first] == [(row.name, row.numbers["class"]) for row in second]
    assert [row.numbers["class"] for row in first] == [seen.label for seen in result.images]


def test_other_classes_are_refused_or_matched_by_name(run, renamed, images, tmp_path, capsys):
    picture = str(images / "cat" / "000.png")
    assert main(["explain", str(run), picture, "--beside", str(renamed)]) == 3
    said = capsys.readouterr().err
    assert "different classes, 3 and 3 ('cat' is in one of them only): add --map-by-name to compare the 2" in said
    result = explain(run, [picture], beside=renamed, map_by_name=True, output=tmp_path)
    assert {row.numbers["class"] for row in result.rows} in ({"ant"}, {"bee"})
    with pytest.raises(UsageError, match="no class 'cat'"):
        explain(run, [picture], beside=renamed, map_by_name=True, class_name="cat", output=tmp_path)


def test_no_class_in_common_and_no_second_run_are_named(run, images, tmp_path):
    picture = images / "cat" / "000.png"
    strange = saved(load_run(run), tmp_path / "strange", ["x", "y", "z"])
    with pytest.raises(DataError, match="no class in common"):
        explain(run, [picture], beside=strange, map_by_name=True)
    shutil.rmtree(strange)
    with pytest.raises(DataError, match="no run folder"):
        explain(run, [picture], beside=strange)


@pytest.mark.parametrize("method", ["occlusion", "gradient", "guided", "integrated", "faithfulness"])
def test_every_map_is_drawn_by_the_verb(run, images, tmp_path, method):
    (row,) = explain(run, [images / "bee" / "000.png"], method=method, format="svg", output=tmp_path).rows
    assert row.says and json.dumps(row.numbers, allow_nan=False)
    assert (tmp_path / f"{row.name}-{method}.svg").read_text().startswith("<svg")
