"""The studies of trained networks: laws, hand computations, and what networks built to show one thing must show."""

import numpy as np
import pytest
import torch
from torch import nn

from convarium import explain
from convarium.errors import UsageError
from convarium.explanation.correspondence import correspondence, hamming, hamming_between, hide
from convarium.explanation.hooks import looking
from convarium.explanation.invariance import MOVEMENTS, invariance, move, movement
from convarium.explanation.probe import PENALTIES, fit, pooled
from convarium.network import Head, Network


class Mean(nn.Module):
    """The mean over places, as a map of one."""

    def forward(self, x):
        return x.mean((2, 3), keepdim=True)


def network(channels: int = 3, size: int = 8, **stages: nn.Module) -> Network:
    """Of given stages, with a global mean and a linear classifier of two classes."""
    torch.manual_seed(0)
    return Network(stages, Head(channels, 2), input_size=(channels, size, size), min_input_size=1).eval()


# -- invariance ----------------------------------------------------------------------------------------------------


def test_images_move_as_they_are_told():
    image = torch.zeros(1, 1, 8, 8)
    image[..., 4, 2] = 1  # one pixel
    down = move(image, movement(shift=2 / 8)[None])
    assert down.argmax() == 6 * 8 + 2 and down.max() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(move(image, movement(angle=90)[None]), image.rot90(1, (2, 3)), atol=1e-5, rtol=0)
    wide = torch.zeros(1, 1, 8, 8)
    wide[..., 3:5, 3:5] = 1
    twice = move(wide, movement(scale=2)[None])
    assert twice.sum() == pytest.approx(16, rel=1e-4)  # a square of twice the side


def test_what_comes_in_at_the_border_is_the_reflection():
    image = torch.arange(8.0).view(1, 1, 8, 1).expand(1, 1, 8, 8)
    down = move(image, movement(shift=2 / 8)[None])
    assert down[0, 0, :, 0].tolist() == pytest.approx([1, 0, 0, 1, 2, 3, 4, 5], abs=1e-4)


def test_nothing_moves_under_the_identity():
    model, image = network(conv=nn.Conv2d(3, 3, 3)), torch.randn(1, 3, 8, 8)
    curves = invariance(model, image, torch.stack([movement(), movement(angle=360)]), 1, ["conv", "head"])
    for distances in curves.distances.values():
        assert np.abs(distances).max() < 1e-5
    torch.testing.assert_close(torch.from_numpy(curves.probabilities[0, :1]), model(image).softmax(1)[:, 1].detach())


def test_a_network_that_takes_the_mean_first_is_exactly_invariant_to_quarter_turns():
    """A quarter turn of a square only puts its pixels elsewhere, so their mean stands still, and all after it."""
    model, image = network(first=nn.Identity(), mean=Mean(), last=nn.Conv2d(3, 3, 1)), torch.randn(1, 3, 8, 8)
    turns = torch.stack([movement(angle=angle) for angle in (90, 180, 270)])
    distances = invariance(model, image, turns, 0, ["first", "mean", "last", "head"]).distances
    assert (distances["first"] > 0.5).all()
    assert max(np.abs(distances[name]).max() for name in ("mean", "last", "head")) < 1e-5


def test_the_distance_is_over_the_norm_of_the_features():
    """Of a linear stage it does not change when the stage gives ten times as much; of white noise turned upside down
    it is the square root of two."""
    image, turn = torch.randn(1, 3, 64, 64), movement(angle=180)[None]
    once = invariance(network(size=64, a=nn.Identity()), image, turn, 0, ["a"]).distances["a"]
    conv = nn.Conv2d(3, 3, 1, bias=False)
    conv.weight.data = 10 * torch.eye(3)[..., None, None]
    torch.testing.assert_close(invariance(network(size=64, a=conv), image, turn, 0, ["a"]).distances["a"], once)
    assert once.item() == pytest.approx(2**0.5, rel=0.03)


def test_the_movements_cover_the_papers_ranges_and_begin_at_rest():
    for _, amounts, matrices in MOVEMENTS.values():
        rest = matrices[np.abs(amounts - (1 if amounts[-1] == 1.8 else 0)).argmin()]
        torch.testing.assert_close(rest, movement())
        assert len(amounts) == len(matrices)


# -- correspondence ------------------------------------------------------------------------------------------------


def test_hamming_by_hand():
    signs = torch.tensor([[1, 0, -1, 1], [1, 1, -1, 0], [1, 0, 1, -1]])
    # Rows 0 and 1 differ in two of four, 0 and 2 in two, 1 and 2 in three.
    assert hamming(signs) == pytest.approx((2 + 2 + 3) / 12)
    assert hamming_between(signs, torch.tensor([0, 0, 1])) == pytest.approx((2 + 3) / 8)
    assert hamming(signs[:1].expand(5, -1)) == 0
    assert hamming(torch.tensor([[1, -1], [-1, 1]])) == 1


def test_hamming_equals_looking_at_every_pair():
    signs, groups = torch.randint(-1, 2, (9, 7)), torch.arange(9) % 3
    different = (signs[:, None] != signs).double().mean(2)
    for chosen, found in (
        (~torch.eye(9, dtype=torch.bool), hamming(signs)),
        (groups[:, None] != groups, hamming_between(signs, groups)),
    ):
        assert found == pytest.approx(float(different[chosen].mean()))


def test_hiding_puts_the_mean_colour_in_a_square_and_nothing_elsewhere():
    images = torch.ones(2, 3, 6, 6)
    hidden = hide(images, torch.tensor([[0, 0], [3, 4]]), 2)
    assert not hidden[0, :, :2, :2].any() and not hidden[1, :, 3:5, 4:].any()
    assert hidden.sum() == 2 * 3 * (36 - 4)


def test_a_part_that_a_class_shares_changes_its_images_alike():
    """Every image of class 0 is bright above, of class 1 below, on noise too weak to matter: hiding one place does the
    same to all images of a class, a random place does not, and the opposite in the other class."""
    torch.manual_seed(0)
    labels = torch.arange(8) % 2
    images = 0.01 * torch.randn(8, 3, 9, 9)
    for image, label in zip(images, labels, strict=True):
        image[:, : 9 // 2] += 1 - 2 * label
        image[:, 9 // 2 :] += 2 * label - 1
    (alike,) = correspondence(network(size=9, same=nn.Identity()), images.split(3), labels, ["same"])
    assert alike.same.max() == 0 and alike.same.shape == (2, 9)
    assert alike.random.mean() > 0.1
    assert alike.others.min() == 1


def test_where_nothing_is_read_hiding_changes_nothing():
    class Blind(nn.Module):
        def forward(self, x):
            return torch.ones_like(x)

    alike = correspondence(network(blind=Blind()), [torch.randn(4, 3, 8, 8)], torch.tensor([0, 0, 1, 1]), ["blind"])
    assert not alike[0].same.any() and not alike[0].random.any()


# -- probe ---------------------------------------------------------------------------------------------------------


def blobs(classes: int, count: int, features: int, apart: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % classes
    rows = torch.randn(count, features, generator=generator)
    rows[torch.arange(count), labels] += apart
    return rows, labels


def error(probe, rows, labels) -> float:
    return float((probe(rows).argmax(1) != labels).double().mean())


def test_classes_that_a_plane_separates_are_told_apart():
    rows, labels = blobs(5, 400, 20, apart=20.0)
    probe = fit(rows[:200], labels[:200], 5)
    assert error(probe, rows[200:], labels[200:]) == 0


def test_of_noise_nothing_can_be_learnt():
    rows, labels = blobs(5, 2000, 20, apart=0.0)
    probe = fit(rows[:1000], labels[:1000], 5)
    assert error(probe, rows[1000:], labels[1000:]) == pytest.approx(0.8, abs=4 * (0.8 * 0.2 / 1000) ** 0.5)
    assert probe.penalty == max(PENALTIES)  # what predicts nothing is shrunk to nothing


def test_it_is_ridge_regression_with_a_free_bias():
    """The normal equations, solved in the other of the two ways."""
    rows, labels = blobs(3, 40, 6, apart=1.0)
    probe = fit(rows, labels, 3)
    x = (rows.double() - rows.double().mean(0)) / rows.double().std(0, correction=0)
    wanted = torch.eye(3, dtype=torch.float64)[labels]
    matrix = x.T @ x + probe.penalty * 6 * torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(probe.weights, torch.linalg.solve(matrix, x.T @ (wanted - wanted.mean(0))))
    torch.testing.assert_close(probe.bias, wanted.mean(0))


def test_the_penalty_is_the_one_that_leaves_images_out_best():
    """Against refitting without each image in turn, at the same standardisation."""
    rows, labels = blobs(3, 30, 50, apart=1.5)
    x = (rows.double() - rows.double().mean(0)) / rows.double().std(0, correction=0)
    wanted = torch.eye(3, dtype=torch.float64)[labels]

    def left_out(penalty: float) -> float:
        total = 0.0
        for i in range(len(x)):
            others = [j for j in range(len(x)) if j != i]
            mean, bias = x[others].mean(0), wanted[others].mean(0)
            centred = x[others] - mean
            matrix = centred.T @ centred + penalty * 50 * torch.eye(50, dtype=torch.float64)
            weights = torch.linalg.solve(matrix, centred.T @ (wanted[others] - bias))
            total += float((wanted[i] - bias - (x[i] - mean) @ weights).square().sum())
        return total

    assert fit(rows, labels, 3).penalty == min(PENALTIES, key=left_out)


def test_a_dead_feature_and_a_class_without_images_do_no_harm():
    rows, labels = blobs(3, 60, 5, apart=20.0)
    rows[:, 4] = 7.0
    probe = fit(rows, labels, 4)
    assert torch.isfinite(probe.weights).all() and error(probe, rows, labels) == 0


@pytest.mark.parametrize(
    ("shape", "width"),
    [
        ((2, 16, 32, 32), 256),
        ((2, 16, 3, 5), 16 * 3 * 4),
        ((2, 2048, 7, 7), 2048),
        ((2, 512, 14, 14), 2048),
        ((2, 9), 9),
    ],
)
def test_maps_are_pooled_to_a_bounded_number_of_features(shape, width):
    assert pooled(torch.randn(shape)).shape == (2, width)


# -- hooks, and the verb -------------------------------------------------------------------------------------------


def test_no_hook_is_left_even_after_an_error():
    model = network(conv=nn.Conv2d(3, 3, 3))
    conv = model.stages["conv"]
    with looking({conv: lambda x, y: None}):
        assert len(conv._forward_hooks) == 1
    assert not conv._forward_hooks
    with pytest.raises(ZeroDivisionError), looking({conv: lambda x, y: 1 / 0}):
        model(torch.randn(1, 3, 8, 8))
    assert not conv._forward_hooks


def test_the_studies_of_a_run(run, images, tmp_path):
    result = explain(
        run, data=str(images), split="val", count=3, method="invariance,correspondence,probe", output=tmp_path
    )
    rows = {row.method: row for row in result.rows}
    assert set(rows) == {"invariance", "correspondence", "probe"} and not result.left_out
    distances = rows["invariance"].numbers["translation"]["distance_over_norm"]
    assert list(distances) == ["conv1", "stage1", "stage2", "stage3", "head"]
    assert distances["conv1"][9] < 1e-5 < distances["conv1"][0]
    errors = rows["probe"].numbers["error_percent"]
    assert list(errors) == list(distances) and rows["probe"].numbers["fitted_on_images"] == 30
    stages = rows["correspondence"].numbers["stages"]
    # The head begins with the means of the last stage's channels, by which the stages are compared: it says the same.
    assert [row["stage"] for row in stages] == ["conv1", "stage1", "stage2", "stage3"]


def test_a_stage_is_looked_at_alone(run, images, tmp_path):
    result = explain(run, data=str(images), count=2, method="invariance,probe", stage="stage2", output=tmp_path)
    assert list(result.rows[0].numbers["scale"]["distance_over_norm"]) == ["stage2"]
    assert list(result.rows[1].numbers["error_percent"]) == ["stage2"]


def test_what_cannot_be_studied_is_said(run, images, tmp_path):
    options = dict(data=str(images), output=tmp_path)
    with pytest.raises(UsageError, match="probe is fitted on training images and judged on others: --split held-out"):
        explain(run, method="probe", split="train", **options)
    with pytest.raises(UsageError, match=r"none has two here \(a larger --limit helps\)"):
        explain(run, method="correspondence", limit=3, **options)
    with pytest.raises(UsageError, match="probe needs a data set: add --data DATA"):
        explain(run, [images / "ant" / "000.png"], method="probe", output=tmp_path)
