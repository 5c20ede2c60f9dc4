"""Averages over views against plain forwards; sliding networks; memory; costs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from convarium import create_model, describe, evaluate, load_run
from convarium.data.datasets import Dataset, open_dataset
from convarium.data.preprocess import Preprocessing
from convarium.data.resize import Preprocess
from convarium.errors import DataError, UsageError
from convarium.evaluation import predictions as module
from convarium.evaluation.crops import Protocol, cut
from convarium.evaluation.metrics import softmax
from convarium.evaluation.predictions import predict, predictions


def noise(count, *shape):
    """A data set of images in memory."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
    ids = [str(i) for i in range(count)]
    return Dataset("noise", ["a", "b"], np.zeros(count, np.int64), ids, pixels, {"val": np.arange(count)})


def network(name, **arguments):
    """With weights that make its answers differ, and what its images go through: they are only normalised."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=5, **arguments).eval()
    channels, size, _ = model.input_size
    return model, Preprocessing(size, channels, (0.5,) * channels, (0.3,) * channels)


def answers(model, x):
    with torch.no_grad():
        return model(x).double().softmax(1).numpy()


def test_the_single_crop_gives_what_a_plain_loop_gives_to_the_bit(run, images):
    loaded = load_run(run)
    result = evaluate(run, data=str(images), split="all")
    dataset = open_dataset(str(images))
    preprocess = Preprocess(loaded.preprocessing)
    prepared = [preprocess(torch.from_numpy(dataset.read(i, 3))[None]) for i in range(36)]
    with torch.inference_mode():
        expected = softmax(loaded.model(torch.cat(prepared)).numpy())
    found = predictions(loaded, dataset, np.arange(36))
    assert np.array_equal(found, expected)
    assert result.top1_error_percent == 100 * np.mean(found.argmax(1) != dataset.labels)


def ten_crops(pixels, short, size):
    """AlexNet's, cut with slices of the central square: (N, C, H, W) to (10, N, C, size, size)."""
    top, left = ((side - short) // 2 for side in pixels.shape[2:])
    square = pixels[:, :, top : top + short, left : left + short]
    start, rest = (short - size) // 2, short - size
    crops = [square[..., y : y + size, x : x + size] for y in (0, rest) for x in (0, rest)]
    crops.append(square[..., start : start + size, start : start + size])
    return torch.stack([*crops, *(crop.flip(-1) for crop in crops)])


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_ten_crops_are_averaged_as_by_hand(average):
    model, settings = network("resnet20_cifar")
    settings = Preprocessing(28, 3, settings.mean, settings.std)
    data = noise(9, 32, 40, 3)  # 28 x 256/224 = 32: nothing is resized
    found = predict(model, settings, data, np.arange(9), Protocol("10"), average)
    pixels = (torch.from_numpy(data.images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.3
    with torch.no_grad():
        logits = torch.stack([model(crop) for crop in ten_crops(pixels, 32, 28)]).double()
    expected = logits.softmax(2).mean(0) if average == "probabilities" else logits.mean(0).softmax(1)
    np.testing.assert_allclose(found.probabilities, expected.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["lenet5", "lenet5_modern", "resnet20_cifar", "nin_cifar", "maxout_cifar"])
def test_dense_at_the_training_size_is_the_plain_forward(name):
    """Dense heads of several kinds, global pooling, a convolution as classifier: mean of an image and its mirror."""
    model, settings = network(name)
    data = noise(4, settings.size, settings.size, settings.channels)
    found = predict(model, settings, data, np.arange(4), Protocol("dense", (settings.size,))).probabilities
    x = (torch.from_numpy(data.images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.3
    expected = (answers(model, x) + answers(model, x.flip(-1))) / 2
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_class_map_is_the_dense_network_at_every_place():
    """LeNet-5 sees no border in its first layers: a step of its map further, the average is that of four windows."""
    model, settings = network("lenet5_modern")
    jump = model.feature_info.reduction()[-1]
    data = noise(2, settings.size + jump, settings.size + jump, 1)
    protocol = Protocol("dense", (settings.size + jump,))
    found = predict(model, settings, data, np.arange(2), protocol, "logits").scores
    x = (torch.from_numpy(data.images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.3
    size = settings.size
    with torch.no_grad():
        windows = [
            model(shown[..., i : i + size, j : j + size])
            for shown in (x, x.flip(-1))
            for i in (0, jump)
            for j in (0, jump)
        ]
    np.testing.assert_allclose(found, torch.stack(windows).mean(0).numpy(), rtol=0, atol=1e-5)


def test_global_pooling_of_scores_is_the_score_of_the_pooled():
    """Why a network with global average pooling slides as it is."""
    model, _ = network("resnet20_cifar")
    with torch.no_grad():
        last = model.forward_features(torch.randn(2, 3, 48, 40))
        at_every_place = model.get_classifier()(last.permute(0, 2, 3, 1))
        torch.testing.assert_close(at_every_place.mean((1, 2)), model.forward_head(last), rtol=0, atol=1e-5)


def test_images_of_several_shapes_and_scales():
    """A folder's images differ in shape; each is averaged over its own scales."""
    model, settings = network("resnet20_cifar")
    images = [np.random.default_rng(i).integers(0, 256, (*shape, 3), np.uint8) for i, shape in enumerate(
        [(32, 32), (32, 50), (45, 33), (32, 50)])]  # fmt: skip

    def answered(images, scales):
        data = Dataset("x", ["a"], np.zeros(len(images), np.int64), [""] * len(images), images, {})
        return predict(model, settings, data, np.arange(len(images)), Protocol("dense", scales)).probabilities

    together = answered(images, (32, 40))
    alone = np.concatenate([(answered([image], (32,)) + answered([image], (40,))) / 2 for image in images])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("crops", ["10", "144", "dense"])
def test_what_memory_does_not_hold_at_once_is_split(crops, monkeypatch):
    model, settings = network("resnet20_cifar")
    data = noise(3, 40, 52, 3)
    whole = predict(model, settings, data, np.arange(3), Protocol(crops)).probabilities
    most = []
    model.register_forward_pre_hook(lambda _module, x: most.append(len(x[0])) if x[0].device.type == "cpu" else None)
    monkeypatch.setattr(module, "MEMORY_BUDGET", 1)
    split = predict(model, settings, data, np.arange(3), Protocol(crops)).probabilities
    assert set(most) == {1}
    np.testing.assert_allclose(split, whole, rtol=0, atol=1e-6)


def test_a_view_costs_what_describe_counts():
    model, settings = network("resnet20_cifar")
    macs = describe(model, input_size=(3, 32, 32)).macs
    found = predict(model, settings, noise(2, 48, 64, 3), np.arange(2), Protocol("144"))
    assert (found.views_per_image, found.macs_per_image) == (144, 144 * macs)
    square = predict(model, settings, noise(2, 48, 48, 3), np.arange(2), Protocol("144"))
    assert (square.views, square.views_per_image, square.macs_per_image) == (144, 48, 48 * macs)


def test_the_dense_cost_is_that_of_the_larger_image():
    model, settings = network("resnet20_cifar")
    found = predict(model, settings, noise(1, 32, 48, 3), np.arange(1), Protocol("dense", (64,)))
    assert found.macs_per_image == 2 * describe(model, input_size=(3, 64, 96)).macs


def test_equal_views_count_as_often_as_they_are():
    """Of a square image: GoogLeNet's three squares are one, and weigh three times in the mean of 144."""
    model, settings = network("resnet20_cifar")
    data = noise(1, 40, 40, 3)
    views = Protocol("144").views(40, 40, settings)
    pixels = cut(data.images[0], views, Preprocess(settings))
    shown = [pixels[replace(view, mirrored=False)].flip(-1 if view.mirrored else ()) for view in views]
    expected = answers(model, torch.stack(shown)).mean(0)
    found = predict(model, settings, data, np.arange(1), Protocol("144")).probabilities[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_no_images():
    model, settings = network("lenet5_modern")
    with pytest.raises(DataError, match="noise has no images to judge on"):
        predict(model, settings, noise(3, 32, 32, 1), np.arange(0))


def test_views_smaller_than_the_network_takes():
    model, settings = network("alexnet")
    small = Preprocessing(32, 3, settings.mean, settings.std)
    with pytest.raises(UsageError, match="alexnet takes images of at least"):
        predict(model, small, noise(1, 32, 32, 3), np.arange(1), Protocol("dense"))
