"""ZFNet: M. Zeiler, R. Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, Fig. 3: AlexNet with
smaller and denser windows at the start, and without the two groups.

Departs from the paper:

- the padding, which the paper does not give, is what its maps of 110, 55, 26, 13 and 6 pixels need: 1 in conv1, 0 in
  conv2, 1 in the others, pools rounded up;
- "contrast normalised across feature maps" is AlexNet's local response normalisation, with its parameters;
  ``zfnet_pytorchcv`` has it before the pooling, as AlexNet has;
- "initialised to 10^-2" is a normal distribution of that deviation;
- filters are not rescaled in training to a root mean square of at most 0.1;
- one mean per colour is subtracted from the input, not the mean of every pixel.
"""

from collections import OrderedDict
from functools import partial

from torch import nn

from convarium.blocks import Slot, conv_act, gated, gaussian, max_pool_caffe
from convarium.network import BYTE_STD, CAFFE_MEAN, Network
from convarium.networks.alexnet import dense_head, response_norm

# Fig. 3: filters, their side, stride, padding; None: a max pooling 3x3/2, after layers 1 and 2 contrast normalised.
FIGURE_3 = {
    "conv1": (96, 7, 2, 1),
    "pool1": None,
    "conv2": (256, 5, 2, 0),
    "pool2": None,
    "conv3": (384, 3, 1, 1),
    "conv4": (384, 3, 1, 1),
    "conv5": (256, 3, 1, 1),
    "pool5": None,
}
NORMALISED = ("pool1", "pool2")


def pool_then_norm(norm: Slot) -> nn.Sequential:
    """As Fig. 3 has it."""
    return nn.Sequential(OrderedDict(pool=max_pool_caffe(3, 2), norm=norm()))


def norm_then_pool(norm: Slot) -> nn.Sequential:
    """As AlexNet has it."""
    return nn.Sequential(OrderedDict(norm=norm(), pool=max_pool_caffe(3, 2)))


def zfnet(
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    attention: Slot | None = None,
    conv: Slot = conv_act,
    act: Slot = nn.ReLU,
    norm: Slot = response_norm,
    pooling: Slot = pool_then_norm,
) -> Network:
    """The network of Fig. 3, called (a) in Table 2, for 224x224 images: 62,357,608 parameters."""
    stages: dict[str, nn.Module] = {}
    chans = in_chans
    for name, row in FIGURE_3.items():
        if row is None:
            stages[name] = pooling(norm) if name in NORMALISED else max_pool_caffe(3, 2)
            continue
        width, kernel, stride, padding = row
        stages[name] = gated(conv(chans, width, kernel, stride, padding=padding), attention, width)
        chans = width
    head = dense_head(chans, num_classes, act)
    size = (in_chans, 224, 224)
    network = Network(stages, head, input_size=size, min_input_size=207, mean=CAFFE_MEAN, std=BYTE_STD)
    return network.apply(gaussian(0.01))


zfnet_pytorchcv = partial(zfnet, pooling=norm_then_pool)
