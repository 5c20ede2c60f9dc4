"""Batch norm folded: against the formula by hand, what must stay, and a folded run that is opened again."""

import pytest
import torch
from torch import nn

from convarium import create_model, load_run
from convarium.compression.fold import find_foldable, fold_norms
from convarium.compression.groups import find_groups
from convarium.compression.importance import l1_norm
from convarium.compression.prune import prune
from convarium.network import Head, Network
from convarium.runs import save_run


def network_of(stage, head):
    """A network of one stage on 4-channel images, with statistics, gains and shifts that are not the identity's."""
    network = Network({"stage": stage}, head, input_size=(4, 6, 6), min_input_size=6)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(norm.running_mean, -1, 1)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.uniform_(norm.bias, -1, 1)
            if norm.weight is not None:
                nn.init.uniform_(norm.weight, -2, 2)
    return network.eval()


@pytest.fixture
def no_plan(monkeypatch):
    """For networks that are in no catalogue."""
    monkeypatch.setattr("convarium.compression.fold.write_plan", lambda model: None)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_by_hand(groups, bias, no_plan):
    conv, norm = nn.Conv2d(4, 8, 3, groups=groups, bias=bias), nn.BatchNorm2d(8, eps=1e-3)
    network = network_of(nn.Sequential(conv, norm, nn.ReLU()), Head(8, 3))
    scale = norm.weight / (norm.running_var + 1e-3).sqrt()
    weight = conv.weight * scale[:, None, None, None]
    shift = ((conv.bias if bias else 0) - norm.running_mean) * scale + norm.bias
    x = torch.randn(2, 4, 6, 6)
    expected = network(x)
    assert fold_norms(network) == ["stages.stage.1"]
    assert isinstance(network.stages.stage[1], nn.Identity)
    torch.testing.assert_close(conv.weight, weight)
    torch.testing.assert_close(conv.bias, shift)
    torch.testing.assert_close(network(x), expected)


def test_behind_a_dense_layer_without_a_gain_and_two_in_turn(no_plan):
    plain = nn.BatchNorm1d(5)
    plain.register_parameter("weight", None)
    dense = nn.Sequential(nn.Linear(4, 5, bias=False), plain, nn.Dropout(), nn.BatchNorm1d(5), nn.ReLU())
    network = network_of(nn.Identity(), Head(4, 3, hidden={"fc": dense}, hidden_size=5))
    x = torch.randn(3, 4, 6, 6)
    expected = network(x)
    assert fold_norms(network) == ["head.hidden.fc.1", "head.hidden.fc.3"]
    torch.testing.assert_close(network(x), expected)


class Both(nn.Module):
    """A map that a norm reads, and an addition beside it; the same convolution before and after."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.twice, self.last = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.conv(x)
        x = x + self.norm(x)
        return self.last(self.twice(self.twice(x)))


def test_what_is_read_by_others_too_or_serves_twice_stays(no_plan):
    network = network_of(Both(), Head(4, 3))
    assert find_foldable(network) == {} == dict.fromkeys(fold_norms(network))


def test_before_the_convolutions_of_a_preactivation_unit_they_stay():
    """A unit of two convolutions has two norms (He et al. 2016, Fig. 4e): the first reads a sum, the second a
    convolution. ResNet-110's first unit follows conv1's own norm instead, and the last sum has one of its own."""
    model = create_model("preact_resnet110_cifar").eval()
    units = (110 - 2) // 2
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert norms == 2 * units + 1
    assert len(fold_norms(model)) == units + 1


def test_a_folded_run_is_opened_pruned_and_opened_again(run, tmp_path):
    loaded = load_run(run)
    x = torch.randn(2, 3, 16, 16)

    def saved_and_opened(model, folder):
        folder.mkdir()
        save_run(folder, model, loaded.preprocessing, loaded.class_names, data=loaded.own["data"])
        again = load_run(folder).model
        assert torch.equal(again(x), model(x)) and again.plan == model.plan
        return again

    expected = loaded.model(x)
    fold_norms(loaded.model)
    folded = saved_and_opened(loaded.model, tmp_path / "folded")
    torch.testing.assert_close(folded(x), expected)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    prune(folded, l1_norm(folded, find_groups(folded)), ratio=0.5)
    assert saved_and_opened(folded, tmp_path / "pruned").num_features == 32
