"""MobileNet: A. Howard, M. Zhu, B. Chen, D. Kalenichenko, W. Wang, T. Weyand, M. Andreetto, H. Adam, "MobileNets:
Efficient Convolutional Neural Networks for Mobile Vision Applications", arXiv 1704.04861, 2017, Table 1.

Departs from the paper:

- the last depthwise convolution has stride 1: Table 1 prints 2 for it, and 7x7 before and after it;
- 3x3 convolutions of stride 2 pad one pixel on every side, as the Caffe and torch ports do; TensorFlow's "same" pads
  the bottom and the right only: the same sizes, shifted by one pixel;
- ``_tf`` is the form of the authors' code, and of Keras where all maps are even: ReLU6, and that padding;
- the initialisation (normal with deviation 0.09, cut at two) and the dropout of 0.001 are those of the authors' code,
  the paper giving none. That code has ReLU6 (here: ``act=nn.ReLU6``) where Fig. 3 has ReLU;
- ``mobilenet_v1_timm`` is timm's form: ReLU6, and torch's batch norm constant.
"""

from functools import partial

from torch import nn

from convarium.blocks import Slot, conv_bn, conv_bn_same, conv_bn_tensorflow, gated, separable, truncated_normal
from convarium.network import INCEPTION_MEAN, INCEPTION_STD, Head, Network

# Table 1: channels and stride of each depthwise separable convolution; the stride is that of its depthwise half.
TABLE_1 = {
    "dw1": (64, 1),
    "dw2": (128, 2),
    "dw3": (128, 1),
    "dw4": (256, 2),
    "dw5": (256, 1),
    "dw6": (512, 2),
    "dw7": (512, 1),
    "dw8": (512, 1),
    "dw9": (512, 1),
    "dw10": (512, 1),
    "dw11": (512, 1),
    "dw12": (1024, 2),
    "dw13": (1024, 1),
}


def mobilenet_v1(
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    attention: Slot | None = None,
    conv: Slot = conv_bn_tensorflow,
    act: Slot = nn.ReLU,
    width: float = 1.0,
) -> Network:
    """Table 1, for 224x224 images, with ``width`` times its channels (the width multiplier of Section 3.3)."""
    chans = int(32 * width)
    stages: dict[str, nn.Module] = {"conv1": conv(in_chans, chans, 3, 2)}
    for name, (row_chans, stride) in TABLE_1.items():
        out_chans = int(row_chans * width)
        layer = separable(chans, out_chans, 3, stride, depthwise=conv, pointwise=conv)
        stages[name], chans = gated(layer, attention, out_chans), out_chans
    head = Head(chans, num_classes, drop_rate=0.001)
    size = (in_chans, 224, 224)
    network = Network(stages, head, input_size=size, min_input_size=32, mean=INCEPTION_MEAN, std=INCEPTION_STD)
    return network.apply(truncated_normal(0.09))


mobilenet_v1_tf = partial(mobilenet_v1, conv=partial(conv_bn_same, act=nn.ReLU6), act=nn.ReLU6)
mobilenet_v1_timm = partial(mobilenet_v1, conv=partial(conv_bn, act=nn.ReLU6))
