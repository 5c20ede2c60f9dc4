"""Accuracy against cost: one protocol at a time, every name shown or said to be left out, no label on another."""

import json
import re
import shutil
from itertools import combinations
from xml.etree import ElementTree

import pytest

from convarium.cli import main
from convarium.facts import all_facts
from convarium.lineage.chart import comparison_figure
from convarium.lineage.compare import compare
from convarium.networks import CATALOGUE
from convarium.report.labels import Box

ONE_CROP = "ImageNet validation, 1 crop"


def shown(capsys, *arguments: object) -> str:
    assert main(["compare", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_the_commonest_protocol_is_shown_and_nothing_is_left_unsaid():
    compared = compare()
    assert compared.protocol == ONE_CROP
    names = [point.name for point in compared.points]
    assert sorted(names + compared.left_out) == sorted(CATALOGUE)
    for point in compared.points:
        facts = all_facts()[point.name]
        figures = [f for f in facts.published if f.quantity == "top1_error_percent" and f.protocol == ONE_CROP]
        assert point.top1_error_percent == figures[0].value and figures[0].where in point.where
        assert (point.params, point.macs, point.input) == (facts.counts.params, facts.counts.macs, facts.input)
    for name in compared.left_out:
        assert ONE_CROP not in [f.protocol for f in all_facts()[name].published]


def test_the_best_at_its_cost_has_no_better_for_as_few():
    points = {point.name: point for point in compare().points}
    assert points["senet154"].best_at_its_cost  # the lowest error of all
    assert points["mobilenet_v1_025"].best_at_its_cost  # the fewest MACs of all
    assert not points["vgg16"].best_at_its_cost and not points["alexnet"].best_at_its_cost
    for point in points.values():
        better = [
            p for p in points.values() if p.top1_error_percent < point.top1_error_percent and p.macs <= point.macs
        ]
        assert not (point.best_at_its_cost and better)


@pytest.mark.parametrize(
    ("words", "protocol"),
    [
        ("10 crops", "ImageNet validation, 10 crops"),
        ("ImageNet validation, 1 crop of 320", "ImageNet validation, 1 crop of 320"),
        ("1 CROP OF 320", "ImageNet validation, 1 crop of 320"),
        ("cifar-10 test, one view", "CIFAR-10 test, one view"),
        ("(S = 384", None),
        ("crops of 7", None),
    ],
)
def test_another_protocol_by_some_of_its_words(words, protocol, capsys):
    if protocol:
        assert compare(protocol=words).protocol == protocol
    else:
        assert main(["compare", "--protocol", words]) == 2
        said = capsys.readouterr().err
        assert "fits several" in said or "no figure here has a protocol like" in said
        assert said.count("\n") == 1 and "ImageNet validation" in said


def test_the_table(capsys):
    table = shown(capsys, "vgg16*", "se_resnet50", "resnet20_cifar")
    assert "SENet, Table 2" in table and re.search(r"se_resnet50 +3\.86 G +28\.1 M +23\.29 % +best", table)
    assert "Left out, without a figure of this protocol: vgg16_c, resnet20_cifar" in table
    assert shown(capsys, "*_cifar").startswith("CIFAR-10 test, one view: top-1 error")
    rows = json.loads(shown(capsys, "se_*", "--json"))
    assert rows["protocol"] == ONE_CROP and rows["points"][0]["name"] == "se_mobilenet_v1"
    assert "se_resnet18" in rows["left_out"] and rows["figure"] is None


@pytest.fixture(scope="module")
def full():
    compared = compare()
    return compared, comparison_figure(compared.points, compared.protocol)


def boxes_of(artists) -> list[Box]:
    extents = [artist.get_window_extent() for artist in artists]
    return [Box(extent.x0, extent.y0, extent.width, extent.height) for extent in extents]


def test_every_point_of_the_full_chart_has_a_label_that_meets_no_other(full):
    compared, figure = full
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == [point.name for point in compared.points]
    assert not any(a.overlaps(b) for a, b in combinations(boxes_of(axes.texts), 2))
    frame = axes.get_window_extent()
    assert all(box.inside(Box(frame.x0, frame.y0, frame.width, frame.height)) for box in boxes_of(axes.texts))


def test_the_legends_and_the_axes_lie_apart_and_on_the_sheet(full):
    _, figure = full
    axes = figure.axes[0]
    parts = boxes_of([*figure.legends, axes.xaxis.label, axes.yaxis.label, axes])
    assert not any(a.overlaps(b) for a, b in combinations(parts, 2))
    width, height = figure.get_size_inches() * figure.dpi
    assert all(part.inside(Box(0, 0, width, height)) for part in parts)


def test_the_area_of_a_circle_is_its_parameters(full):
    compared, figure = full
    areas = {}
    for circle in figure.axes[0].collections:
        if len(circle.get_offsets()) == 1:
            macs, error = circle.get_offsets()[0]
            areas[macs, error] = circle.get_sizes()[0]
    per_parameter = {areas[point.macs, point.top1_error_percent] / point.params for point in compared.points}
    assert max(per_parameter) == pytest.approx(min(per_parameter), rel=0.2)  # two share one place
    assert len({round(1e9 * ratio) for ratio in per_parameter}) <= 2


@pytest.mark.parametrize("names", [("se_*",), ("resnet*_cifar",), ("vgg16", "squeezenet1_0"), ("lenet5",)])
def test_charts_of_a_few(names):
    compared = compare(names)
    axes = comparison_figure(compared.points, compared.protocol).axes[0]
    assert len(axes.texts) == len(compared.points)
    assert not any(a.overlaps(b) for a, b in combinations(boxes_of(axes.texts), 2))


def test_figures_by_suffix(capsys, tmp_path):
    assert f"Drawn in {tmp_path / 'a.svg'}" in shown(capsys, "vgg16", "resnet50", "--figure", tmp_path / "a.svg")
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    text = (tmp_path / "a.svg").read_text()
    assert "resnet50" in text and "prefers-color-scheme: dark" in text and "currentColor" in text
    shown(capsys, "vgg16", "--figure", tmp_path / "a.PNG")
    assert (tmp_path / "a.PNG").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["resnet5O"], 2, "no network named 'resnet5O'; nearest: resnet50"),
        (["vit*"], 2, "no network matches 'vit*'"),
        (["runs/nowhere"], 3, "no run folder runs/nowhere"),
        (["vgg16", "--figure", "chart.pdf"], 2, "--figure must be a file that ends in .svg or .png; got 'chart.pdf'"),
        (["vgg16", "--figure", "nowhere/chart.svg"], 1, "cannot write nowhere/chart.svg"),
        (["plain20_cifar", "lenet5_modern"], 2, "no top-1 error was published for plain20_cifar, lenet5_modern"),
        (["--protocoll", "x"], 2, "nearest: --protocol"),
    ],
)
def test_what_cannot_be_compared_is_said(capsys, arguments, code, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and said.replace("named", "matches") in err
    assert not list(tmp_path.iterdir())


def test_runs_stand_beside_each_other(capsys, run, tmp_path):
    worse = shutil.copytree(run, tmp_path / "worse")
    judged = json.loads((worse / "evaluation.json").read_text())
    (worse / "evaluation.json").write_text(json.dumps({**judged, "top1_error_percent": 50.0}))
    compared = compare((str(run), str(worse), "resnet20_cifar"))
    assert [(p.name, p.top1_error_percent, p.best_at_its_cost) for p in compared.points] == [
        (run.name, judged["top1_error_percent"], True),
        ("worse", 50.0, False),
    ]
    assert compared.points[0].params == 269_722 - 7 * 65  # three classes instead of ten
    assert compared.points[0].input == (3, 16, 16) and compared.points[0].family == "ResNet"
    assert compared.left_out == ["resnet20_cifar"] and "CIFAR-10 test, one view" in compared.others
    assert "6 held-out images" in compared.protocol or "images" in compared.protocol
    assert "worse" in shown(capsys, run, worse, "--figure", tmp_path / "runs.svg")
    (worse / "evaluation.json").write_text("{}")
    assert main(["compare", str(worse)]) == 3
    assert "evaluation.json is not an evaluation of ours" in capsys.readouterr().err
    (worse / "evaluation.json").unlink()
    assert main(["compare", str(worse)]) == 3
    assert "holds no evaluation.json" in capsys.readouterr().err
