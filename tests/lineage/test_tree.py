"""The family tree: who stands under whom, what a step cost, and a drawing whose words and lines are in their places."""

import json
import re
from itertools import combinations, pairwise
from xml.etree import ElementTree

import pytest

from convarium.cli import main
from convarium.facts import all_facts
from convarium.lineage.names import matching, short_names
from convarium.lineage.tree import ERROR, kin_of, ratio, step_over, tree
from convarium.networks import CATALOGUE
from convarium.svg import width_of

SVG = "{http://www.w3.org/2000/svg}"


def shown(capsys, *arguments: str) -> str:
    assert main(["tree", *arguments]) == 0
    return capsys.readouterr().out


def test_every_network_stands_once_under_the_first_of_its_parents(capsys):
    above: dict[int, str] = {}
    found = {}
    for line in shown(capsys).splitlines():
        match = re.match(r"^([│├└─ ]*)(\w+) (\d{4}) ", line)
        if match:
            depth = len(match[1]) // 4
            above[depth] = match[2]
            assert match[2] not in found
            found[match[2]] = (above[depth - 1] if depth else None, int(match[3]))
    facts = all_facts()
    assert found == {name: (next(iter(facts[name].parents), None), facts[name].paper.year) for name in CATALOGUE}


def test_other_parents_are_named(capsys):
    printed = shown(capsys, "senet154")
    assert "also from resnet152" in printed and "resnet20_cifar" not in printed
    # Of attentionnext56's parents only the second is kin of resnext50_32x4d: it stands there, and says over whom it is.
    below = shown(capsys, "resnext50_32x4d").partition("attentionnext56")[2]
    assert "over attention56" in below and " attention56 2017" not in below


def test_kin_are_ancestors_and_descendants_and_nobody_else():
    assert kin_of(["zfnet"]) == {"lenet5", "alexnet", "zfnet", "zfnet_pytorchcv"}
    kin = kin_of(["vgg16"])
    assert {"vgg13", "resnet50", "se_vgg16_bn"} <= kin and not {"vgg13_bn", "googlenet"} & kin
    assert all("vgg16" in kin_of([name]) for name in kin)


@pytest.mark.parametrize(
    "line",
    [
        ["lenet5", "alexnet", "vgg16", "plain34", "resnet50", "resnext50_32x4d", "se_resnext50_32x4d"],
        ["alexnet", "nin_cifar", "googlenet", "bn_inception", "inception_v3", "xception", "mobilenet_v1"],
        ["inception_v3", "inception_v4", "inception_resnet_v2", "se_inception_resnet_v2"],
        ["resnet152", "inception_resnet_v2"],
        ["resnet50", "preact_resnet50", "attention56", "attentionnext56"],
    ],
)
def test_the_lineage_is_that_of_the_field(line):
    """From LeNet by AlexNet and VGG, or NIN and GoogLeNet, to SENet; no network is older than its parents."""
    facts = all_facts()
    assert all(older in kin_of([newer]) for older, newer in pairwise(line))
    for name in CATALOGUE:
        assert all(facts[parent].paper.year <= facts[name].paper.year for parent in facts[name].parents), name
    assert [name for name in CATALOGUE if not facts[name].parents] == ["lenet5"]


def test_a_step_is_that_of_the_papers():
    facts = all_facts()
    # SENet, Section 4 and Table 2: about 10 % more parameters, 0.26 % more operations; 24.80 to 23.29 %.
    step = step_over(facts["resnet50"], facts["se_resnet50"])
    assert step.params_ratio == pytest.approx(1.10, abs=0.005) and step.macs_ratio == pytest.approx(1.00, abs=0.005)
    assert (step.errors.before_percent, step.errors.after_percent, step.errors.one_source) == (24.80, 23.29, True)
    # ResNet, Tables 2 and 3: residual learning takes 34 layers from 28.54 to 24.52 % (option B).
    residual = step_over(facts["plain34"], facts["resnet34"]).errors
    assert (residual.before_percent, residual.after_percent, residual.protocol) == (
        28.54,
        24.52,
        "ImageNet validation, 10 crops",
    )
    # ResNet, Section 3.3: the 34-layer plain net has 18 % of VGG-19's multiply-adds (3.6 of 19.6 billion).
    assert step_over(facts["vgg19"], facts["plain34"]).macs_ratio == pytest.approx(0.18, abs=0.006)
    # NIN, Table 1: maxout's 11.68 against 10.41 %.
    assert "error 11.68 → 10.41 %" in step_over(facts["maxout_cifar"], facts["nin_cifar"]).text()


def test_errors_of_one_source_come_first_and_others_are_marked():
    facts = all_facts()
    normed = step_over(facts["vgg16"], facts["vgg16_bn"]).errors  # SENet has a figure for one of the two
    assert normed.one_source and "torchvision" in normed.where_before and "torchvision" in normed.where_after
    assert step_over(facts["alexnet"], facts["vgg16"]).text().endswith("(1 crop; two sources)")
    assert step_over(facts["inception_v3"], facts["inception_v3"]).errors.one_source


def test_errors_stand_beside_each_other_only_under_one_protocol():
    facts = all_facts()
    compared = 0
    for member in tree().networks:
        errors = member.step and member.step.errors
        if errors:
            compared += 1
            for name, value in ((member.step.over, errors.before_percent), (member.name, errors.after_percent)):
                published = {(figure.quantity, figure.value, figure.protocol) for figure in facts[name].published}
                assert (ERROR, value, errors.protocol) in published
    assert compared > 40
    assert step_over(facts["alexnet"], facts["maxout_cifar"]).errors is None  # ImageNet and CIFAR-10


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0205, "×0.021"), (0.41, "×0.41"), (1, "×1.00"), (9.996, "×10.0"), (13.93, "×13.9"), (2218.57, "×2,219")],
)
def test_ratios(value, text):
    assert ratio(value) == text


def test_names_in_few_words():
    names = ["resnet18", "resnet34", "resnet20_cifar", "googlenet", "resnet56_cifar"]
    assert short_names(names) == ["resnet18/34", "resnet20/56_cifar", "googlenet"]
    assert matching(["vgg1?", "alexnet"]) == ["vgg11", "vgg13", "vgg16", "vgg19", "alexnet"]


def test_the_drawing_goes_to_a_file_and_the_rows_to_json(capsys, tmp_path):
    assert f"{len(CATALOGUE)} networks of 18 papers" in shown(capsys, "--svg", str(tmp_path / "tree.svg"))
    assert ElementTree.parse(tmp_path / "tree.svg").getroot().tag == SVG + "svg"
    assert "2 networks of 1 paper\n" in shown(capsys, "lenet5_modern", "--svg", str(tmp_path / "two.svg"))
    described = json.loads(shown(capsys, "se_*", "--json"))
    assert {"se_resnet50", "lenet5"} <= {row["name"] for row in described["networks"]}
    assert described["asked"] == [name for name in CATALOGUE if name.startswith("se_")]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["resnet5O"], 2, "no network matches 'resnet5O'; nearest: resnet50"),
        (["vgg16", "vit*"], 2, "no network matches 'vit*'"),
        ([""], 2, "no network matches ''"),
        (["--svg", "tree.png"], 2, "--svg must be a file that ends in .svg; got 'tree.png'"),
        (["--svg", "nowhere/tree.svg"], 1, "cannot write nowhere/tree.svg: No such file or directory"),
        (["--svg"], 2, "--svg"),
        (["--sgv", "tree.svg"], 2, "convarium tree takes [--svg SVG] [--json] [NAMES ...]; got '--sgv'"),
    ],
)
def test_what_cannot_be_drawn_is_said(capsys, arguments, code, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["tree", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and said in err
    assert not list(tmp_path.iterdir())


def numbers(element: ElementTree.Element, *names: str) -> list[float]:
    return [float(element.get(name)) for name in names]


@pytest.fixture(params=[(), ("resnet50",), ("se_mobilenet_v1",), ("maxout_cifar", "squeezenet*"), ("lenet5_modern",)])
def drawing(request) -> tuple[ElementTree.Element, list[tuple[float, ...]]]:
    """The drawing of some networks, and its boxes as (left, top, right, bottom)."""
    root = ElementTree.fromstring(tree(request.param).draw())
    rects = [numbers(r, "x", "y", "width", "height") for r in root.iter(SVG + "rect") if r.get("rx")]
    return root, sorted({(x, y, x + width, y + height) for x, y, width, height in rects})


def test_boxes_lie_on_the_sheet_and_not_on_each_other(drawing):
    root, boxes = drawing
    width, height = numbers(root, "width", "height")
    assert width <= 960  # what a README shows at its own size
    assert all(x >= 0 and y >= 0 and right <= width and bottom <= height for x, y, right, bottom in boxes)
    for a, b in combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_words_lie_in_their_boxes_and_not_on_each_other(drawing):
    root, boxes = drawing
    lines = []
    for text in root.iter(SVG + "text"):
        x, y, size = numbers(text, "x", "y", "font-size")
        wide = width_of(text.text, size)
        left = x - (wide if text.get("text-anchor") == "end" else 0)
        lines.append((left, y - 0.75 * size, left + wide, y + 0.2 * size))
        inside = [b for b in boxes if b[0] <= x <= b[2] and b[1] <= y <= b[3]]
        assert all(b[0] <= left and left + wide <= b[2] and y + 0.2 * size <= b[3] for b in inside), text.text
    for a, b in combinations(lines, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (a, b)


def test_no_line_runs_through_a_box(drawing):
    root, boxes = drawing
    for path in root.iter(SVG + "path"):
        if path.get("stroke"):
            for x, y in along(path.get("d")):
                assert not any(b[0] < x < b[2] and b[1] + 0.01 < y < b[3] - 0.01 for b in boxes), path.get("d")


def along(path: str) -> list[tuple[float, float]]:
    """Points of a path of upright and S-shaped pieces."""
    x, y = map(float, re.match(r"M([-\d.]+),([-\d.]+)", path).groups())
    points = []
    for kind, numbers in re.findall(r"([VC])([^VC]*)", path):
        ends = [float(number) for number in re.findall(r"[-\d.]+", numbers)]
        to_x, to_y = (x, ends[0]) if kind == "V" else ends[-2:]
        for t in (i / 20 for i in range(21)):  # Bezier's cubic with both handles at half the height
            across, down = 3 * t**2 - 2 * t**3, 1.5 * t - 1.5 * t**2 + t**3
            points.append((x + across * (to_x - x), y + down * (to_y - y)))
        x, y = to_x, to_y
    return points


def test_every_paper_has_its_box_and_every_network_its_name():
    facts = all_facts()
    root = ElementTree.fromstring(tree().draw())
    words = " ".join(text.text for text in root.iter(SVG + "text")).split()
    names = {name for word in words for name in expanded(word)}
    assert set(CATALOGUE) <= names
    for paper in {facts[name].paper for name in CATALOGUE}:
        assert str(paper.year) in words and set(f"{paper.name} {paper.idea}".split()) <= set(words)


def expanded(word: str) -> list[str]:
    match = re.fullmatch(r"(\D*)([\d/]+)(.*)", word)
    return [f"{match[1]}{number}{match[3]}" for number in match[2].split("/")] if match else [word]
