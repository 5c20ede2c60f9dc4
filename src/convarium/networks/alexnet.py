"""AlexNet: A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet Classification with Deep Convolutional Neural Networks",
NIPS 2012, Section 3.5, Fig. 2; ``alexnet_owt`` is the single column of A. Krizhevsky, "One weird trick for
parallelizing convolutional neural networks", arXiv 1404.5997, 2014.

Departs from the paper:

- the input is 227x227, which its 55x55 maps of conv1 follow from; the text says 224;
- the normalisation divides alpha by the 5 channels it sums over, as the author's programs do; the formula printed in
  Section 3.3 does not;
- one mean per colour is subtracted from the input, not the mean image;
- what the two GPUs hold are the two groups of conv2, conv4 and conv5; ``alexnet_pytorchcv`` has no groups, and takes
  224x224 images: a 54x54 map after conv1;
- ``alexnet_owt`` is torchvision's form: 224x224 images padded by 2, no normalisation, pools rounded down. The author's
  files normalise after conv1 (before its rectifier) and conv2, and crop to 223 without padding. The initialisation,
  which the paper does not give, and the place of dropout are those of the author's files.
"""

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial

from torch import nn

from convarium.blocks import Slot, conv_act, gated, gaussian, lrn, max_pool_caffe
from convarium.network import BYTE_STD, CAFFE_MEAN, Head, Network

# Section 3.5: kernels, their side, stride, padding, groups; None: an overlapping max pooling, 3x3/2 (Section 3.4).
FIGURE_2 = {
    "conv1": (96, 11, 4, 0, 1),
    "pool1": None,
    "conv2": (256, 5, 1, 2, 2),
    "pool2": None,
    "conv3": (384, 3, 1, 1, 1),
    "conv4": (384, 3, 1, 1, 2),
    "conv5": (256, 3, 1, 1, 2),
    "pool5": None,
}
UNGROUPED = {name: row and (*row[:-1], 1) for name, row in FIGURE_2.items()}
ONE_COLUMN = {
    "conv1": (64, 11, 4, 2, 1),
    "pool1": None,
    "conv2": (192, 5, 1, 2, 1),
    "pool2": None,
    "conv3": (384, 3, 1, 1, 1),
    "conv4": (256, 3, 1, 1, 1),
    "conv5": (256, 3, 1, 1, 1),
    "pool5": None,
}
NORMALISED = ("conv1", "conv2")
BIAS_1 = ("conv2", "conv4", "conv5", "fc6", "fc7")


def response_norm() -> nn.Module:
    """Local response normalisation with the paper's n = 5, alpha, beta and k = 2 (Section 3.3)."""
    return lrn(5, alpha=1e-4, beta=0.75, k=2)


def dense(in_features: int, out_features: int, act: Slot) -> nn.Sequential:
    """A dense layer, its rectifier, dropout (Sections 3.5, 4.2): ``(N, in_features)`` to ``(N, out_features)``."""
    return nn.Sequential(OrderedDict(fc=nn.Linear(in_features, out_features), act=act(), drop=nn.Dropout(0.5)))


def dense_head(channels: int, num_classes: int, act: Slot) -> Head:
    """fc6, fc7 and the classifier over a map ``(N, channels, 6, 6)`` (Fig. 2)."""
    hidden = {"fc6": dense(36 * channels, 4096, act), "fc7": dense(4096, 4096, act)}
    return Head(36 * channels, num_classes, pool="flatten", hidden=hidden, hidden_size=4096)


def first_layer(block: nn.Module) -> nn.Conv2d | nn.Linear:
    """The convolution or dense layer that a block begins with."""
    return next(module for module in block.modules() if isinstance(module, nn.Conv2d | nn.Linear))


def initialise(network: Network, deviations: Mapping[str, float] | None = None) -> Network:
    """Weights normal with deviation 0.01, or what ``deviations`` says of a layer; biases 1 in the second, fourth and
    fifth convolution and in the hidden dense layers, 0 elsewhere (Section 5)."""
    network.apply(gaussian(0.01))
    layers = {**dict(network.stages.items()), **dict(network.head.hidden.named_children())}
    for name, deviation in (deviations or {}).items():
        nn.init.normal_(first_layer(layers[name]).weight, std=deviation)
    for name in BIAS_1:
        bias = first_layer(layers[name]).bias
        if bias is not None:
            nn.init.ones_(bias)
    return network


def columns(
    table: Mapping[str, tuple[int, ...] | None],
    in_chans: int,
    attention: Slot | None,
    conv: Slot,
    norm: Slot | None,
    pool: Slot,
) -> dict[str, nn.Module]:
    """The stages of a table; where there is a ``norm`` it follows the first two convolutions."""
    stages: dict[str, nn.Module] = {}
    chans = in_chans
    for name, row in table.items():
        if row is None:
            stages[name] = pool(3, 2)
            continue
        width, kernel, stride, padding, groups = row
        layer = gated(conv(chans, width, kernel, stride, padding=padding, groups=groups), attention, width)
        if norm is not None and name in NORMALISED:
            layer = nn.Sequential(OrderedDict(layer=layer, norm=norm()))
        stages[name], chans = layer, width
    return stages


def alexnet(
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    attention: Slot | None = None,
    conv: Slot = conv_act,
    act: Slot = nn.ReLU,
    norm: Slot | None = response_norm,
    table: Mapping[str, tuple[int, ...] | None] = FIGURE_2,
    side: int = 227,
) -> Network:
    """AlexNet as published, for 227x227 images: 60,965,224 parameters. The weights that BVLC trained with
    k = 1 are scaled as they are loaded, to be the same function with k = 2."""
    stages = columns(table, in_chans, attention, conv, norm, max_pool_caffe)
    head = dense_head(256, num_classes, act)
    size = (in_chans, side, side)
    return initialise(Network(stages, head, input_size=size, min_input_size=199, mean=CAFFE_MEAN, std=BYTE_STD))


alexnet_pytorchcv = partial(alexnet, table=UNGROUPED, side=224)


def alexnet_owt(
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    attention: Slot | None = None,
    conv: Slot = conv_act,
    act: Slot = nn.ReLU,
    norm: Slot | None = None,
) -> Network:
    """The single column, for 224x224 images: 61,100,840 parameters."""
    stages = columns(ONE_COLUMN, in_chans, attention, conv, norm, nn.MaxPool2d)
    head = dense_head(256, num_classes, act)
    size = (in_chans, 224, 224)
    network = Network(stages, head, input_size=size, min_input_size=223, mean=CAFFE_MEAN, std=BYTE_STD)
    return initialise(network, dict.fromkeys(("conv3", "conv4", "conv5"), 0.03))
