"""A network changed by hand, its plan, and the same network made again from the plan."""

import json

import pytest
import torch
from torch import nn

from convarium import create_model
from convarium.errors import DataError
from convarium.plan import LowRank, apply_plan, plan_between
from convarium.runs import CONFIG, load_run


@pytest.fixture
def changed():
    """ResNet-20 with a block of 5 instead of 16 inner channels, without a gate, with a bias where a norm was."""
    model = create_model("resnet20_cifar", attention="se").eval()
    block = model.stages["stage1"][0]
    first, second = block.branch[0], block.branch[1]
    first.conv.weight = nn.Parameter(first.conv.weight[:5].detach())
    first.conv.out_channels = 5
    first.conv.bias = nn.Parameter(torch.ones(5))
    first.norm = nn.Identity()
    second.conv.weight = nn.Parameter(second.conv.weight[:, :5].detach())
    second.conv.in_channels = 5
    block.attention = nn.Identity()
    return model


def test_a_plan_is_what_changed_and_makes_it_again(changed):
    plan = plan_between(create_model("resnet20_cifar", attention="se"), changed)
    block = "stages.stage1.0"
    assert plan == {
        f"{block}.branch.0.conv": {"out_channels": 5, "weight": [5, 16, 3, 3], "bias": [5]},
        f"{block}.branch.0.norm": None,
        f"{block}.branch.1.conv": {"in_channels": 5, "weight": [16, 5, 3, 3]},
        f"{block}.attention": None,
    }
    again = create_model("resnet20_cifar", attention="se").eval()
    apply_plan(again, json.loads(json.dumps(plan)))
    again.load_state_dict(changed.state_dict())
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(x), changed(x)) and again.plan == plan


def test_a_dense_layer_becomes_two():
    model = create_model("lenet5_modern").eval()
    before = create_model("lenet5_modern")
    name, layer = next((n, m) for n, m in model.head.hidden.named_modules() if isinstance(m, nn.Linear))
    model.head.hidden.set_submodule(name, LowRank(layer.in_features, layer.out_features, 7))
    plan = plan_between(before, model)
    assert plan == {
        f"head.hidden.{name}": {
            "rank": 7, "in_features": layer.in_features, "out_features": layer.out_features, "bias": True,
        }
    }  # fmt: skip
    apply_plan(before, plan)
    before.load_state_dict(model.state_dict())


def test_a_plan_for_another_network_is_refused():
    for plan in ({"stages.conv9": None}, {"stages.stage1.0.branch.0.conv": {"depth": 3}}):
        with pytest.raises(DataError, match="which this network does not have"):
            apply_plan(create_model("resnet20_cifar"), plan)


CONV = "stages.stage1.0.branch.0.conv"


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ([CONV], "a plan says by the path"),
        ({CONV: 5}, "makes 5 of"),
        ({"": {"min_input_size": 1}}, "makes .* of the network"),
        ({"stages.stage1.forward": None}, "this network does not have"),
        ({f"{CONV}.weight": {"data": [1]}}, "this network does not have"),
        ({CONV: {"forward": 3}}, "this network does not have"),
        ({CONV: {"kernel_size": 10**9}}, "this network does not have"),
        ({CONV: {"out_channels": -4}}, "sizes from 1"),
        ({CONV: {"out_channels": "4"}}, "sizes from 1"),
        ({CONV: {"out_channels": True}}, "sizes from 1"),
        ({CONV: {"groups": 0}}, "sizes from 1"),
        ({CONV: {"weight": 4}}, "a tensor has a shape"),
        ({CONV: {"weight": [-1, 16, 3, 3]}}, "sizes from 0"),
        ({CONV: {"weight": [10**12, 16, 3, 3]}}, "sizes from 0"),
        ({CONV: {"weight": [16, 16, 3]}}, "sizes from 0"),
        ({CONV: {"weight": [16, 16, 3.0, "3"]}}, "sizes from 0"),
        ({CONV: {"bias": [10**12]}}, "sizes from 0"),
        ({CONV: {"rank": 4, "in_features": 16, "out_features": 16, "bias": True}}, "of a dense layer"),
        ({"head.classifier": {"rank": 10**9, "in_features": 64, "out_features": 3, "bias": True}}, "sizes from 1"),
        ({"head.classifier": {"rank": 2, "in_features": 64, "out_features": 3}}, "of a dense layer"),
        ({CONV: {"out_channels": 5, "weight": [5, 16, 3, 3]}}, "do not fit together"),
        ({"stages": None}, "do not fit together"),
        ({"head": None}, "do not fit together"),
        ({"head.pool": None}, "do not fit together"),
        ({"head.classifier": None}, r"gives \(64,\) for 3 classes"),
    ],
)
def test_a_hostile_plan_in_a_run_is_one_clear_error(run, tmp_path, plan, said):
    for name in ("model.safetensors", CONFIG):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    config = json.loads((tmp_path / CONFIG).read_text())
    config["convarium"]["plan"] = plan
    (tmp_path / CONFIG).write_text(json.dumps(config))
    with pytest.raises(DataError, match=said):
        load_run(tmp_path)
