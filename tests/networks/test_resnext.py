"""ResNeXt against Tables 1, 2 and 7, Eq. 4 and the equivalence of Fig. 3."""

import functools

import pytest
import torch
from torch import nn

from convarium.blocks import conv_bn
from convarium.networks import create_on_meta
from convarium.networks.resnet import bottleneck_v1_5
from convarium.networks.resnext import carry_over, early_concatenation, grouped, resnext_cifar, split_transform_add

FORMS = {"a": split_transform_add, "b": early_concatenation, "c": grouped}


def count(module):
    return sum(p.numel() for p in module.parameters())


def branch(form, in_chans=256, width=64, stride=1, cardinality=32, base_width=4, conv=conv_bn):
    return FORMS[form](in_chans, width, stride, conv, cardinality=cardinality, base_width=base_width)


def unnormalise(module):
    """Statistics and scales at random, so that no norm is the identity."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_mean, -1, 1)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.uniform_(norm.bias, -1, 1)
    return module


# -- the tables -------------------------------------------------------------------------------------------------


def test_table_1_row_by_row():
    network = create_on_meta("resnext50_32x4d")
    assert network.stages.conv1.conv.kernel_size == (7, 7) and network.stages.conv1.conv.out_channels == 64
    table = {  # output side, 1x1, 3x3, 1x1, blocks
        "conv2_x": (56, 128, 128, 256, 3),
        "conv3_x": (28, 256, 256, 512, 4),
        "conv4_x": (14, 512, 512, 1024, 6),
        "conv5_x": (7, 1024, 1024, 2048, 3),
    }
    shapes = network.stage_shapes()
    for name, (side, one, three, last, blocks) in table.items():
        stage = network.stages[name]
        assert shapes[name] == (last, side, side) and len(stage) == blocks
        for i, block in enumerate(stage):
            convolutions = [layer.conv for layer in block.branch]
            assert [c.out_channels for c in convolutions] == [one, three, last]
            assert [c.groups for c in convolutions] == [1, 32, 1]
            halves = i == 0 and name != "conv2_x"
            assert [c.stride[0] for c in convolutions] == [1, 2 if halves else 1, 1]  # Section 4


@pytest.mark.parametrize(
    ("cardinality", "base_width", "group"), [(1, 64, 64), (2, 40, 80), (4, 24, 96), (8, 14, 112), (32, 4, 128)]
)
def test_table_2_keeps_about_70k_weights(cardinality, base_width, group):
    """Eq. 4: C (256 d + 9 d d + 256 d), about 0.22 billion multiply-adds on 56x56."""
    with torch.device("meta"):
        convolutions = [layer.conv for layer in branch("c", cardinality=cardinality, base_width=base_width)]
    weights = sum(c.weight.numel() for c in convolutions)
    assert convolutions[1].out_channels == group
    assert weights == cardinality * (256 * base_width + 9 * base_width**2 + 256 * base_width)
    assert round(weights, -4) == 70_000 and round(weights * 56 * 56 / 1e9, 2) == 0.22


def test_one_path_of_64_is_resnet():
    """Table 3: ResNet is the setting 1x64d, with the stride in the 3x3 (Section 4)."""
    for in_chans, width, stride in [(64, 64, 1), (256, 128, 2)]:
        with torch.device("meta"):
            ours = branch("c", in_chans, width, stride, cardinality=1, base_width=64)
            resnets = bottleneck_v1_5(in_chans, width, stride, conv_bn)
        assert repr(ours) == repr(resnets)


@pytest.mark.parametrize(("cardinality", "printed"), [(8, "34.4"), (16, "68.1")])
def test_table_7_sizes_and_29_layers(cardinality, printed):
    with torch.device("meta"):
        network = resnext_cifar(29, cardinality, 64)
    assert f"{int(count(network) / 1e5) / 10}" == printed  # 68.155 is printed as 68.1
    on_path = [m for name, m in network.named_modules() if isinstance(m, nn.Conv2d) and "shortcut" not in name]
    assert len(on_path) + 1 == 29
    assert [len(network.stages[f"stage{i}"]) for i in (1, 2, 3)] == [3, 3, 3]


def test_doubling_cardinality_is_about_doubling_complexity():
    """Table 4: 64x4d is a model of twice the complexity; only inside the blocks, so a little less than twice."""
    one, two = (sum(p.numel() for p in create_on_meta(f"resnext101_{c}x4d").stages.parameters()) for c in (32, 64))
    assert 1.9 < two / one < 2


# -- Fig. 3 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("form", ["a", "b"])
@pytest.mark.parametrize(("cardinality", "base_width", "stride"), [(32, 4, 1), (8, 16, 2), (1, 64, 1)])
def test_the_three_forms_are_one_function(form, cardinality, base_width, stride, training):
    """Section 4: strictly equivalent, batch norm included: in a it follows the sum (footnote 6)."""
    torch.manual_seed(0)
    source, target = (branch(f, 32, 64, stride, cardinality, base_width) for f in ("c", form))
    carry_over(unnormalise(source), target)
    x = torch.randn(4, 32, 9, 9)
    torch.testing.assert_close(target.train(training)(x), source.train(training)(x), rtol=1e-5, atol=1e-5)
    for name in ("running_mean", "running_var"):  # of the same maps, in another order of channels
        ours, theirs = (
            torch.cat([buffer for key, buffer in module.named_buffers() if key.endswith(name)]).sort().values
            for module in (target, source)
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert count(target) == count(source)


@pytest.mark.parametrize("form", ["a", "b"])
def test_whole_networks_carry_over_block_by_block(form):
    torch.manual_seed(0)
    source = unnormalise(resnext_cifar(11, 4, 8, num_classes=3)).eval()
    target = resnext_cifar(11, 4, 8, num_classes=3, form=FORMS[form]).eval()
    state = {key: v for key, v in source.state_dict().items() if ".branch." not in key}
    assert all(".branch." in key for key in target.load_state_dict(state, strict=False).missing_keys)
    for stage, twin in zip(source.stages.values(), target.stages.values(), strict=True):
        for block, other in zip(stage, twin, strict=True) if hasattr(stage[0], "branch") else ():
            carry_over(block.branch, other.branch)
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(target(x), source(x), rtol=1e-5, atol=1e-5)


def test_form_a_by_hand():
    """Eq. 3: the sum of the paths, normed; each path a bottleneck on the whole map."""
    torch.manual_seed(0)
    paths, norm = unnormalise(branch("a", 8, 16, 1, cardinality=3, base_width=8)).eval()
    x = torch.randn(2, 8, 5, 5)
    total = 0
    for reduce, transform, expand in paths.paths:
        y = reduce.norm(reduce.conv(x)).clamp(min=0)
        total = total + expand(transform.norm(transform.conv(y)).clamp(min=0))
    assert len(paths.paths) == 3
    torch.testing.assert_close(nn.Sequential(paths, norm)(x), norm.norm(total))


def test_the_slots_reach_every_form():
    for form in FORMS:
        conv = functools.partial(conv_bn, norm=None, act=nn.Tanh)
        with torch.device("meta"):
            kinds = {type(m) for m in branch(form, conv=conv).modules()}
        assert nn.BatchNorm2d not in kinds and nn.ReLU not in kinds and nn.Tanh in kinds
