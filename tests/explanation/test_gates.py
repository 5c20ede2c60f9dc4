"""Gates and masks: networks built so that what they multiply by is known."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from convarium import create_model, explain
from convarium.attention import HardMask, ResidualScale, SpatialMask
from convarium.errors import UsageError
from convarium.explanation.gates import Gate, factors, gate_statistics, gates_of
from convarium.explanation.masks import soft_masks
from convarium.network import Head, Network
from convarium.networks.residual_attention import Table, residual_attention
from convarium.networks.senet import SqueezeExcite
from convarium.surgery import insert_attention


class Gated(nn.Sequential):
    """A stage that is a gate alone, in the slot's name."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.add_module("attention", attention)


class ByTheFirstPixel(nn.Module):
    """Multiplies all by the first pixel of the first channel, which the tests make the class."""

    def forward(self, x):
        return x * x[:, :1, :1, :1]


def network(*gates: nn.Module, channels: int = 4) -> Network:
    stages = {f"stage{i + 1}": Gated(gate) for i, gate in enumerate(gates)}
    return Network(stages, Head(channels, 2), input_size=(channels, 6, 6), min_input_size=1).eval()


def images_and_labels(count: int = 24, classes: int = 3) -> tuple[torch.Tensor, np.ndarray]:
    torch.manual_seed(0)
    labels = np.arange(count) % classes
    x = torch.randn(count, 4, 6, 6)
    x[:, 0, 0, 0] = torch.from_numpy(labels + 1.0)
    return x, labels


def statistics(model: Network, x: torch.Tensor, labels: np.ndarray) -> list[Gate]:
    places = np.array_split(np.arange(len(x)), 5)  # batches of unequal sizes, in no order of classes
    return gate_statistics(model, [(chosen, x[torch.from_numpy(chosen)]) for chosen in places], labels)


def test_factors_are_the_gates_own():
    x = torch.randn(3, 8, 5, 5)
    gate = SqueezeExcite(8, 2)
    own = gate.gate(gate.fc2(gate.act(gate.fc1(x.mean((2, 3))))))
    torch.testing.assert_close(factors(x, gate(x)), own)
    torch.testing.assert_close(factors(x, ResidualScale(8, 0.3)(x)), torch.full((3, 8), 0.3))
    x[1, 2] = 0
    assert factors(x, gate(x)).isnan().nonzero().tolist() == [[1, 2]]


def test_a_constant_gate_never_moves_and_knows_no_class():
    (gate,) = statistics(network(ResidualScale(4, 0.3)), *images_and_labels())
    assert gate.between_share == 0 and gate.movement == 0
    assert gate.means == pytest.approx(np.full(4, 0.3)) and gate.class_means == pytest.approx(np.full((3, 4), 0.3))


def test_a_gate_that_depends_on_the_class_alone_is_found():
    """Its factor is 1, 2 and 3 by class, and every class has a third of the images: variance 2/3, all between."""
    x, labels = images_and_labels()
    (gate,) = statistics(network(ByTheFirstPixel()), x, labels)
    assert gate.between_share == pytest.approx(1)
    assert gate.class_means == pytest.approx(np.repeat([[1], [2], [3]], 4, axis=1))
    assert gate.movement == pytest.approx((2 / 3 * 24 / 23) ** 0.5)


def test_a_gate_that_depends_on_the_image_but_not_on_the_class_has_no_share():
    x, labels = images_and_labels(count=600)
    x[:, 0, 0, 0] = torch.rand(600) + 0.5
    (gate,) = statistics(network(ByTheFirstPixel()), x, labels)
    assert gate.movement == pytest.approx(12**-0.5, rel=0.1)  # of numbers spread evenly over a length of 1
    assert gate.between_share < 0.02


def test_the_variances_add_up():
    """Against numpy on the factors themselves."""
    x, labels = images_and_labels()
    x[:, 0, 0, 0] += torch.randn(24)
    (gate,) = statistics(network(ByTheFirstPixel()), x, labels)
    own = x[:, 0, 0, 0].double().numpy()
    within = sum(((own[labels == k] - own[labels == k].mean()) ** 2).sum() for k in range(3)) / (24 - 3)
    assert gate.variances == pytest.approx(np.full(4, own.var(ddof=1)))
    assert gate.within == pytest.approx(np.full(4, within))
    assert gate.between_share == pytest.approx(max(0, 1 - within / own.var(ddof=1)))


def test_a_class_without_images_has_no_mean_and_changes_nothing():
    x, labels = images_and_labels(classes=2)
    model = network(ByTheFirstPixel())
    (two,) = statistics(model, x, labels)
    (five,) = gate_statistics(model, [(np.arange(24), x)], labels, classes=5)
    assert np.isnan(five.class_means[2:]).all() and not np.isnan(five.class_means[:2]).any()
    assert five.between_share == pytest.approx(two.between_share)


def test_gates_are_found_in_order_of_depth_wherever_they_are():
    model = create_model("resnet20_cifar").eval()
    assert not gates_of(model)
    added = insert_attention(model, "se")
    x = torch.randn(6, 3, 16, 16)
    found = gate_statistics(model, [(np.arange(6), x)], np.arange(6) % 2)
    assert [gate.path for gate in found] == added == list(gates_of(model))
    # What starts as the identity multiplies by 1.
    for gate in found:
        assert gate.means == pytest.approx(np.ones(len(gate.means))) and gate.movement == 0


def test_no_hook_is_left_even_after_an_error():
    model = network(ResidualScale(4))
    x, labels = images_and_labels()
    with pytest.raises(UsageError, match="takes images"):
        gate_statistics(model, [(np.arange(2), x[:2]), (np.arange(2), x[:2, :3])], labels)
    with pytest.raises(UsageError, match="takes images"):
        soft_masks(network(SpatialMask(4)), x[:2, :3])
    assert not any(module._forward_hooks for module in model.modules())


# -- masks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [SpatialMask, HardMask])
def test_a_mask_points_at_what_it_was_built_to_see(make):
    """Its score is the first channel, which is bright in one corner."""
    mask = make(4)
    nn.init.zeros_(mask.score.weight)
    mask.score.weight.data[0, 0] = 20
    nn.init.constant_(mask.score.bias, -10)
    x = torch.zeros(1, 4, 6, 6)
    x[0, 0, :2, 3:] = 1
    (found,) = soft_masks(network(mask), x).values()
    assert found.shape == (1, 6, 6)
    torch.testing.assert_close(found[0], x[0, 0], atol=1e-4, rtol=0)


def test_the_soft_masks_of_a_residual_attention_network():
    """Where scores are made the brightness, the mask is its sigmoid; the module still gives (1 + M) T."""

    class Bright(nn.Module):
        def forward(self, x):
            return 4 * seen.expand(-1, 16, -1, -1)

    table = Table((4, 3, 1), ((16, 1, 1), (16, 2, 1), (16, 2, 0)), (16, 8), ((0.5,), (0.5,)))
    model = residual_attention((1, 1), table=table, num_classes=3, ptr=(1, 1, 1)).eval()
    seen = torch.zeros(1, 1, 16, 16)
    seen[..., 5:9, 2:4] = 1
    x = torch.randn(1, 3, 16, 16)
    own = soft_masks(model, x)
    assert {path: mask.shape for path, mask in own.items()} == {
        "stages.AttentionA_1": (1, 16, 16), "stages.AttentionB_1": (1, 8, 8),
    }  # fmt: skip
    assert all((mask > 0).all() and (mask < 1).all() for mask in own.values())
    model.stages["AttentionA_1"].mask.scores = Bright()
    torch.testing.assert_close(soft_masks(model, x)["stages.AttentionA_1"], torch.sigmoid(4 * seen[:, 0]))


@pytest.fixture(scope="module")
def gated_run(images, tmp_path_factory):
    """A residual network with masks over places, trained for one epoch."""
    from convarium import train

    output = tmp_path_factory.mktemp("runs") / "gated"
    options = dict(image_size=16, epochs=1, batch_size=8, threads=1)
    train(str(images), model="resnet20_cifar", attention="spatial", output=output, **options)
    return output


@pytest.mark.long
def test_the_gates_and_masks_of_a_run(gated_run, images, tmp_path):
    look = partial(explain, gated_run, data=str(images), split="all", count=2, output=tmp_path, format="svg")
    result = look(method="gates,masks")
    assert [row.name for row in result.rows[:2]] == ["channels", "depth"] and len(result.rows) == 4
    rows = result.rows[1].numbers["gates"]
    assert [row["path"] for row in rows] == [f"stages.stage{s}.{b}.attention" for s in (1, 2, 3) for b in range(3)]
    assert all(0 <= row["between_class_share_percent"] <= 100 for row in rows)
    for masks in (row.numbers for row in result.rows[2:]):
        assert all(0 <= mask["smallest"] <= mask["mean"] <= mask["largest"] <= 1 for mask in masks.values())
    (one,) = look(method="masks", stage="stage2", count=1).rows
    assert list(one.numbers) == [f"stages.stage2.{block}.attention" for block in range(3)]
    with pytest.raises(UsageError, match="stage conv1 of resnet20_cifar has no gates"):
        look(method="gates", stage="conv1")
    with pytest.raises(UsageError, match="needs two with two images"):
        look(method="gates", limit=3)


def test_a_network_without_gates_or_masks_says_so(run, images, tmp_path):
    look = partial(explain, run, data=str(images), output=tmp_path)
    with pytest.raises(UsageError, match=r"resnet20_cifar has no gates: train .* \(convarium list 'se_\*'\)"):
        look(method="gates")
    with pytest.raises(UsageError, match=r"resnet20_cifar lays no masks over places: .*insert_attention"):
        look(method="masks")
    left_out = look(method="gates,masks,gradcam", count=1).left_out
    assert set(left_out) == {"gates", "masks"}
