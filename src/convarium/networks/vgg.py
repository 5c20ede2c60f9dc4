"""VGG: K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015,
Table 1: configurations A (11 layers), A-LRN, B (13), C and D (16), E (19).

Departs from the paper:

- all start from Glorot's uniform initialisation, biases 0, which Section 3.1 says was later found to do without
  pre-training; the paper's A starts from a normal distribution of variance 0.01, the others from layers of a trained A;
- the normalisation of A-LRN is AlexNet's as it is here, with alpha divided by 5;
- ``_bn``, with batch norm after every convolution, is later and not the paper's; its convolutions keep their biases, as
  torchvision's do.
"""

from functools import partial

from torch import nn

from convarium.blocks import Slot, conv_act, conv_bn, gated, glorot_uniform
from convarium.network import BYTE_STD, CAFFE_MEAN, Head, Network
from convarium.networks.alexnet import dense, response_norm

# Table 1, a row per column of it: "3-64" is conv3-64, a bar is a max pooling.
TABLE_1 = {
    "A": "3-64 | 3-128 | 3-256 3-256 | 3-512 3-512 | 3-512 3-512",
    "A-LRN": "3-64 LRN | 3-128 | 3-256 3-256 | 3-512 3-512 | 3-512 3-512",
    "B": "3-64 3-64 | 3-128 3-128 | 3-256 3-256 | 3-512 3-512 | 3-512 3-512",
    "C": "3-64 3-64 | 3-128 3-128 | 3-256 3-256 1-256 | 3-512 3-512 1-512 | 3-512 3-512 1-512",
    "D": "3-64 3-64 | 3-128 3-128 | 3-256 3-256 3-256 | 3-512 3-512 3-512 | 3-512 3-512 3-512",
    "E": "3-64 3-64 | 3-128 3-128 | 3-256 3-256 3-256 3-256 | 3-512 3-512 3-512 3-512 | 3-512 3-512 3-512 3-512",
}


def vgg(
    configuration: str,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    attention: Slot | None = None,
    conv: Slot = conv_act,
    act: Slot = nn.ReLU,
) -> Network:
    """One column of Table 1, for 224x224 images."""
    stages: dict[str, nn.Module] = {}
    chans = in_chans
    for i, column in enumerate(TABLE_1[configuration].split(" | "), start=1):
        block = nn.Sequential()
        for j, layer in enumerate(column.split(), start=1):
            if layer == "LRN":
                block.add_module("lrn", response_norm())
                continue
            kernel, width = map(int, layer.split("-"))
            block.add_module(f"conv{i}_{j}", gated(conv(chans, width, kernel), attention, width))
            chans = width
        block.add_module("pool", nn.MaxPool2d(2, 2))
        stages[f"block{i}"] = block
    hidden = {"fc6": dense(512 * 7 * 7, 4096, act), "fc7": dense(4096, 4096, act)}
    head = Head(512 * 7 * 7, num_classes, pool="flatten", hidden=hidden, hidden_size=4096)
    size = (in_chans, 224, 224)
    network = Network(stages, head, input_size=size, min_input_size=224, mean=CAFFE_MEAN, std=BYTE_STD)
    return network.apply(glorot_uniform)


vgg_bn = partial(vgg, conv=partial(conv_bn, bias=True))
