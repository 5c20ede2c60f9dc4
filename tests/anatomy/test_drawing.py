"""The drawing: what is found of modules written by hand; in every network, that nothing is lost, cut or crossed."""

from itertools import combinations, pairwise
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from convarium import create_model
from convarium.anatomy.drawing import Piece, draw, draw_series, layout
from convarium.anatomy.graph import Node, Parallel, nodes_in, run, series_of
from convarium.anatomy.modules import anatomy
from convarium.blocks import Concat, Residual, conv_bn
from convarium.errors import UsageError
from convarium.facts import all_facts
from convarium.networks import CATALOGUE, create_on_meta
from convarium.networks.googlenet import TABLE_1


def found(module, shape):
    return written(series_of(run(module, shape)))


def written(series):
    """A series as a list, its ways side by side as tuples of such lists."""
    return [
        tuple(written(way) for way in item.ways)
        if isinstance(item, Parallel)
        else " ".join([*item.before, item.label, *item.after])
        for item in series
    ]


# -- what is found of a module ----------------------------------------------------------------------------------------


def test_a_residual_block():
    branch = nn.Sequential(conv_bn(4, 8, 3, 2), conv_bn(8, 8, 3, act=None))
    block = Residual(branch, conv_bn(4, 8, 1, 2, act=None), nn.Identity(), nn.ReLU())
    ways = ["3x3 conv, 8, /2 BN ReLU", "3x3 conv, 8 BN"], ["1x1 conv, 8, /2 BN"]
    assert found(block, (4, 8, 8)) == [ways, "+ ReLU"]
    block = Residual(conv_bn(4, 4, 3), nn.Identity(), nn.Identity(), nn.Identity())
    assert found(block, (4, 8, 8)) == [(["3x3 conv, 4 BN ReLU"], []), "+"]


def test_concatenations_inside_a_branch_are_one_with_the_last():
    split = nn.Sequential(conv_bn(4, 6, 1), Concat({"a": conv_bn(6, 2, (1, 3)), "b": conv_bn(6, 3, (3, 1))}))
    pool = nn.Sequential(nn.AvgPool2d(3, 1, 1), conv_bn(4, 5, 1, norm=None))
    inner = ["1x1 conv, 6 BN ReLU", (["1x3 conv, 2 BN ReLU"], ["3x1 conv, 3 BN ReLU"])]
    ways = inner, ["3x3 avg pool", "1x1 conv, 5 ReLU"]
    assert found(Concat({"split": split, "pool": pool}), (4, 8, 8)) == [ways, "concat, 10"]


def test_a_gate():
    from convarium.networks.senet import SqueezeExcite

    gate = ["global average pool", "fc, 2 ReLU", "fc, 32 sigmoid"]
    assert found(SqueezeExcite(32), (32, 8, 8)) == [(gate, []), "×"]


def test_a_straight_through_estimator_adds_nothing():
    from convarium.attention import HardMask

    assert found(HardMask(4), (4, 8, 8)) == [(["1x1 conv, 1 sigmoid", "> 0.5"], []), "×"]


def test_norms_and_activations_stand_with_the_convolution_they_were_made_with():
    from convarium.networks.preact_resnet import preact_conv

    two = nn.Sequential(preact_conv(4, 4, 3), preact_conv(4, 8, 1))
    assert found(two, (4, 8, 8)) == ["BN ReLU 3x3 conv, 4", "BN ReLU 1x1 conv, 8"]
    assert found(nn.Sequential(conv_bn(4, 4, 3), conv_bn(4, 8, 1)), (4, 8, 8)) == [
        "3x3 conv, 4 BN ReLU", "1x1 conv, 8 BN ReLU"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("layer", "label"),
    [
        (nn.Conv2d(4, 6, (1, 7), padding=(0, 3)), "1x7 conv, 6"),
        (nn.Conv2d(4, 6, 5, 4), "5x5 conv, 6, /4, valid"),
        (nn.Conv2d(4, 6, 3, padding=2), "3x3 conv, 6, pad 2"),
        (nn.Conv2d(4, 6, 3, padding=1, groups=2), "3x3 conv, 6, 2 groups"),
        (nn.Conv2d(4, 8, 3, padding=1, groups=4), "3x3 depthwise conv, 8"),
        (nn.MaxPool2d(3, 2), "3x3 max pool, /2"),
        (nn.AvgPool2d(2), "2x2 avg pool, /2"),
        (nn.AdaptiveAvgPool2d(1), "global average pool"),
        (nn.LocalResponseNorm(5), "local response norm"),
        (nn.Tanh(), "tanh"),
    ],
)
def test_words_for_a_layer(layer, label):
    assert found(layer, (4, 16, 16)) == [label]


class Bridge(nn.Module):
    """Two ways with a third between them: neither in series nor side by side."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d, self.e = (nn.Conv2d(4, 4, 1) for _ in range(5))

    def forward(self, x):
        left, right = self.a(x), self.b(x)
        return torch.relu(self.d(left) * self.e(right + self.c(left)))


def test_ways_that_cannot_be_drawn_without_crossing_are_one_box():
    nodes = found(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Bridge()), (3, 8, 8))
    assert nodes[0] == "3x3 conv, 4" and len(nodes) == 3 and nodes[1].endswith("6 operations")


def test_paths_of_an_aggregated_transformation():
    """Fig. 3a of the ResNeXt paper: 32 paths, of which one is drawn with their number."""
    from convarium.networks.resnext import split_transform_add

    with torch.device("meta"):
        branch = split_transform_add(256, 64, 1, conv_bn, cardinality=32, base_width=4)
    paths, total = series_of(run(branch, (256, 8, 8)))
    assert len(paths.ways) == 32 and total.label == "+"
    assert written(paths.ways[31]) == ["1x1 conv, 4 BN ReLU", "3x3 conv, 4 BN ReLU", "1x1 conv, 256"]
    drawn = draw_series([paths, total])
    assert [word.text for word in drawn.words] == ["× 32"] and len(
        drawn.boxes
    ) == 3 + 1 + 2  # a path, its frame, the sum and its norm
    check(drawn)


# -- a whole network --------------------------------------------------------------------------------------------------


def test_the_widths_and_kernels_of_inception_3a_are_table_1s():
    network = create_on_meta("googlenet")
    (kind,) = anatomy(network, network.input_size)[1]
    ones, reduce3, threes, reduce5, fives, projection = TABLE_1["inception_3a"]
    assert (ones, reduce3, threes, reduce5, fives, projection) == (64, 96, 128, 16, 32, 32)
    ways = (
        [f"1x1 conv, {ones} ReLU"],
        [f"1x1 conv, {reduce3} ReLU", f"3x3 conv, {threes} ReLU"],
        [f"1x1 conv, {reduce5} ReLU", f"5x5 conv, {fives} ReLU"],
        ["3x3 max pool", f"1x1 conv, {projection} ReLU"],
    )
    assert written(kind.series) == [ways, "concat, 256"]
    assert {place.stage: place.widths for place in kind.places}["inception_4e"] == "256; 160, 320; 32, 128; 128"


def test_modules_of_a_stage():
    network = create_on_meta("resnet50")
    stages, kinds = anatomy(network, network.input_size)
    made = {stage.name: [kind.number for kind in stage.modules] for stage in stages}
    assert made["conv2_x"] == [1, 2, 2] and made["conv4_x"] == [3, 2, 2, 2, 2, 2]
    assert [kind.places[0].stage for kind in kinds] == ["conv2_x", "conv2_x", "conv3_x"]


def test_units_of_an_attention_module_are_drawn_once():
    network = create_on_meta("attention56")
    stages, kinds = anatomy(network, network.input_size)
    (module,) = next(stage.modules for stage in stages if stage.name == "AttentionA_1")
    unit = next(kind for kind in kinds if module.number in kind.within)
    times = sum(node.times for node in nodes_in(module.series) if node.kind == unit.number)
    assert times == 12  # p = 1, t = 2, r = 1 in three scales: p + p + t + (3 down, 3 up) + 2 skips
    assert written(unit.series)[1] == "+"


def test_another_size_and_one_that_is_too_small():
    network = create_on_meta("resnet20_cifar")
    assert "16x16x16" in draw(network, (3, 16, 16))
    with pytest.raises(UsageError, match="at least"):
        draw(network, (3, 2, 2))


def test_a_real_network_is_left_as_it_was():
    network = create_model("se_resnet20_cifar").train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    draw(network, network.input_size)
    assert all(module.training for module in network.modules())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize("attention", ["se", "spatial", "hard", "scale"])
@pytest.mark.parametrize("name", ["lenet5", "vgg16_bn", "inception_v4", "attention92_cifar", "xception"])
def test_with_attention(name, attention):
    network = create_on_meta(name, attention=attention, act=nn.Tanh)
    check(layout(network, network.input_size))


FIRST = {address.split(":")[0]: name for name, (address, _) in reversed(CATALOGUE.items())}.values()


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in FIRST else pytest.mark.long) for n in CATALOGUE])
def test_every_network(name):
    """The first of each file in the fast suite. Every convolution is drawn, and every parameter and MAC counted."""
    network = create_on_meta(name)
    check(layout(network, network.input_size))
    svg = ElementTree.fromstring(draw(network, network.input_size))
    texts = [element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")]
    stages, kinds = anatomy(network, network.input_size)
    assert [*network.stages] == [stage.name for stage in stages][: len(network.stages)]
    assert {stage.name for stage in stages} | {network.name} <= {*texts}
    counts = all_facts()[network.name].counts
    assert (sum(s.params for s in stages), sum(s.macs for s in stages)) == (counts.params, counts.macs)
    series = {kind.number: kind.series for kind in kinds}
    drawn = [s.series for s in stages] + [kind.series for stage in stages for kind in stage.modules]
    found = sum(_convolutions(each, series) for each in drawn)
    there = sum(isinstance(module, nn.Conv2d) for module in network.modules())
    # What is neither in turn nor side by side is one box: pytorchcv's masks read what the trunk gives.
    nodes = [node for each in [*drawn, *series.values()] for node in nodes_in(each)]
    tangled = any(word.endswith(" operations") for node in nodes for word in node.extra)
    assert found < there if tangled else found == there


def _convolutions(series, kinds):
    """How many there are, with those of the modules that are drawn by themselves."""
    own = [_convolutions(kinds[node.kind], kinds) if node.kind else node.sort == "conv" for node in nodes_in(series)]
    return sum(node.times * count for node, count in zip(nodes_in(series), own, strict=True))


# -- what a drawing must not do ---------------------------------------------------------------------------------------


def check(page: Piece) -> None:
    """No text sticks out of its box or lies on another, no box on another, no line crosses a line, a box or a text."""
    boxes = [(box.x, box.y, box.x + box.width, box.y + box.height) for box in page.boxes if box.words]
    inside = [[word.extent for word in box.words] for box in page.boxes if box.words]
    loose = [word.extent for word in page.words]
    for box, texts in zip(boxes, inside, strict=True):
        assert all(_within(text, box) for text in texts)
    for (a, b), (c, d) in combinations(zip(boxes, inside, strict=True), 2):
        if _overlap(a, c):
            outer, texts, inner = (a, b, c) if _within(c, a) else (c, d, a)
            assert _within(inner, outer)
            assert not any(_overlap(inner, text) for text in texts)
    for texts in [*inside, loose]:
        assert not any(_overlap(a, b) for a, b in combinations(texts, 2))
    assert not any(_overlap(box, text) for box in boxes for text in loose)
    pieces = [(line, *piece) for line in page.lines for piece in pairwise(line.points)]
    for _, start, end in pieces:
        assert (start[0] == end[0]) != (start[1] == end[1])
        swept = (min(start[0], end[0]), min(start[1], end[1]), max(start[0], end[0]), max(start[1], end[1]))
        assert not any(_overlap(swept, other) for other in [*boxes, *loose]), (start, end)
    for (one, *a), (other, *b) in combinations(pieces, 2):
        if one is not other:
            assert not _cross(*a, *b)
            assert not _same_way(*a, *b) or one.points[0] == other.points[0] or one.points[-1] == other.points[-1]


def _within(a, b) -> bool:
    return b[0] <= a[0] and b[1] <= a[1] and a[2] <= b[2] and a[3] <= b[3]


def _overlap(a, b) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _cross(a, b, c, d) -> bool:
    """Whether an upright and a level piece meet inside both."""
    if (a[0] == b[0]) == (c[0] == d[0]):
        return False
    upright, level = ((a, b), (c, d)) if a[0] == b[0] else ((c, d), (a, b))
    (x, y0), (_, y1) = upright
    (x0, y), (x1, _) = level
    return min(x0, x1) < x < max(x0, x1) and min(y0, y1) < y < max(y0, y1)


def _same_way(a, b, c, d) -> bool:
    """Whether two pieces lie on one another."""
    for axis in (0, 1):
        if a[axis] == b[axis] == c[axis] == d[axis]:
            mine, its = sorted((a[1 - axis], b[1 - axis])), sorted((c[1 - axis], d[1 - axis]))
            return mine[0] < its[1] and its[0] < mine[1]
    return False


def test_the_check_sees_a_crossing_and_text_that_sticks_out():
    page = Piece()
    page.line((0, 0), (10, 0))
    page.line((5, -5), (5, 5))
    with pytest.raises(AssertionError):
        check(page)
    wide = draw_series([Node("conv", "3x3 conv", 64)])
    check(wide)
    wide.boxes[0] = type(wide.boxes[0])(0, 0, 20, 20, words=wide.boxes[0].words)
    with pytest.raises(AssertionError):
        check(wide)
