"""NIN: M. Lin, Q. Chen, S. Yan, "Network In Network", ICLR 2014, Figs. 1b and 2, Section 4; ``nin_imagenet`` is the
first author's later network for ImageNet, in Caffe's model zoo.

Departs from the paper:

- the widths, the rate of dropout and the initialisation, normal with biases 0, are those of the first author's files
  (cuda-convnet's ``NIN/cifar-10_def`` and Caffe's ``nin_imagenet``), the paper giving none; pools are 3x3 and round
  up, as in those programs; in ``nin_cifar_pytorchcv`` they pad one pixel on every side, and the second is a mean;
- global contrast normalisation and ZCA whitening of the CIFAR images are not here: each colour is standardised.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType

from torch import nn

from convarium.blocks import Slot, conv_act, gated, gaussian, max_pool_caffe, max_pool_torch
from convarium.network import BYTE_STD, CAFFE_MEAN, ConvHead, Network

# Kernel, stride and padding of the convolution; its width and those of the two layers of the micro network after it.
# None: a max pooling 3x3/2.
CIFAR = {
    "mlpconv1": (5, 1, 2, 192, 160, 96),
    "pool1": None,
    "mlpconv2": (5, 1, 2, 192, 192, 192),
    "pool2": None,
}
CIFAR_LAST = (3, 1, 1, 192, 192)  # conv3, cccp5; then cccp6, a map per class
IMAGENET = {
    "mlpconv1": (11, 4, 0, 96, 96, 96),
    "pool1": None,
    "mlpconv2": (5, 1, 2, 256, 256, 256),
    "pool2": None,
    "mlpconv3": (3, 1, 1, 384, 384, 384),
    "pool3": None,
}
IMAGENET_LAST = (3, 1, 1, 1024, 1024)  # conv4, cccp7; then cccp8


def mlpconv(in_chans: int, row: Sequence[int], conv: Slot, number: int) -> OrderedDict[str, nn.Module]:
    """The layers of a perceptron that slides over the map (Fig. 1b): a convolution, then 1x1 ones, under the author's
    names (number 1: ``conv1``, ``cccp1``, ``cccp2``). ``row``: kernel, stride, padding, then the widths."""
    kernel, stride, padding, width, *others = row
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers[f"conv{number}"] = conv(in_chans, width, kernel, stride, padding=padding)
    for i, other in enumerate(others):
        layers[f"cccp{2 * number - 1 + i}"] = conv(width, other, 1)
        width = other
    return layers


def stages_of(
    table: Mapping[str, Sequence[int] | None],
    in_chans: int,
    attention: Slot | None,
    conv: Slot,
    dropped: Sequence[str],
    pools: Mapping[str, Slot] = MappingProxyType({}),
) -> dict[str, nn.Module]:
    """mlpconv layers and poolings in turn (Fig. 2), of Caffe's kind but for what ``pools`` names; after the poolings
    ``dropped`` there is dropout."""
    stages: dict[str, nn.Module] = {}
    chans = in_chans
    for name, row in table.items():
        if row is None:
            stages[name] = nn.Sequential(OrderedDict(pool=pools.get(name, max_pool_caffe)(3, 2)))
            if name in dropped:
                stages[name].add_module("drop", nn.Dropout(0.5))
            continue
        layers = nn.Sequential(mlpconv(chans, row, conv, int(name[-1])))
        stages[name], chans = gated(layers, attention, row[-1]), row[-1]
    return stages


def class_maps(std: float, act: Slot) -> Slot:
    """What makes the last 1x1 with its rectifier: ``(N, channels, H, W)`` to ``(N, classes, H, W)``."""

    def last(channels: int, classes: int) -> nn.Module:
        return nn.Sequential(OrderedDict(conv=nn.Conv2d(channels, classes, 1), act=act())).apply(gaussian(std))

    return last


def nin_cifar(
    *,
    num_classes: int = 10,
    in_chans: int = 3,
    attention: Slot | None = None,
    conv: Slot = conv_act,
    act: Slot = nn.ReLU,
    pools: Mapping[str, Slot] = MappingProxyType({}),
) -> Network:
    """Three mlpconv layers for 32x32 images: 966,986 parameters."""
    stages = stages_of(CIFAR, in_chans, attention, conv, dropped=("pool1", "pool2"), pools=pools)
    hidden = mlpconv(192, CIFAR_LAST, conv, 3)
    head = ConvHead(192, num_classes, hidden=hidden, hidden_size=192, classifier=class_maps(0.05, act))
    network = Network(stages, head, input_size=(in_chans, 32, 32), min_input_size=4, crop_pct=1.0)
    return network.apply(gaussian(0.05))


nin_cifar_pytorchcv = partial(nin_cifar, pools={"pool1": max_pool_torch, "pool2": partial(nn.AvgPool2d, padding=1)})


def nin_imagenet(
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    attention: Slot | None = None,
    conv: Slot = conv_act,
    act: Slot = nn.ReLU,
) -> Network:
    """Four mlpconv layers for 224x224 images: 7,595,176 parameters."""
    stages = stages_of(IMAGENET, in_chans, attention, conv, dropped=("pool3",))
    hidden = mlpconv(384, IMAGENET_LAST, conv, 4)
    head = ConvHead(384, num_classes, hidden=hidden, hidden_size=1024, classifier=class_maps(0.01, act))
    size = (in_chans, 224, 224)
    network = Network(stages, head, input_size=size, min_input_size=39, mean=CAFFE_MEAN, std=BYTE_STD)
    network.apply(gaussian(0.05))
    for path in ("stages.mlpconv1.conv1", "stages.mlpconv3.conv3", "head.classifier"):
        network.get_submodule(path).apply(gaussian(0.01))
    return network
