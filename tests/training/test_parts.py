"""The parts of training, each against a hand computation."""

import math

import pytest
import torch
from torch import nn

from convarium import create_model
from convarium.recipe import default_recipe, resolve
from convarium.training.optimizer import learning_rate, make_average, make_optimizer
from convarium.training.threads import calibrate

RECIPE = resolve(
    default_recipe("resnet20_cifar", "digits", 1000, 32, natural=False, optimizer="sgd"),
    dict(epochs=10, learning_rate=1.0),
)


def test_warm_up_then_half_a_cosine():
    assert learning_rate(RECIPE, 0.0) == pytest.approx(0.01 / 1.01)
    assert learning_rate(RECIPE, 1.0) == pytest.approx(1.0)
    assert learning_rate(RECIPE, 5.5) == pytest.approx(0.5)
    assert learning_rate(RECIPE, 4.0) == pytest.approx((1 + math.cos(math.pi / 3)) / 2)
    assert learning_rate(RECIPE, 10.0) == pytest.approx(0.0)


def test_steps_of_a_tenth_at_half_and_three_quarters():
    recipe = resolve(RECIPE, dict(schedule="step", warmup_epochs=0.0))
    assert [learning_rate(recipe, e) for e in (0, 4.99, 5, 7.49, 7.5, 9.9)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


@pytest.mark.parametrize("name", ["sgd", "adamw", "rmsprop"])
def test_norms_and_biases_are_spared_the_weight_decay(name):
    model = create_model("se_resnet20_cifar")
    optimizer = make_optimizer(model, resolve(RECIPE, dict(optimizer=name, weight_decay=0.3)))
    decayed, spared = optimizer.param_groups
    assert decayed["weight_decay"] == 0.3 and spared["weight_decay"] == 0
    spared_names = {n for n, p in model.named_parameters() if any(p is q for q in spared["params"])}
    assert spared_names == {n for n, _ in model.named_parameters() if n.endswith("bias") or ".norm." in n}
    assert len(decayed["params"]) + len(spared["params"]) == len(list(model.parameters()))


def test_sgd_is_nesterovs_by_hand():
    weight = nn.Linear(1, 1, bias=False)
    nn.init.ones_(weight.weight)
    recipe = resolve(RECIPE, dict(optimizer="sgd", learning_rate=0.1, momentum=0.5, weight_decay=0.0))
    optimizer = make_optimizer(weight, recipe)
    value, velocity = 1.0, 0.0
    for _ in range(3):
        optimizer.zero_grad()
        (weight.weight**2).sum().backward()
        optimizer.step()
        gradient = 2 * value
        velocity = 0.5 * velocity + gradient
        value -= 0.1 * (gradient + 0.5 * velocity)
    assert weight.weight.item() == pytest.approx(value)


def test_the_average_follows_its_recursion_and_copies_integers():
    model = nn.BatchNorm1d(1)
    average = make_average(model, resolve(RECIPE, dict(ema=0.75)))
    expected = model.weight.item()
    for step, value in enumerate((2.0, 3.0, 5.0)):
        nn.init.constant_(model.weight, value)
        model.num_batches_tracked.fill_(7 * step)
        average.update_parameters(model)
        expected = value if step == 0 else 0.75 * expected + 0.25 * value
    assert average.module.weight.item() == pytest.approx(expected)
    assert average.module.num_batches_tracked.item() == 14


def test_calibration_touches_nothing_and_names_a_measured_count():
    model = create_model("lenet5_modern")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    threads = torch.get_num_threads()
    chosen, medians = calibrate(model, torch.randn(4, 1, 32, 32), torch.zeros(4, dtype=torch.long))
    assert torch.get_num_threads() == threads
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not medians or (chosen == min(medians, key=medians.get) and all(value > 0 for value in medians.values()))
