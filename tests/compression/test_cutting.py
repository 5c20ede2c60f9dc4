"""What a search takes out of a run: gates, dense layers, channels, by what images say of them."""

import numpy as np
import pytest
import torch

from convarium import create_model, load_run
from convarium.compression.cutting import FROM_IMAGES, cost_of, prune_run, reachable_steps, take_out
from convarium.compression.search import _cut
from convarium.compression.search_plan import SearchPlan
from convarium.data.datasets import open_dataset
from convarium.data.preprocess import Preprocessing
from convarium.errors import UsageError
from convarium.explanation.gates import gates_of
from convarium.plan import LowRank
from convarium.runs import save_run

NAMES = ["ant", "bee", "cat"]


@pytest.fixture
def make_run(tmp_path):
    def make(name, size):
        torch.manual_seed(0)
        model = create_model(name, num_classes=3, in_chans=3)
        settings = Preprocessing(size, 3, (0.5,) * 3, (0.25,) * 3)
        (tmp_path / name).mkdir()
        save_run(tmp_path / name, model, settings, NAMES, data={"name": "none", "fingerprint": "", "seed": 0})
        return load_run(tmp_path / name)

    return make


def plan_of(run, steps, **options):
    usual = dict(
        run=str(run.path), run_hash="", data="", data_hash="", max_drop=0.5, target="macs", importance="l1",
        scheme="uniform", runtime="openvino", samples=1, batch=1, epochs=1, recipe={},
    )  # fmt: skip
    return SearchPlan(steps=steps, **usual | options)


def saved_again(run, path):
    path.mkdir()
    save_run(path, run.model, run.preprocessing, run.class_names, data=run.own["data"])
    return load_run(path)


def same_outputs(one, other):
    x = torch.randn(2, 3, one.preprocessing.size, one.preprocessing.size)
    with torch.no_grad():
        return torch.equal(one.model.eval()(x), other.model.eval()(x))


def test_gates_of_a_stage_go_and_the_run_is_whole_without_them(make_run, tmp_path):
    run = make_run("se_resnet20_cifar", 16)
    before = list(gates_of(run.model))
    stage = before[-1].split(".")[1]
    take_out(run, stage, 0.0)
    left = list(gates_of(run.model))
    assert left == [path for path in before if path.split(".")[1] != stage] and len(left) < len(before)
    assert same_outputs(run, saved_again(run, tmp_path / "again"))
    take_out(run, "all", 0.0)
    assert not gates_of(run.model)
    with pytest.raises(UsageError, match="has no gates in"):
        take_out(run, stage, 0.0)
    with pytest.raises(UsageError, match="has no stage 'nowhere'"):
        take_out(run, "nowhere", 0.0)


def test_dense_layers_become_two_and_the_run_is_whole_with_them(make_run, tmp_path):
    run = make_run("lenet5_modern", 32)
    before = cost_of(run, "params")
    take_out(run, "", 0.6)
    assert any(isinstance(module, LowRank) for module in run.model.modules()) and cost_of(run, "params") < before
    assert same_outputs(run, saved_again(run, tmp_path / "again"))


def test_what_gates_let_through_is_measured_on_training_images(make_run, images):
    """Against the gates' outputs over their inputs, looked at from outside."""
    run, dataset = make_run("se_resnet20_cifar", 16), open_dataset(str(images))
    seen = {}
    for path, gate in gates_of(run.model).items():
        gate.register_forward_hook(
            lambda _, inputs, output, path=path: seen.setdefault(path, []).append((output / inputs[0]).nanmean((2, 3)))
        )
    found = FROM_IMAGES["gates"](run, dataset)
    assert found.keys() == gates_of(run.model).keys()
    for path, rows in seen.items():
        factors = torch.cat(rows)
        assert len(factors) == len(dataset.splits["train"])
        np.testing.assert_allclose(found[path], factors.nanmean(0), rtol=1e-4)
    whole = cost_of(run, "macs")
    prune_run(run, "macs", 0.5 * whole, "uniform", "gates", dataset)
    assert 0.45 * whole < cost_of(run, "macs") <= 0.5 * whole


def test_what_is_asked_of_gates_is_refused_where_there_are_none(make_run):
    run = make_run("resnet20_cifar", 16)
    with pytest.raises(UsageError, match="has no gates to go by: choose another importance, such as l1"):
        reachable_steps(run, plan_of(run, [0.5], importance="gates"))
    with pytest.raises(UsageError, match="has no gates in"):
        reachable_steps(run, plan_of(run, [0.5], without_gates="all"))
    gated = make_run("se_resnet20_cifar", 16)
    assert reachable_steps(gated, plan_of(gated, [0.5, 0.25], importance="gates")) == 2
    assert reachable_steps(gated, plan_of(gated, [0.5, 0.25], without_gates="all")) == 2


def test_what_goes_first_goes_from_every_cut_of_the_dense_run_and_from_no_other(make_run, tmp_path):
    """A step half-way back to the dense run is cut from it as the first was."""
    run = make_run("se_resnet20_cifar", 16)
    plan = plan_of(run, [0.6], without_gates="stage3")
    for number, source in ((1, run.path), (2, run.path)):
        _cut(plan, None, source, tmp_path / f"cut-{number}", number, 0.6)
        assert not any("stage3" in path for path in gates_of(load_run(tmp_path / f"cut-{number}").model))
    _cut(plan, None, tmp_path / "cut-1", tmp_path / "cut-3", 3, 0.4)  # nothing is left there to take out
    assert cost_of(load_run(tmp_path / "cut-3"), "macs") <= 0.4 * cost_of(run, "macs")
