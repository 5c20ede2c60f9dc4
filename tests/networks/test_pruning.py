"""Every network prunes, with no exclusions: counts hold, groups are right by function, and what is left lives."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from convarium.anatomy.trace import trace
from convarium.compression.costs import Costs
from convarium.compression.groups import NO_UNIT, NUMBERS, cut, find_groups
from convarium.compression.importance import random_scores
from convarium.compression.prune import prune
from convarium.data.preprocess import Preprocessing
from convarium.network import run_on_meta
from convarium.networks.lenet import RBF
from convarium.runs import load_run, save_run


def random_kept(groups, draw):
    """Each group as narrow as it comes, down to one unit of those that a layer cannot be without."""
    kept = {group: np.sort(draw.permutation(group.size)[: draw.integers(1, group.size + 1)]) for group in groups}
    # A map of LeNet-5's C3 reads three maps at least: with four of the six left, one of them.
    return {
        group: (*range(4),) if group.name == "stages.C1.conv" and len(own) < 4 else own for group, own in kept.items()
    }


@pytest.mark.dear
def test_twenty_random_plans_have_the_counts_that_are_predicted(on_meta):
    groups, costs = find_groups(on_meta), Costs(on_meta)
    assert costs.macs({}) == sum(row.macs for row in trace(on_meta, on_meta.input_size).rows)
    widths = sum(math.prod(p.shape) for p in on_meta.parameters())
    assert costs.params({}) == widths
    for seed in range(20):
        kept = random_kept(groups, np.random.default_rng(seed))
        smaller = copy.deepcopy(on_meta)
        cut(smaller, kept)
        out = run_on_meta(smaller, torch.empty(2, *smaller.input_size, device="meta"))
        assert out.shape == (2, smaller.num_classes)
        assert costs.macs(kept) == sum(row.macs for row in trace(smaller, smaller.input_size).rows)
        assert costs.params(kept) == sum(p.numel() for p in smaller.parameters()) < widths
    assert smaller.head.in_features == read_by_head(smaller)


def read_by_head(model):
    """What the head reads, from the map that it is given."""
    channels, height, width = list(model.stage_shapes().values())[-1]
    return channels * (height * width if model.head.pool.kind == "flatten" else 1)


def silence(model, gone):
    """Set to zero, in place, all that makes those units: filters, biases, gains, shifts and means; an index that
    selects them selects zeros instead."""
    numbers = {m.tensor: m.units for group in gone for m in group.members if m.dim == NUMBERS}
    state = model.state_dict()
    for group, units in gone.items():
        for member in group.members:
            if member.dim != 0 or member.tensor not in state or member.tensor.endswith("running_var"):
                continue
            rows = torch.from_numpy(np.flatnonzero(np.isin(member.units, units)))
            if state[member.tensor].is_floating_point():
                state[member.tensor][rows] = 0
            elif numbers[member.tensor][-1] == NO_UNIT:
                state[member.tensor][rows] = len(numbers[member.tensor]) - 1


@pytest.mark.dear
@torch.no_grad()
def test_to_cut_what_is_silent_changes_nothing(network, smallest_images):
    network = copy.deepcopy(network).double()
    for path, module in list(network.named_modules()):
        if isinstance(module, nn.LocalResponseNorm):  # beside a gap that closes are other neighbours
            network.set_submodule(path, nn.Identity())
    draw = np.random.default_rng(0)
    gone = {}
    for group in find_groups(network):
        most = min(group.size - 4, 1 + group.size // 3)
        if most > 0:
            gone[group] = draw.permutation(group.size)[:most].tolist()
    x = smallest_images(network).double()
    before = network(x)
    silence(network, gone)
    silent = network(x)
    assert not torch.allclose(silent, before)
    cut(network, {group: sorted({*range(group.size)} - {*units}) for group, units in gone.items()})
    left = network(x)
    if isinstance(network.head.classifier, RBF):  # the elements that go are as far from 0 in the code of every class
        silent, left = silent.log_softmax(1), left.log_softmax(1)
    torch.testing.assert_close(left, silent, rtol=1e-9, atol=1e-9 * silent.abs().max().item())


@pytest.mark.dear
def test_a_pruned_network_learns_is_saved_and_is_pruned_again(network, smallest_images, tmp_path):
    network = copy.deepcopy(network)
    scores = random_scores(network, find_groups(network))
    pruned = prune(network, scores, ratio=0.5)
    assert pruned.macs < 0.6 * pruned.macs_before and pruned.params < pruned.params_before

    side = network.min_input_size
    last = list(network.stage_shapes((network.input_size[0], side, side)).values())[-1]
    x = smallest_images(network, max(2, 8 // (last[1] * last[2])))
    network.train()(x).logsumexp(1).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name

    settings = Preprocessing(side, network.input_size[0], network.mean, network.std, network.crop_pct, "bilinear")
    names = [str(i) for i in range(network.num_classes)]
    save_run(tmp_path, network.eval(), settings, names, data={"name": "none", "fingerprint": "", "seed": 0})
    again = load_run(tmp_path).model
    with torch.no_grad():
        expected = network(x)
        assert expected.isfinite().all() and torch.equal(again(x), expected)
    assert again.plan == network.plan

    twice = prune(again, random_scores(again, find_groups(again)), ratio=0.3)
    assert twice.macs_before == pruned.macs > twice.macs
    with torch.no_grad():
        assert again(x).shape == expected.shape
