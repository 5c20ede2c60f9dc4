"""Counts against torch's own counter and hand arithmetic; receptive fields against the gradient."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from convarium import create_model, describe, list_models
from convarium.anatomy.trace import trace
from convarium.errors import UsageError
from convarium.facts import all_facts

EVERY_SIXTH = list_models()[::6]  # in `make check`


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in EVERY_SIXTH else pytest.mark.long) for name in list_models()]
)
def test_totals_equal_the_reference_and_the_rows(name):
    described = describe(name)
    counts = all_facts()[name].counts
    assert (described.params, described.macs) == (counts.params, counts.macs)
    assert described.not_counted == {}
    for rows in (described.stages, described.layers):
        assert sum(row.params for row in rows) == described.params
        assert sum(row.macs for row in rows) == described.macs
        assert sum(row.activations for row in rows) == described.activations


@pytest.mark.parametrize("size", [(3, 64, 96), (3, 224, 224)])
def test_macs_are_half_of_what_torch_counts_at_any_size(size):
    network = create_model("se_resnet18").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, *size))
    assert describe(network, input_size=size).macs * 2 == counter.get_total_flops()


def test_a_network_in_training_mode_is_left_as_it_was():
    network = create_model("resnet20_cifar").train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    describe(network)
    assert all(module.training for module in network.modules())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize("make", [lambda: "resnet20_cifar", lambda: create_model("resnet20_cifar")])
def test_it_counts_the_same_in_inference_mode(make):
    """In which torch takes no composed operation apart: neither of a network made there, nor of one made before."""
    outside, before = describe(make()), make()
    with torch.inference_mode():
        assert describe(before) == describe(make()) == outside
    assert outside.macs == all_facts()["resnet20_cifar"].counts.macs


def test_an_operation_without_a_rule_is_reported():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.special.erfcx(x)

    assert dict(trace(Odd(), (1, 4, 4)).not_counted) == {"special_erfcx": 1}


def test_every_branch_of_a_split_is_counted():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 8, 3), nn.Conv2d(4, 8, 5, padding=1)

        def forward(self, x):
            left, right = x.chunk(2, 1)
            return self.a(left) + self.b(right)

    rows = {row.path: row for row in trace(Two(), (8, 16, 16)).rows}
    assert rows["a"].macs == 14 * 14 * 9 * 4 * 8 and rows["b"].macs == 14 * 14 * 25 * 4 * 8
    assert rows[""].fields[0].size == 5 and rows["a"].fields[0].size == 3


@pytest.mark.parametrize(
    ("layers", "height", "width"),
    [
        ([nn.Conv2d(1, 1, (1, 7), padding=(0, 3)), nn.Conv2d(1, 1, (7, 1), padding=(3, 0))], 7, 7),
        ([nn.Conv2d(1, 1, (1, 7))], 1, 7),
        ([nn.MaxPool2d(3, 1, dilation=2)], 5, 5),
        ([nn.Conv2d(1, 1, 3, dilation=3)], 7, 7),
        ([nn.ZeroPad2d(1), nn.Conv2d(1, 1, 3), nn.MaxPool2d(2, 2, ceil_mode=True)], 4, 4),
    ],
)
def test_fields_of_other_windows(layers, height, width):
    fields = trace(nn.Sequential(*layers), (1, 31, 31)).rows[-1].fields
    assert (fields[0].size, fields[1].size) == (height, width)


class Enlarged(nn.Module):
    """A skip, and a way by a coarser map that is enlarged again: of one such module or of two, one in the other."""

    def __init__(self, inner: nn.Module, kernel: int, aligned: bool):
        super().__init__()
        self.down = nn.Conv2d(1, 1, kernel, 2, kernel // 2)
        self.inner, self.aligned = inner, aligned
        self.skip = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x):
        low = self.inner(self.down(x))
        up = nn.functional.interpolate(low, size=x.shape[2:], mode="bilinear", align_corners=self.aligned)
        return self.skip(x) + up


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [0, 1, 2])
@pytest.mark.parametrize("twice", [False, True])
def test_fields_through_an_enlargement_equal_the_measured_ones(aligned, kernel, stride, twice):
    """Of every unit that is far enough from the border: those of one map differ in what they see. With ``stride``, a
    3x3 follows."""
    inner = Enlarged(nn.Conv2d(1, 1, 3, padding=1), kernel, aligned) if twice else nn.Identity()
    after = [nn.Conv2d(1, 1, 3, stride, 1)] if stride else []
    network = nn.Sequential(Enlarged(inner, kernel, aligned), *after)
    field = trace(network, (1, 8, 128)).rows[-1].fields[1]
    assert field.jump == max(1, stride)
    for parameter in network.double().parameters():
        parameter.data.abs_().add_(0.01)
    x = torch.rand(1, 1, 8, 128, dtype=torch.double, requires_grad=True)
    out = network(x)[0, 0, 4 // field.jump]
    sizes = []
    for unit in range(40 // field.jump, 88 // field.jump):
        (gradient,) = torch.autograd.grad(out[unit], x, retain_graph=True)
        columns = gradient[0, 0].abs().sum(0).nonzero().flatten().tolist()
        assert field.at(unit) == (columns[0], columns[-1])
        sizes.append(columns[-1] - columns[0] + 1)
    assert field.size == max(sizes)


def test_a_mean_over_the_map_sees_all_of_it():
    assert trace(nn.Sequential(nn.AdaptiveAvgPool2d(1)), (1, 9, 9)).rows[-1].fields is None


def test_known_receptive_fields():
    assert describe("resnet152").receptive_field_px == 1507
    assert describe("lenet5").receptive_field_px == 32  # C5 sees the whole input
    stacked = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3))
    sizes = [row.fields[0].size for row in trace(stacked, (1, 9, 9)).rows]
    assert sizes == [3, 5, 7]


def test_lenet_by_hand():
    rows = {row.name: row for row in describe("lenet5").stages}
    assert [rows[n].macs for n in ("C1", "C3", "C5", "F6", "classifier")] == [117_600, 150_000, 48_000, 10_080, 840]
    assert [rows[n].activations for n in rows] == [4704, 0, 1600, 0, 120, 0, 84, 10]
    assert [rows[n].jump_px for n in ("C1", "S2", "C3", "S4")] == [1, 2, 2, 4]


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("vgg16", 2 * 64 * 224 * 224),  # conv1_2 reads one such map and writes another
        ("lenet5", 6 * 28 * 28 + 6 * 14 * 14),  # C1 and S2
        ("resnet50", (64 + 256 + 256) * 56 * 56),  # conv2's first block: its input, its branch's end, its shortcut
    ],
)
def test_peak_of_live_activations_by_hand(name, peak):
    assert describe(name).peak_activations == peak


def test_a_skip_is_alive_while_its_branch_runs():
    class Skip(nn.Module):
        def __init__(self, kept):
            super().__init__()
            self.branch = nn.Sequential(nn.Conv2d(2, 6, 1), nn.ReLU(), nn.Conv2d(6, 2, 1))
            self.kept = kept

        def forward(self, x):
            return self.branch(x) + x if self.kept else self.branch(x)

    size = 2 * 4 * 4
    assert trace(Skip(False), (2, 4, 4)).peak() == size + 3 * size  # one map of 2 channels and one of 6
    assert trace(Skip(True), (2, 4, 4)).peak() == size + size + 3 * size  # and the input, for the sum


def test_what_can_work_in_place_takes_no_room_and_what_cannot_does():
    assert trace(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(2), nn.Sigmoid()).eval(), (2, 4, 4)).peak() == 32
    assert trace(nn.MaxPool2d(2), (2, 4, 4)).peak() == 32 + 8


def test_windows_of_stages_and_layers():
    stages = {row.name: row for row in describe("resnet50").stages}
    assert [(stages[n].kernel, stages[n].stride) for n in ("conv1", "pool1", "conv2_x", "conv3_x")] == [
        ("7x7", 2), ("3x3", 2), ("1x1, 3x3", 1), ("1x1, 3x3", 2),
    ]  # fmt: skip
    layers = {row.name: row for row in describe("alexnet").layers}
    conv2 = next(row for name, row in layers.items() if name.startswith("stages.conv2") and "conv" in row.kind)
    assert (conv2.kind, conv2.kernel, conv2.stride) == ("conv in 2 groups", "5x5", 1)
    assert layers["stages.pool1"].offset_px == 0 and layers["stages.pool1"].receptive_field_px == 11 + 2 * 4


def test_dense_share_of_vgg16():
    described = describe("vgg16")
    dense = [(25_088 + 1) * 4096, (4096 + 1) * 4096, (4096 + 1) * 1000]
    assert described.dense_params == sum(dense)
    assert round(100 * described.dense_params / described.params) == 89


def test_departures_are_those_of_the_network_asked_for():
    assert any("227x227" in line for line in describe("alexnet").departs_from_paper)
    assert not any("torchvision's form" in line for line in describe("alexnet").departs_from_paper)
    assert any("torchvision's form" in line for line in describe("alexnet_owt").departs_from_paper)
    later = [
        any("stride in the 3x3" in line for line in describe(n).departs_from_paper)
        for n in ("resnet50_v1_5", "resnet50")
    ]
    assert later == [True, False]


def test_arguments_of_the_network():
    plain, gated = describe("resnet50", num_classes=10), describe("resnet50", num_classes=10, attention="se")
    assert plain.stages[-1].output == (10,)
    sum_of_squares = 3 * 256**2 + 4 * 512**2 + 6 * 1024**2 + 3 * 2048**2
    biases = sum(blocks * (width + width // 16) for blocks, width in ((3, 256), (4, 512), (6, 1024), (3, 2048)))
    assert gated.params - plain.params == 2 * sum_of_squares // 16 + biases


def test_published_figures_stand_beside():
    printed = {fact.quantity: fact.value for fact in describe("lenet5").published}
    assert printed["params"] == 60_000 and printed["connections"] == 340_908


def test_published_figures_stand_beside_the_papers_network_alone():
    assert describe("resnet50").published and describe("resnet50").departures
    assert describe("resnet50", input_size=64).published == []
    assert describe(create_model("resnet20_cifar", attention="se")).published == []


def test_stored_size_is_the_files(tmp_path):
    from convarium.tensors import save_tensors

    network = create_model("resnet20_cifar")
    save_tensors(tmp_path / "w.safetensors", network.state_dict(), {})
    assert describe(network).size_mib == pytest.approx((tmp_path / "w.safetensors").stat().st_size / 2**20, abs=0.03)


def test_other_sizes():
    assert describe("resnet20_cifar", input_size=16).input_size == (3, 16, 16)
    assert describe("resnet20_cifar", input_size=(1, 16, 24)).stages[0].output == (16, 16, 24)
    with pytest.raises(UsageError, match="at least 32x32"):
        describe("resnet50", input_size=16)
    with pytest.raises(UsageError, match="input size must be"):
        describe("resnet50", input_size=(1, 2, 3, 4))


@pytest.mark.long
def test_describing_a_large_network_allocates_no_weights():
    """The weights of resnet152 are 230 MiB; describing it costs under 60 MiB beyond what describing LeNet-5 costs."""
    code = (
        "from convarium import describe; from resource import RUSAGE_SELF, getrusage;"
        "peak = lambda: getrusage(RUSAGE_SELF).ru_maxrss;"
        "describe('lenet5'); before = peak(); describe('resnet152'); print(peak() - before)"
    )
    grown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(grown) < 60 * 1024
