"""Augmentation: laws of its geometry, and that a sample depends on (seed, epoch, index) alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from convarium.data.augment import DRAWS, Augmentation, augment, draw, shuffle
from convarium.data.datasets import open_dataset
from convarium.data.loading import ImageStore

STILL = Augmentation(rotation=0, scale=(1, 1), shift=0, flip=False)
IMAGES = torch.rand(4, 3, 12, 12) * 255


def test_no_movement_is_the_identity():
    torch.testing.assert_close(augment(IMAGES, torch.rand(4, DRAWS), STILL, 12), IMAGES, atol=1e-3, rtol=0)


def test_no_movement_with_a_smaller_size_is_the_centre_crop():
    cropped = augment(IMAGES, torch.rand(4, DRAWS), STILL, 8)
    torch.testing.assert_close(cropped, IMAGES[:, :, 2:10, 2:10], atol=1e-3, rtol=0)


def test_half_of_the_images_are_mirrored():
    draws = torch.rand(4, DRAWS)
    draws[:, 4] = torch.tensor([0.1, 0.49, 0.5, 0.9])
    flipped = augment(IMAGES, draws, Augmentation(0, (1, 1), 0, flip=True), 12)
    expected = torch.cat([IMAGES[:2].flip(3), IMAGES[2:]])
    torch.testing.assert_close(flipped, expected, atol=1e-3, rtol=0)


def test_the_largest_shift_is_a_whole_part_of_the_side():
    draws = torch.full((1, DRAWS), 0.5)
    draws[:, 2] = 1.0  # all the way along the columns
    moved = augment(IMAGES[:1], draws, Augmentation(0, (1, 1), 0.25, False), 12)
    torch.testing.assert_close(moved[..., :9], IMAGES[:1, :, :, 3:], atol=1e-3, rtol=0)


def test_a_quarter_turn():
    draws = torch.full((1, DRAWS), 0.5)
    draws[:, 0] = 1.0
    turned = augment(IMAGES[:1], draws, Augmentation(90, (1, 1), 0, False), 12)
    quarter = [torch.rot90(IMAGES[:1], k, (2, 3)) for k in (1, 3)]
    assert any(torch.allclose(turned, q, atol=1e-2) for q in quarter)


@given(st.integers(0, 2**31), st.integers(0, 1000), st.integers(1, 50), st.integers(0, 50))
def test_an_images_numbers_do_not_depend_on_how_many_images_there_are(seed, epoch, count, more):
    assert torch.equal(draw(seed, epoch, count), draw(seed, epoch, count + more)[:count])


@given(st.integers(0, 2**31), st.integers(0, 1000), st.integers(1, 200))
def test_the_order_is_a_permutation(seed, epoch, count):
    order = shuffle(seed, epoch, count)
    assert order.sort().values.tolist() == list(range(count))
    assert torch.equal(order, shuffle(seed, epoch, count))


def test_seeds_and_epochs_differ():
    tables = [draw(0, 0, 50), draw(0, 1, 50), draw(1, 0, 50)]
    assert all(not torch.equal(a, b) for i, a in enumerate(tables) for b in tables[:i])
    assert tables[0].min() >= 0 and tables[0].max() < 1
    assert tables[0].mean().item() == pytest.approx(0.5, abs=0.1)


def test_a_batch_of_an_image_is_the_image_in_any_batch():
    draws = draw(0, 3, 4)
    together = augment(IMAGES, draws, Augmentation(flip=True), 10)
    alone = torch.cat([augment(IMAGES[i : i + 1], draws[i : i + 1], Augmentation(flip=True), 10) for i in range(4)])
    torch.testing.assert_close(together, alone)


def test_a_store_gives_the_same_batches_from_memory_and_from_files(images):
    dataset = open_dataset(images)
    positions = dataset.splits["train"]
    ticks = []
    stores = [
        ImageStore(dataset, positions, 3, torch.tensor, budget=budget, tick=ticks.append) for budget in (2**30, 0)
    ]
    order = torch.randperm(len(positions)).split(7)
    for held, read in zip(stores[0].batches(order), stores[1].batches(order), strict=True):
        assert torch.equal(held, read)
    assert stores[1].memory is None and ticks == list(range(1, len(positions) + 1))
    first = next(stores[1].batches(order))
    assert torch.equal(first[0], torch.from_numpy(dataset.read(int(positions[order[0][0]]), 3)))
