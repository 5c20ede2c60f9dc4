"""Pages and figures: what they show is what was measured, and names from outside cannot become markup."""

import json
import shutil
from xml.etree import ElementTree

import numpy as np

from convarium.explanation.figures import heat_figure
from convarium.report.figures import (
    accuracy_figure,
    confusion_figure,
    curves_figure,
    to_png,
    to_svg,
)
from convarium.report.page import write_report


def test_the_page_shows_the_measured_numbers(run, tmp_path):
    (facts,) = write_report(tmp_path / "page.html", [run], title="A page")
    page = (tmp_path / "page.html").read_text()
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert facts.error == evaluation["top1_error_percent"]
    assert f"{facts.params:,}" in page and f"{facts.error:.2f} %" in page and f"{facts.latency_ms:.2f} ms" in page
    assert facts.params == 269_722 - 7 * 65  # three classes instead of ten


def test_the_best_run_comes_first(run, tmp_path):
    worse = shutil.copytree(run, tmp_path / "worse")
    evaluation = json.loads((worse / "evaluation.json").read_text())
    (worse / "evaluation.json").write_text(json.dumps({**evaluation, "top1_error_percent": 50.0}))
    ranked = write_report(tmp_path / "page.html", [worse, run], title="Two")
    assert [facts.folder for facts in ranked] == [run, worse]
    page = (tmp_path / "page.html").read_text()
    assert page.index("0.00 %") < page.index("50.00 %") and page.count("<svg") == 3


def test_names_are_text(run, tmp_path):
    copied = shutil.copytree(run, tmp_path / "run")
    evaluation = json.loads((copied / "evaluation.json").read_text())
    evil = "<script>alert(1)</script>"
    evaluation["mistakes"] = [{"image": evil, "true": evil, "predicted": "a", "probability": 0.5}]
    evaluation["class_names"][0] = evil
    (copied / "evaluation.json").write_text(json.dumps(evaluation))
    write_report(tmp_path / "page.html", [copied], title=evil)
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page


def test_figures_are_well_formed_and_take_the_pages_colour():
    history = [dict(epoch=e, train_loss=1 / e, val_top1_error_percent=50 / e) for e in (1, 2, 3)]
    generator = np.random.default_rng(0)
    figures = [
        curves_figure({"a": history, "b": history}),
        accuracy_figure([("a", 1e6, 1.0, 1e5), ("b", 1e6, 1.0, 2e5), ("perfect", 1e9, 0.0, 1e7)]),
        confusion_figure([[3, 1], [0, 4]], ["yes", "no"]),
        heat_figure(generator.random((8, 8, 3)), generator.random((8, 8)), ["x", "y"], np.array([0.9, 0.1]), "x", "s"),
    ]
    drawn = [to_svg(figure) for figure in figures]
    for figure, svg in zip(figures, drawn, strict=True):
        ElementTree.fromstring(svg)
        assert "currentColor" in svg and "http" not in svg
        assert to_png(figure).startswith(b"\x89PNG")
    assert all(name in drawn[1] for name in ("a, 100 k", "b, 200 k", "perfect, 10,000 k"))


def test_labels_of_points_that_coincide_are_apart():
    from convarium.report.figures import _apart

    heights = _apart([(6, 1.0), (6, 1.0), (6.1, 1.05), (9, 1.0)], 0.2)
    near = sorted(heights[:3])
    assert near[1] - near[0] >= 0.2 - 1e-9 and near[2] - near[1] >= 0.2 - 1e-9 and heights[3] == 1.0
