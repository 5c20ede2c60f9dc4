"""Groups against hand counts and against Torch-Pruning's dependency graph; cutting, and gates taken out."""

import numpy as np
import pytest
import torch
from torch import nn

from convarium import create_model
from convarium.compression.channels import follow_channels
from convarium.compression.groups import cut, find_groups, remove_gates
from convarium.errors import UsageError
from convarium.networks import create_on_meta


def named(model):
    return {group.name: group for group in find_groups(model)}


def test_stages_of_option_a_have_widths_of_their_own():
    """ResNet-20: the inside of nine blocks, and one width per stage, of which two begin in a shortcut that pads."""
    groups = named(create_on_meta("resnet20_cifar"))
    inner = [f"stages.stage{s}.{b}.branch.0.conv" for s in (1, 2, 3) for b in (0, 1, 2)]
    streams = ["stages.conv1.conv", "stages.stage2.0.branch.1.conv", "stages.stage3.0.branch.1.conv"]
    assert {*groups} == {*inner, *streams}
    assert [groups[name].size for name in streams] == [16, 32, 64]


def test_a_padded_shortcut_follows_both_of_its_stages():
    """Channels 0 to 15 of stage 2 copy those of stage 1, the others are zeros (16 stands for them). Without 0 and 5 of
    stage 1 and without 1 of stage 2, zeros are 14."""
    model = create_model("resnet20_cifar")
    groups = named(model)
    first, second = groups["stages.conv1.conv"], groups["stages.stage2.0.branch.1.conv"]
    cut(model, {first: [u for u in range(16) if u not in (0, 5)], second: [u for u in range(32) if u != 1]})
    source = model.get_buffer("stages.stage2.0.shortcut.source").tolist()
    assert source == [14, *(1, 2, 3), 14, *range(4, 14), *[14] * 16]


def test_pieces_and_groups_go_together():
    """Two pieces of a maxout's unit follow one another; the two groups of AlexNet's conv2 each give up a channel that
    they read, 48 apart."""
    maxout = named(create_on_meta("maxout_cifar"))["stages.h0_detector.pieces.conv"]
    made = next(member for member in maxout.members if member.tensor == "stages.h0_detector.pieces.conv.weight")
    assert maxout.size == 96 and made.units.tolist() == [unit for unit in range(96) for _ in range(2)]
    alexnet = named(create_on_meta("alexnet"))["stages.conv1.layer.conv"]
    made = next(member for member in alexnet.members if member.tensor == "stages.conv1.layer.conv.weight")
    assert alexnet.size == 48 and made.units.tolist() == [*range(48), *range(48)]


def test_a_depthwise_kernel_goes_with_its_channel():
    model = create_model("mobilenet_v1_025")
    groups = named(model)
    cut(model, {groups["stages.conv1.conv"]: [0, 3, 7]})
    depthwise, pointwise = model.stages["dw1"].depthwise.conv, model.stages["dw1"].pointwise.conv
    assert (depthwise.groups, depthwise.in_channels, depthwise.out_channels, pointwise.in_channels) == (3, 3, 3, 3)


def test_a_dense_layer_gives_up_a_window_for_each_channel():
    """The map before fc6 of VGG-11 is 7x7: 49 inputs for each of its channels."""
    last = named(create_on_meta("vgg11"))["stages.block5.conv5_2.conv"]
    read = next(member for member in last.members if member.tensor == "head.hidden.fc6.fc.weight")
    assert read.dim == 1 and read.units.tolist() == [unit for unit in range(512) for _ in range(49)]


@pytest.mark.parametrize("attention", ["spatial", "hard", "scale"])
def test_what_has_one_value_for_all_channels_is_no_group(attention):
    with_mask = named(create_on_meta("resnet20_cifar", attention=attention))
    assert {*with_mask} == {*named(create_on_meta("resnet20_cifar"))}


class Sorted(nn.Module):
    def forward(self, x):
        return x.sort(1).values


def test_what_nobody_can_follow_is_left_whole():
    model = create_model("plain20_cifar", attention=lambda _: Sorted())
    groups = named(model)
    inner = [f"stages.stage{s}.{b}.branch.0.conv" for s in (1, 2, 3) for b in (0, 1, 2)]
    assert {*groups} == {"stages.conv1.conv", *inner}


def test_finding_leaves_the_network_as_it_was():
    model = create_model("resnet20_cifar").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    find_groups(model)
    assert model.training and all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not model.head.hidden._forward_pre_hooks and not model.head.classifier._forward_pre_hooks


@pytest.mark.parametrize("units", [[], [16], [-1, 2]])
def test_units_that_are_not_there_are_refused_and_nothing_is_changed(units):
    model = create_model("resnet20_cifar")
    group = find_groups(model)[0]
    with pytest.raises(UsageError, match=r"of the units 0 to 15 of stages\.conv1\.conv at least one must stay"):
        cut(model, {group: units})
    assert model.plan == {} and model.stages["conv1"].conv.out_channels == 16


def test_a_map_that_would_read_nothing_is_refused():
    """The first map of LeNet-5's C3 reads the maps 0, 1 and 2 (Table I)."""
    model = create_model("lenet5")
    with pytest.raises(UsageError, match=r"convs\.0\.weight would read nothing"):
        cut(model, {named(model)["stages.C1.conv"]: [3, 4, 5]})


def test_gates_of_a_stage_are_taken_out_and_the_plan_says_so():
    model = create_model("se_resnet20_cifar").eval()
    paths = remove_gates(model, ["stage3"])
    assert paths == [f"stages.stage3.{i}.attention" for i in range(3)]
    assert model.plan == dict.fromkeys(paths)
    with pytest.raises(UsageError, match="no gates in stage3"):
        remove_gates(model, ["stage3"])
    with pytest.raises(UsageError, match="no stage 'stage9'"):
        remove_gates(model, ["stage9"])


# -- against Torch-Pruning ------------------------------------------------------------------------------------------


def theirs(model, group, unit):
    """The layers that go with one channel, by Torch-Pruning's graph: ``(path, "out" or "in")`` and indices."""
    pruning = pytest.importorskip("torch_pruning")
    x = torch.empty(1, *model.input_size, device="meta")
    graph = pruning.DependencyGraph().build_dependency(model, example_inputs=x)
    layer = model.get_submodule(group.name)
    paths = {module: path for path, module in model.named_modules()}
    prune = pruning.prune_conv_out_channels if isinstance(layer, nn.Conv2d) else pruning.prune_linear_out_channels
    found = {}
    for dependency, indices in graph.get_pruning_group(layer, prune, [unit]):
        module = dependency.target.module
        if isinstance(module, nn.Conv2d | nn.Linear):
            side = "out" if graph.is_out_channel_pruning_fn(dependency.handler) else "in"
            found.setdefault((paths[module], side), set()).update(indices)
    return found


def ours(model, group, unit):
    found = {}
    for member in group.members:
        path, _, own = member.tensor.rpartition(".")
        if own == "weight" and isinstance(model.get_submodule(path), nn.Conv2d | nn.Linear):
            indices = np.flatnonzero(member.units == unit).tolist()
            if indices:
                found[path, "out" if member.dim == 0 else "in"] = {*indices}
    return found


@pytest.mark.long
@pytest.mark.parametrize("name", ["vgg11_bn", "resnet50", "se_resnet18", "googlenet_tv", "inception_v4"])
def test_the_groups_are_those_of_torch_pruning_where_it_can_follow(name):
    model = create_on_meta(name).eval()
    groups = find_groups(model)
    for group in groups[:: max(1, len(groups) // 4)]:
        for unit in (0, group.size - 1):
            assert ours(model, group, unit) == theirs(model, group, unit)


def test_equal_labels_are_sets():
    """Of equal labels is what an addition joins: the two ways of a block with a projection."""
    channels = follow_channels(create_on_meta("resnet20_cifar_b"))
    ways = [f"stages.stage2.0.{way}.conv.weight" for way in ("branch.1", "shortcut")]
    labels = [channels.axes[way, 0].tolist() for way in ways]
    assert labels[0] == labels[1] and len({*labels[0]}) == 32
