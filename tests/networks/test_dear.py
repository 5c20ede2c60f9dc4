"""The dear checks: every network learns eight images by heart, goes through torch.export, and runs in ONNX as in torch;
the smallest of every file learns a small data set through ``convarium train``."""

import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convarium import create_model, evaluate, train
from convarium.data.preprocess import Preprocessing
from convarium.deploy.onnx import export_onnx
from convarium.facts import all_facts
from convarium.network import ConvHead
from convarium.networks import create_on_meta

from .conftest import SMALLEST

IMAGES = 8
MOST_STEPS = 300
PARITY_IMAGES = 32


def eight_images(network, side):
    """Eight patterns of 5x5 patches, scaled as the paper scales pixels."""
    channels = network.input_size[0]
    patches = torch.rand(IMAGES, channels, 5, 5, generator=torch.Generator().manual_seed(0))
    pixels = F.interpolate(patches, size=(side, side))
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (network.mean, network.std))
    return (pixels - mean) / std


@torch.no_grad()
def open_every_class(network, x):
    """A classifier whose rectifiers are open on the images of their classes, where it ends in rectifiers (NIN,
    SqueezeNet): one that is shut from the start gets no gradient. Drawn anew until it is so."""
    if not isinstance(network.head, ConvHead):
        return
    features = network.eval().forward_features(x)
    while not (network.forward_head(features).diagonal() > 0).all():
        network.reset_classifier(IMAGES)


def learn_by_heart(network, x):
    """Steps until every image has its own class with a loss under 0.1: of Adam where there is batch norm, elsewhere of
    SGD with momentum and a clipped gradient, as ``convarium train``. Dropout is off; batch norm trains."""
    labels = torch.arange(IMAGES)
    network.train()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    normed = any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    parameters = list(network.parameters())
    adam = torch.optim.Adam(parameters, lr=1e-3)
    rate = 0.01 if isinstance(network.head, ConvHead) else 0.05  # large steps shut the last rectifiers for ever
    sgd = torch.optim.SGD(parameters, lr=rate, momentum=0.9, nesterov=True)
    for step in range(MOST_STEPS):
        logits = network(x)
        loss = F.cross_entropy(logits, labels)
        if loss < 0.1 and torch.equal(logits.argmax(1), labels):
            return step
        network.zero_grad()
        loss.backward()
        if normed:
            adam.step()
        else:
            nn.utils.clip_grad_norm_(parameters, 1.0)
            sgd.step()
    raise AssertionError(f"the loss is still {loss.item():.3g} after {MOST_STEPS} steps")


@torch.no_grad()
def settled_logits(network, x):
    """Logits in evaluation mode, once the running statistics have followed the weights far enough to tell images apart:
    some networks learn in fewer steps than an average takes."""
    for _ in range(50):
        logits = network.eval()(x)
        if (logits - logits[0]).abs().max() > 1e-2:
            return logits
        network.train()(x)
    raise AssertionError("in evaluation mode the logits of all images are the same")


@pytest.mark.dear
def test_learns_by_heart_and_is_exported(each_name, record_property, tmp_path):
    facts = all_facts()[each_name]
    began = time.perf_counter()
    record_property("network", each_name)
    record_property("parameters", f"{facts.counts.params:,}")
    # Under 16 pixels batch norm sees eight numbers per channel in the last maps, and float32 ends far from float64.
    side = max(16, create_on_meta(each_name).min_input_size)
    torch.manual_seed(0)
    network = create_model(each_name, num_classes=IMAGES)
    x = eight_images(network, side)
    record_property("input", side)
    open_every_class(network, x)
    record_property("steps to learn 8 images", learn_by_heart(network, x))

    expected = settled_logits(network, x)
    batch = torch.export.Dim("batch")
    program = torch.export.export(network, (x[:2],), dynamic_shapes=({0: batch},))
    difference = (program.module()(x) - expected).abs().max() / expected.abs().max()
    record_property("torch.export, difference", f"{difference:.0e}")
    assert difference <= 1e-5

    channels = network.input_size[0]
    preprocessing = Preprocessing(side, channels, network.mean, network.std, network.crop_pct, network.interpolation)
    pixels = np.random.default_rng(0).integers(0, 256, (PARITY_IMAGES, side, side, channels), dtype=np.uint8)
    names = [str(i) for i in range(IMAGES)]
    parity = export_onnx(network, preprocessing, names, tmp_path / "n.onnx", metadata={}, parity_images=[*pixels])
    record_property("ONNX, difference", f"{parity.largest_difference:.0e}")
    record_property("seconds", round(time.perf_counter() - began))


@pytest.mark.dear
def test_train_goes_from_a_folder_to_a_run(each_name, images, tmp_path):
    """One epoch at the smallest input, auxiliary heads and all, and the run can be opened and judged."""
    side = create_on_meta(each_name).min_input_size
    options = dict(image_size=side, epochs=1, batch_size=16, threads=1, learning_rate=1e-3)
    trained = train(str(images), model=each_name, output=tmp_path / "run", **options)
    assert trained.evaluation.images == 6
    again = evaluate(tmp_path / "run", data=str(images))
    assert again.top1_error_percent == trained.evaluation.top1_error_percent


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SMALLEST))
def test_the_smallest_of_every_file_learns_a_small_data_set(name, draw_folder, tmp_path):
    """95 % of the training images, through `convarium train`; the rest is what it chooses by itself."""
    folder = draw_folder(tmp_path / "images", {"ant": 20, "bee": 20, "cat": 20}, size=48)
    network = create_on_meta(name)
    side = max(network.min_input_size, min(network.input_size[1], 96))
    epochs = 60 if side <= 96 else 10  # those with dense heads take 200 pixels and more
    train(str(folder), model=name, output=tmp_path / "run", seed=0, image_size=side, batch_size=8, epochs=epochs)
    assert evaluate(tmp_path / "run", data=str(folder), split="train").top1_error_percent <= 5
