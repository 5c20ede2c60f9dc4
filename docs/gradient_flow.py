"""The gradient by depth at the start of training, plain nets against residual ones, with either activation, with and
without batch norm: python docs/gradient_flow.py docs/gradient_flow.svg"""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from convarium import create_model
from convarium.blocks import conv_bn
from convarium.console import counting
from convarium.data.datasets import open_dataset
from convarium.explanation.gradient_flow import Gradient, draw, gradient_flow
from convarium.report.figures import COLOURS, INK, new_figure, to_svg_file

DATA, IMAGES = "glyphs:side=32", 64
STYLES = {
    "plain20_cifar": dict(color=COLOURS[5], linestyle="--"),
    "plain56_cifar": dict(color=COLOURS[5]),
    "resnet20_cifar": dict(color=COLOURS[0], linestyle="--"),
    "resnet56_cifar": dict(color=COLOURS[0]),
}
ACTIVATIONS = {"sigmoid": nn.Sigmoid, "ReLU": nn.ReLU}
NORMS = {"without batch norm": {"conv": partial(conv_bn, norm=None)}, "with batch norm": {}}
TITLE = f"Norm of the loss's gradient at the weights of each layer before training, over {IMAGES} images of glyphs"


def batch() -> tuple[Tensor, Tensor]:
    """Training images of all classes, of mean 0 and deviation 1 per channel, and their labels."""
    dataset = open_dataset(DATA)
    train = dataset.splits["train"]
    positions = train[np.linspace(0, len(train) - 1, IMAGES).astype(int)]
    pixels = np.stack([dataset.read(int(position), 3) for position in positions])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).double()
    std, mean = torch.std_mean(images, (0, 2, 3), keepdim=True)
    return (images - mean) / std, torch.from_numpy(dataset.labels[positions])


def measured(name: str, images: Tensor, labels: Tensor, **arguments: object) -> list[Gradient]:
    """In float64: a gradient of 1e-30 is not to be rounded away."""
    torch.manual_seed(0)
    return gradient_flow(create_model(name, num_classes=26, **arguments).double(), images, labels)


def main() -> None:
    images, labels = batch()
    figure, axes = new_figure(9, 6, columns=2, rows=2)
    figure.suptitle(TITLE, fontsize=11, color=INK)
    done, panels = 0, len(NORMS) * len(ACTIVATIONS)
    with counting("networks", panels * len(STYLES)) as tick:
        for row, (norm, arguments) in zip(axes, NORMS.items(), strict=True):
            for panel, (act, make) in zip(row, ACTIVATIONS.items(), strict=True):
                for name, style in STYLES.items():
                    rows = measured(name, images, labels, act=make, **arguments)
                    draw(panel, rows, "weights", label=name.removesuffix("_cifar"), **style)
                    tick(done := done + 1)
                panel.set_title(f"{act}, {norm}", fontsize=10)
    for panel in axes[1]:
        panel.set_xlabel("layer, from the image to the classifier")
    axes[1, 1].legend(frameon=False, labelcolor=INK, fontsize=9)
    Path(sys.argv[1]).write_text(to_svg_file(figure, TITLE))


if __name__ == "__main__":
    main()
