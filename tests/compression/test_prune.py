"""Which units go: ratios, targets met to a unit, floors, widths; single weights."""

import numpy as np
import pytest
import torch

from convarium import create_model, describe
from convarium.compression.costs import Costs, measured_latency_ms
from convarium.compression.groups import find_groups
from convarium.compression.importance import l2_norm, random_scores
from convarium.compression.prune import Limits, in_order, keep_after, keep_part, keep_within, prune, sparsify
from convarium.data.preprocess import Preprocessing
from convarium.errors import UsageError


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_model("resnet20_cifar").eval()


@pytest.fixture
def scores(model):
    return random_scores(model, find_groups(model))


@pytest.mark.parametrize("scheme", ["uniform", "global"])
@pytest.mark.parametrize("part", [0.75, 0.5, 0.25])
def test_a_target_is_met_to_a_unit(model, scores, scheme, part):
    costs = Costs(model)
    goal = part * costs.macs({})
    kept = keep_within(scores, costs.macs, goal, scheme=scheme)
    order = in_order(scores, scheme)
    gone = sum(group.size - len(own) for group, own in kept.items())
    assert costs.macs(kept) <= goal < costs.macs(keep_after(scores, order[: gone - 1]))
    done = prune(model, scores, macs=goal, scheme=scheme)
    assert done.macs == costs.macs(kept) == describe(model).macs
    assert done.params == describe(model).params
    assert done.macs_before == costs.macs({}) and done.units["stages.conv1.conv"][0] == 16


def test_parameters_can_be_the_target(model, scores):
    done = prune(model, scores, params=100_000)
    assert 95_000 < done.params == sum(p.numel() for p in model.parameters()) <= 100_000


def test_uniform_takes_the_least_of_each_group_alike(model, scores):
    kept = keep_part(scores, 0.5)
    for group, own in kept.items():
        assert len(own) == group.size // 2
        gone = [unit for unit in range(group.size) if unit not in own]
        assert scores[group][gone].max() < scores[group][list(own)].min()


def test_global_takes_the_least_of_all_and_leaves_a_floor(model):
    """Groups whose scores are a thousandth in most channels would be emptied: they keep a tenth, and four at least."""
    groups = find_groups(model)
    scores = {group: np.where(np.arange(group.size) < group.size - 1, 1e-3, 1.0) for group in groups[:2]}
    scores |= {group: np.linspace(0.9, 1.1, group.size) for group in groups[2:]}
    kept = keep_part(scores, 0.3, scheme="global")
    assert [len(kept[group]) for group in groups[:2]] == [4, 4]
    assert all(group.size - 1 in own for group, own in kept.items())
    wide = keep_part({group: random_scores(model, [group])[group] for group in groups}, 0.99, limits=Limits(0.5, 1))
    assert all(len(own) == group.size // 2 for group, own in wide.items())


def test_a_ratio_for_each_stage_leaves_the_others_whole(model, scores):
    kept = keep_part(scores, {"stage2": 0.25, "stage3": 0.5})
    parts = {group.name: len(own) / group.size for group, own in kept.items()}
    assert {part for name, part in parts.items() if "stage2" in name} == {0.75}
    assert {part for name, part in parts.items() if "stage3" in name} == {0.5}
    assert {part for name, part in parts.items() if "stage1" in name or "conv1" in name} == {1.0}


def test_widths_are_rounded_up_and_the_target_still_holds(model, scores):
    costs = Costs(model)
    kept = keep_within(scores, costs.macs, 0.5 * costs.macs({}), limits=Limits(multiple=8))
    assert {len(own) % 8 for own in kept.values()} == {0}
    assert costs.macs(kept) <= 0.5 * costs.macs({})


def test_a_measured_cost_can_be_the_target(model, scores):
    """With a clock that ticks once per channel of the first stage, ten ticks are ten channels."""
    first = next(iter(scores))
    kept = keep_within(scores, lambda kept: float(len(kept[first])), 10.0, grain=8)
    assert len(kept[first]) <= 10
    settings = Preprocessing(8, 3, (0.5,) * 3, (0.5,) * 3, 1.0, "bilinear")
    assert measured_latency_ms(model, settings)(kept) > 0 and model.plan == {}


def test_what_has_no_scores_stays_whole(model):
    groups = find_groups(model)
    prune(model, random_scores(model, groups[1:2]), ratio=0.5)
    assert [group.size for group in find_groups(model)] == [16, 8, *(group.size for group in groups[2:])]


def test_pruning_again_goes_on_from_what_is_there(model):
    first = prune(model, l2_norm(model, find_groups(model)), ratio=0.25)
    second = prune(model, l2_norm(model, find_groups(model)), ratio=0.25)
    assert second.macs_before == first.macs and second.params == sum(p.numel() for p in model.parameters())
    assert model.plan["stages.conv1.conv"] == {"out_channels": 9, "weight": [9, 3, 3, 3]}


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        ({}, "one goal"),
        ({"ratio": 0.5, "macs": 1e6}, "one goal"),
        ({"ratio": 1.0}, "from 0 to 1"),
        ({"ratio": -0.1}, "from 0 to 1"),
        ({"ratio": {"stage9": 0.5}}, "nothing to cut in a stage 'stage9'"),
        ({"ratio": 0.5, "scheme": "best"}, "scheme must be one of uniform, global"),
        ({"macs": 1000}, r"at most 1,000 is asked for, and the least it can come to is \d"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_cut(model, scores, goal, said):
    with pytest.raises(UsageError, match=said):
        prune(model, scores, **goal)
    assert model.plan == {}


def test_the_smallest_weights_become_zero():
    model = create_model("lenet5_modern")
    weights = torch.cat([p.detach().abs().flatten() for name, p in model.named_parameters() if "weight" in name])
    zeros = sparsify(model, 0.6)
    after = torch.cat([p.detach().abs().flatten() for name, p in model.named_parameters() if "weight" in name])
    assert zeros == (after == 0).sum() == round(0.6 * len(weights))
    assert weights[after == 0].max() <= weights[after != 0].min()
    with pytest.raises(UsageError, match="from 0 to 1"):
        sparsify(model, 1.5)
