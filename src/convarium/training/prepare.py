"""What a training needs ready before its first step: images at hand, their statistics, a number of threads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from convarium.console import counting, stderr
from convarium.data.datasets import Dataset
from convarium.data.loading import ImageStore
from convarium.data.preprocess import Preprocessing
from convarium.data.resize import Preprocess, resize_to
from convarium.network import BYTE_STD, Network
from convarium.recipe import Recipe
from convarium.training.threads import calibrate

STATISTICS_IMAGES = 4096


def image_stores(dataset: Dataset, recipe: Recipe, model: Network) -> tuple[ImageStore, ImageStore, Preprocessing]:
    """Training images as uint8 at the size before cropping; held-out images as the network is to see them.

    Weights that the training begins from keep the mean and standard deviation that they know; else the data's are
    measured.
    """
    channels = model.input_size[0]
    plain = Preprocessing(
        size=recipe.image_size, channels=channels, mean=(0.0,) * channels, std=(1.0,) * channels,
        crop_pct=model.crop_pct, interpolation=model.interpolation,
    )  # fmt: skip

    def cached(image: np.ndarray) -> torch.Tensor:
        return resize_to(torch.from_numpy(image), plain, size=plain.resize_size)

    train_positions, val_positions = dataset.splits["train"], dataset.splits["val"]
    with counting("reading images", len(train_positions)) as tick:
        train_store = ImageStore(dataset, train_positions, channels, cached, tick=tick)
    mean, std = (model.mean, model.std) if recipe.weights else _statistics(train_store, channels)
    if set(model.std) == set(BYTE_STD):  # only the mean is subtracted: the paper's initialisation counts on that scale
        std = model.std
    preprocessing = replace(plain, mean=mean, std=std)
    preprocess = Preprocess(preprocessing)
    with counting("reading held-out images", len(val_positions)) as tick:
        val_store = ImageStore(
            dataset, val_positions, channels, lambda image: preprocess(torch.from_numpy(image)[None])[0], tick=tick
        )
    return train_store, val_store, preprocessing


def _statistics(store: ImageStore, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, where white is 1, over at most 4,096 evenly spaced images."""
    places = torch.arange(0, len(store), -(-len(store) // STATISTICS_IMAGES))
    total, squares, count = torch.zeros(channels).double(), torch.zeros(channels).double(), 0
    for images in store.batches(places.split(256)):
        values = images.double().div(255).transpose(0, 1).reshape(channels, -1)
        total, squares, count = total + values.sum(1), squares + values.square().sum(1), count + values.shape[1]
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=1e-4).sqrt()
    return tuple(round(v, 6) for v in mean.tolist()), tuple(round(v, 6) for v in std.tolist())


def choose_threads(model: Network, store: ImageStore, recipe: Recipe) -> int:
    """The quickest number of threads for a training step, measured and said."""
    places = torch.arange(min(recipe.batch_size, len(store)))
    images = next(store.batches([places])).float() / 255
    size = recipe.image_size
    chosen, medians = calibrate(model, images[..., :size, :size], store.labels[places])
    if len(medians) > 1:
        timings = ", ".join(f"{count}: {1000 * seconds:.1f} ms" for count, seconds in medians.items())
        stderr().print(f"threads: {chosen} (measured, per step: {timings})")
    return chosen
