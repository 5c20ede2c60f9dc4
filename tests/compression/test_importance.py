"""Importances against hand computations and against what they are said to estimate."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from convarium import create_model
from convarium.compression import importance
from convarium.compression.groups import find_groups
from convarium.errors import UsageError


@pytest.fixture
def resnet(uneven_norms):
    torch.manual_seed(0)
    return uneven_norms(create_model("resnet20_cifar")).eval()


@pytest.fixture
def uneven_norms():
    def set_at_random(model):
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight, 0.5, 2)
                torch.nn.init.uniform_(module.bias, -1, 1)
        return model

    return set_at_random


def group_of(model, name):
    return next(group for group in find_groups(model) if group.name == name)


INNER = "stages.stage1.0.branch.0.conv"


def test_norms_are_those_of_the_filters(resnet):
    """Of the inner channels of a block, by one layer; of a stage's, by the layers that add up in it."""
    inner, stream = group_of(resnet, INNER), group_of(resnet, "stages.conv1.conv")
    weight = resnet.get_submodule(INNER).weight.detach().double()
    l1, l2 = importance.l1_norm(resnet, [inner, stream]), importance.l2_norm(resnet, [inner])
    np.testing.assert_allclose(l1[inner], weight.abs().sum((1, 2, 3)))
    np.testing.assert_allclose(l2[inner], weight.square().sum((1, 2, 3)).sqrt())
    paths = ["stages.conv1.conv", *(f"stages.stage1.{i}.branch.1.conv" for i in range(3))]
    added = [resnet.get_submodule(path).weight.detach().double().abs().sum((1, 2, 3)) for path in paths]
    np.testing.assert_allclose(l1[stream], sum(added))


def test_pieces_of_a_maxout_count_together():
    model = create_model("maxout_cifar")
    group = find_groups(model)[0]
    weight = model.get_submodule(group.name).weight.detach().double()
    by_hand = weight.square().flatten(1).sum(1).view(96, 2).sum(1).sqrt()
    np.testing.assert_allclose(importance.l2_norm(model, [group])[group], by_hand)


def test_gains_of_norms_are_averaged(resnet):
    inner, stream = group_of(resnet, INNER), group_of(resnet, "stages.conv1.conv")
    scores = importance.norm_gain(resnet, [inner, stream])
    np.testing.assert_allclose(scores[inner], resnet.stages["stage1"][0].branch[0].norm.weight.detach().abs())
    norms = [resnet.stages["conv1"].norm, *(resnet.stages["stage1"][i].branch[1].norm for i in range(3))]
    np.testing.assert_allclose(scores[stream], sum(norm.weight.detach() for norm in norms) / 4, rtol=1e-6)


def test_without_norms_there_are_no_gains():
    model = create_model("lenet5_modern")
    with pytest.raises(UsageError, match=r"no batch norm with gains belongs to stages\.C1\.conv"):
        importance.norm_gain(model, find_groups(model))


def test_taylor_is_the_slope_of_the_loss_as_a_unit_fades(resnet):
    """Scaling gain and shift of a unit by 1 - e changes the loss by e times the root of its score, for small e."""
    inner = group_of(resnet, INNER)
    resnet = resnet.double()
    images, labels = torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 3])
    score = importance.taylor(resnet, [inner], [(images, labels)])[inner]
    assert all(parameter.grad is None for parameter in resnet.parameters())
    norm, step = resnet.stages["stage1"][0].branch[0].norm, 1e-5
    with torch.no_grad():
        before = F.cross_entropy(resnet(images), labels)
        for unit in (0, 7, 15):
            kept = norm.weight[unit].item(), norm.bias[unit].item()
            norm.weight[unit] *= 1 - step
            norm.bias[unit] *= 1 - step
            slope = (F.cross_entropy(resnet(images), labels) - before).item() / step
            norm.weight[unit], norm.bias[unit] = kept
            assert slope**2 == pytest.approx(score[unit], rel=1e-2)


def test_taylor_needs_images(resnet):
    with pytest.raises(UsageError, match="no images"):
        importance.taylor(resnet, find_groups(resnet), [])


def test_the_filter_in_the_middle_is_the_least_by_the_geometric_median(resnet):
    inner = group_of(resnet, INNER)
    weight = resnet.get_submodule(INNER).weight
    with torch.no_grad():
        weight[3] = weight[torch.arange(16) != 3].mean(0)
    scores = importance.geometric_median(resnet, [inner])[inner]
    flat = weight.detach().double().flatten(1)
    by_hand = [sum((flat[i] - flat[j]).norm().item() for j in range(16)) for i in range(16)]
    np.testing.assert_allclose(scores, by_hand)
    assert scores.argmin() == 3 and importance.l2_norm(resnet, [inner])[inner].argmin() == 3


def test_gates_weigh_the_norms_of_what_they_multiply():
    model = create_model("se_resnet20_cifar")
    stream, inner = group_of(model, "stages.conv1.conv"), group_of(model, INNER)
    factors = {f"stages.stage1.{i}.attention": np.linspace(0, 1, 16) * (i + 1) for i in range(3)}
    norms = importance.l2_norm(model, [stream, inner])
    scores = importance.gate_factors(model, [stream, inner], factors)
    np.testing.assert_allclose(scores[stream], norms[stream] * np.linspace(0, 1, 16) * 2)
    np.testing.assert_allclose(scores[inner], norms[inner])


def test_random_scores_are_the_seeds(resnet):
    groups = find_groups(resnet)
    one, same, other = (importance.random_scores(resnet, groups, seed=seed) for seed in (1, 1, 2))
    assert all((one[group] == same[group]).all() and (one[group] != other[group]).any() for group in groups)


@pytest.mark.parametrize("name", ["lenet5", "maxout_cifar", "nin_cifar", "resnext29_8x64d_cifar", "mobilenet_v1_025"])
@pytest.mark.parametrize("measure", ["l1_norm", "l2_norm", "geometric_median"])
def test_every_kind_of_group_has_scores(name, measure):
    model = create_model(name)
    groups = find_groups(model)[:6]
    scores = getattr(importance, measure)(model, groups)
    assert all(own.shape == (group.size,) and (own > 0).all() for group, own in scores.items())
