"""Dense layers of low rank: the law of the singular values left out, counts by hand, and a run that is opened again."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from convarium import create_model, load_run, train
from convarium.compression.low_rank import factorise
from convarium.data.preprocess import Preprocessing
from convarium.errors import UsageError
from convarium.plan import LowRank
from convarium.runs import save_run
from convarium.surgery import to_fully_convolutional

F6, CLASSIFIER = "head.hidden.F6.fc", "head.classifier"  # 120 to 84, 84 to 10


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_model("lenet5_modern").eval()


@pytest.fixture
def wide(model):
    """The same with 200 hidden units: a weight of more rows than columns."""
    model.head.hidden.F6.fc, model.head.classifier = nn.Linear(120, 200), nn.Linear(200, 10)
    return model


@pytest.mark.parametrize(("path", "rank"), [(F6, 84), (CLASSIFIER, 10)])
def test_at_full_rank_nothing_changes(model, path, rank):
    x = torch.randn(2, 1, 32, 32)
    expected = model(x)
    factorise(model, [path], rank=rank)
    assert isinstance(model.get_submodule(path), LowRank)
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("shape", ["model", "wide"])
@pytest.mark.parametrize("rank", [1, 20, 83])
@pytest.mark.long
def test_the_error_is_the_singular_values_left_out(shape, rank, request, monkeypatch):
    monkeypatch.setattr("convarium.compression.low_rank.write_plan", lambda model: None)  # the wide one is in no list
    model = request.getfixturevalue(shape)
    layer = model.get_submodule(F6)
    squares = np.linalg.svd(layer.weight.detach().double().numpy(), compute_uv=False) ** 2
    energy = factorise(model, [F6], rank=rank).layers[F6].energy
    first, second = model.get_submodule(F6)
    difference = second.weight.double() @ first.weight.double() - layer.weight.double()
    assert difference.square().sum().item() == pytest.approx(squares[rank:].sum(), rel=1e-5)
    assert energy == pytest.approx(squares[:rank].sum() / squares.sum(), rel=1e-9)
    assert second.bias is layer.bias


def test_the_rank_is_the_least_that_keeps_the_energy(model):
    left, right = (torch.linalg.qr(torch.randn(side, 84).double())[0] for side in (84, 120))
    squares = torch.tensor([6.0, 2.0, 1.0, 0.5] + 80 * [0.5 / 80]).double()  # of 10
    model.get_submodule(F6).weight.data = (left * squares.sqrt() @ right.T).float()
    for energy, rank in [(0.5, 1), (0.61, 2), (0.79, 2), (0.85, 3), (0.93, 4)]:
        assert factorise(copy.deepcopy(model), [F6], energy=energy).layers[F6].rank == rank
    assert factorise(model, [F6], energy=1.0).layers == {}  # two layers of rank 84 are larger than the one
    assert model.plan == {}


def test_counts_by_hand(model):
    done = factorise(model, rank=5)
    shapes = {path: (own.in_features, own.out_features, own.rank) for path, own in done.layers.items()}
    assert shapes == {F6: (120, 84, 5), CLASSIFIER: (84, 10, 5)}
    saved = 120 * 84 - 5 * (120 + 84) + 84 * 10 - 5 * (84 + 10)
    assert (done.params_before, done.params) == (61_706, 61_706 - saved)
    assert done.params == sum(parameter.numel() for parameter in model.parameters())
    assert done.macs_before - done.macs == saved


def test_as_many_parameters_as_are_allowed_at_the_same_energy(model):
    squares = {
        path: np.linalg.svd(model.get_submodule(path).weight.detach().double().numpy(), compute_uv=False) ** 2
        for path in (F6, CLASSIFIER)
    }
    done = factorise(model, params=57_000)
    assert 57_000 - (120 + 84) < done.params <= 57_000  # one rank more of the larger layer would be too many
    kept = [own.energy for own in done.layers.values()]
    with_one_less = [squares[path][: own.rank - 1].sum() / squares[path].sum() for path, own in done.layers.items()]
    assert len(kept) == 2 and max(with_one_less) < min(kept)
    enough = create_model("lenet5_modern")
    assert factorise(enough, params=61_706).layers == {} == enough.plan


@pytest.mark.slow
def test_nine_tenths_of_vgg16_are_in_its_head():
    """The dense layers by hand: 7 7 512 to 4,096 to 4,096 to 1,000 of 138 million parameters (Simonyan and Zisserman
    2015, Table 2)."""
    torch.manual_seed(0)
    model = create_model("vgg16").eval()
    weights = 7 * 7 * 512 * 4096 + 4096 * 4096 + 4096 * 1000
    done = factorise(model, rank=256)
    assert round(done.params_before / 1e6) == 138 and round(100 * weights / done.params_before) == 89
    two = 256 * (7 * 7 * 512 + 4096 + 4096 + 4096 + 4096 + 1000)
    assert done.params_before - done.params == done.macs_before - done.macs == weights - two


def test_it_is_saved_slides_and_learns_other_classes(draw_folder, tmp_path):
    torch.manual_seed(0)
    model = create_model("lenet5_modern", num_classes=3, in_chans=3).eval()
    factorise(model, rank=3)
    settings = Preprocessing(32, 3, model.mean, model.std)
    run = tmp_path / "run"
    run.mkdir()
    save_run(run, model, settings, ["a", "b", "c"], data={"name": "none", "fingerprint": "", "seed": 0})
    again = load_run(run).model
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(x), model(x)) and again.plan == model.plan and again.plan[F6]["rank"] == 3
    torch.testing.assert_close(to_fully_convolutional(again)(x), model(x))

    data = draw_folder(tmp_path / "data", {"elk": 8, "fox": 8})
    train(str(data), weights=run, output=tmp_path / "tuned", epochs=1, batch_size=8, threads=1)
    tuned = load_run(tmp_path / "tuned").model
    assert tuned.plan == {F6: model.plan[F6]} and tuned.get_classifier().out_features == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "by one goal"),
        (dict(rank=2, energy=0.5), "by one goal"),
        (dict(rank=0), "ranks from 1 to 84; got 0"),
        (dict(rank=11), "head.classifier has ranks from 1 to 10; got 11"),
        (dict(energy=0.0), "a part above 0 and at most 1"),
        (dict(energy=95), "a part above 0 and at most 1"),
        (dict(paths=["head.hidden.F7.fc"], rank=2), r"no dense layer 'head.hidden.F7.fc'; nearest: head.hidden.F6.fc"),
        (dict(paths=["stages.C1.conv"], rank=2), "no dense layer 'stages.C1.conv'"),
        (dict(params=1000), r"60,706 parameters were to be spared, and at most 10,622 can be"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(model, given, said):
    before = [path for path, _ in model.named_modules()]
    with pytest.raises(UsageError, match=said):
        factorise(model, **given)
    assert [path for path, _ in model.named_modules()] == before


def test_a_head_without_a_dense_layer_says_so():
    with pytest.raises(UsageError, match="the head of nin_cifar has no dense layer"):
        factorise(create_model("nin_cifar"), energy=0.9)
