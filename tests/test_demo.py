"""The demo, shortened to an epoch each, makes everything it promises; its page needs nothing from outside."""

import re

import pytest

from convarium.errors import ConvariumError, UsageError


@pytest.fixture
def short(monkeypatch):
    from convarium import demo

    options = {name: [*options[:2], "--epochs", "1"] for name, options in demo.NETWORKS.items()}
    monkeypatch.setattr(demo, "NETWORKS", options)
    return demo


@pytest.mark.long
def test_the_demo_from_end_to_end(short, tmp_path, capsys):
    output = tmp_path / "demo"
    result = short.demo(output=output)
    assert set(result.errors_percent) == set(short.NETWORKS)
    assert result.exported.is_file() and result.report == output / "report.html"
    assert list((output / result.best / "explanations").glob("*.png"))
    assert str(result.report) in result.render() and "convarium train FOLDER" in result.render()
    said = capsys.readouterr().err
    assert all(f"{step}/5" in said for step in range(1, 6))

    page = result.report.read_text()
    assert page.count("<svg") == 4 and page.count("</svg>") == 4
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?\s*(https?:|//|file:)|<script|<link|@import""", page)
    for name in short.NETWORKS:
        assert name in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) > 20 and len(set(ids)) == len(ids)

    short.demo(output=output)  # it made the folder, so it may replace it


def test_a_folder_of_someone_else_is_left_alone(short, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists and no demo made it"):
        short.demo(output=tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.long
def test_a_training_that_fails_is_named_with_its_last_words(short, tmp_path, monkeypatch):
    monkeypatch.setitem(short.NETWORKS, "lenet5", ["--image-size", "64"])
    with pytest.raises(ConvariumError, match="training lenet5 failed: the dense head takes 120 features"):
        short.demo(output=tmp_path / "demo")
