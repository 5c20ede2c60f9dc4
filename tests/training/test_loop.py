"""The training loop against hand computations: one step's update, and which random numbers reach which image."""

from functools import partial

import pytest
import torch
from torch import nn

from convarium.data.augment import draw, shuffle
from convarium.network import Head, Network
from convarium.recipe import default_recipe, resolve
from convarium.training import loop
from convarium.training.auxiliary import WithAuxiliary
from convarium.training.optimizer import learning_rate, make_optimizer

DEFAULT = default_recipe("resnet20_cifar", "digits", 1000, 32, natural=False, optimizer="sgd")


@pytest.mark.parametrize(("smoothing", "clip"), [(0.0, 0.0), (0.3, 0.0), (0.3, 0.05)])
def test_a_step_is_the_schedules_rate_times_the_clipped_gradient_of_the_smoothed_loss(smoothing, clip):
    recipe = resolve(
        DEFAULT,
        dict(epochs=4, learning_rate=0.5, momentum=0.0, weight_decay=0.0, label_smoothing=smoothing, clip_norm=clip),
    )
    torch.manual_seed(0)
    head = Head(5, 3, classifier=partial(nn.Linear, bias=False))
    network = Network({"stage": nn.Identity()}, head, input_size=(5, 1, 1), min_input_size=1)
    model, x, labels = WithAuxiliary(network, 1).double(), torch.randn(4, 5).double(), torch.tensor([0, 2, 1, 1])
    weight = head.classifier.weight
    before = weight.detach().clone()
    loss, logits, norm = loop._step(
        model, make_optimizer(model, recipe), x[:, :, None, None], labels, recipe, moment=2.5
    )

    probabilities = (x @ before.T).softmax(1)
    target = (1 - smoothing) * nn.functional.one_hot(labels, 3) + smoothing / 3
    expected_loss = -(target * probabilities.log()).sum(1).mean()
    gradient = (probabilities - target).T @ x / len(x)
    torch.testing.assert_close(norm, gradient.norm())
    if clip:
        assert gradient.norm() > clip
        gradient = gradient * clip / gradient.norm()
    torch.testing.assert_close(loss, expected_loss)
    torch.testing.assert_close(logits, x @ before.T)
    torch.testing.assert_close(weight, before - learning_rate(recipe, 2.5) * gradient, rtol=1e-4, atol=1e-7)
    assert 0 < learning_rate(recipe, 2.5) < 0.5


def test_every_image_meets_its_own_row_of_the_epochs_table(images, tmp_path, monkeypatch):
    from convarium import train

    met = []
    augment = loop.augment

    def spy(batch, draws, how, size):
        met.append((draws.clone(), how, size))
        return augment(batch, draws, how, size)

    monkeypatch.setattr(loop, "augment", spy)
    options = dict(image_size=16, epochs=2, batch_size=7, threads=1, seed=5, rotation=8.0, scale=1.25, shift=0.1)
    train(str(images), model="resnet20_cifar", output=tmp_path / "run", **options)
    assert len(met) == 2 * 4 and sorted(len(draws) for draws, _, _ in met[:4]) == [7, 7, 8, 8]
    for epoch in range(2):
        table, order = draw(5, epoch, 30), shuffle(5, epoch, 30)
        assert torch.equal(torch.cat([draws for draws, _, _ in met[epoch * 4 : epoch * 4 + 4]]), table[order])
        for _, how, size in met[epoch * 4 : epoch * 4 + 4]:
            assert (how.rotation, how.scale, how.shift, how.flip, size) == (8.0, (0.8, 1.25), 0.1, True, 16)


def test_totals_are_means_over_images():
    totals = loop.Totals()
    totals.add(torch.tensor(1.0), torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]), 0.1)
    totals.add(torch.tensor(4.0), torch.tensor([[1.0, 0.0]]), torch.tensor([0]), 0.1)
    assert totals.mean_loss == pytest.approx(2.0) and totals.error_percent == pytest.approx(100 / 3)


def test_validate_by_hand_on_a_net_that_trains_otherwise(images):
    """Cross entropy and errors in evaluation mode; a net with batch norm answers otherwise in training mode."""
    from convarium import create_model
    from convarium.data.datasets import open_dataset
    from convarium.data.loading import ImageStore

    torch.manual_seed(0)
    model = create_model("resnet20_cifar", num_classes=10).train()
    nn.init.normal_(model.head.classifier.weight, std=20)  # so that the guesses vary
    model(torch.randn(8, 3, 16, 16))  # so that running and batch statistics differ
    dataset = open_dataset(images)
    store = ImageStore(dataset, range(36), 3, lambda image: torch.tensor(image).permute(2, 0, 1)[:, :16, :16] / 255)
    loss, top1, top5 = loop.validate(model, store)
    assert model.training
    logits = model.eval()(store.memory).detach().double()
    ranks = (logits > logits.gather(1, store.labels[:, None])).sum(1)
    assert top1 == pytest.approx(100 * (ranks > 0).double().mean().item())
    assert top5 == pytest.approx(100 * (ranks > 4).double().mean().item()) and top5 < top1
    assert loss == pytest.approx(-logits.log_softmax(1).gather(1, store.labels[:, None]).mean().item(), rel=1e-5)
