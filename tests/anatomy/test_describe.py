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


@pytest.mark.parametrize("name", list_models())
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


def test_an_operation_without_a_rule_is_reported():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.special.erfcx(x)

    assert dict(trace(Odd(), (1, 4, 4)).not_counted) == {"special_erfcx": 1}


def measured_field(network, stage, side):
    """Width in pixels that one unit's value depends on, with all weights positive and in double precision."""
    network = network.double().eval()
    for parameter in network.parameters():
        parameter.data.abs_().add_(0.01)
    for module in [m for m in network.modules() if isinstance(m, nn.ModuleDict | nn.Sequential)]:
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):  # its gradient reaches one pixel of the window; a mean's reaches all
                setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode))
    x = torch.rand(1, network.input_size[0], network.min_input_size, side, dtype=torch.double).requires_grad_()
    # The gates are constants, so their part of the gradient is left out.
    gates = [m for m in network.modules() if type(m).__name__ == "SqueezeExcite"]
    handles = [gate.register_forward_hook(lambda m, inputs, out: inputs[0]) for gate in gates]
    (maps,) = network.forward_intermediates(x, [stage], stop_early=True, intermediates_only=True)
    middle = maps.shape[3] // 2
    maps[0, :, maps.shape[2] // 2, middle].sum().backward()
    for handle in handles:
        handle.remove()
    columns = x.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    assert columns[0] > 0 and columns[-1] < side - 1, "the strip is too narrow"
    return int(columns[-1] - columns[0] + 1)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("lenet5", 96),
        ("lenet5_modern", 96),
        ("resnet18", 900),
        ("resnet50", 1000),
        ("resnet50_v1_5", 900),
        ("se_resnet20_cifar", 200),
        ("resnet56_cifar", 500),
    ],
)
def test_receptive_fields_equal_the_measured_ones(name, side):
    described = {row.name: row.receptive_field_px for row in describe(name).stages}
    for stage in described.keys() - {"pool", "F6", "classifier"}:
        assert measured_field(create_model(name, act=nn.Identity), stage, side) == described[stage], stage


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


@pytest.mark.parametrize("stage", ["AttentionA_1", "AttentionB_1", "AttentionC_1"])
def test_receptive_fields_of_masks_equal_the_measured_ones(stage):
    """The mask is added here, not multiplied, and not squashed: the fields are the same, and no gradient fades."""
    side = 1024
    network = create_model("attention92_cifar", act=nn.Identity, normalise=nn.Identity(), learning=torch.add)
    rows = trace(network, (3, network.min_input_size, side)).rows
    field = next(row for row in reversed(rows) if row.path.startswith(f"stages.{stage}.")).fields[1]
    low, high = field.at(side // field.jump // 2)
    assert measured_field(network, stage, side) == high - low + 1


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
