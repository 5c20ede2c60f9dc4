"""Xception: F. Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017, Figs. 4 and 5.

Departs from the paper:

- the initialisation is Glorot's uniform, that of the author's Keras code; the paper does not say. There too are the
  places of "same" and "valid": conv1 and conv2 pad nothing, all else, the max poolings too, is TensorFlow's "same";
- the paper's dropout of one half before the classifier is here (Section 4.3); Keras' form has none;
- ``xception_cadene`` is the torch ports' form: poolings padded by one pixel on every side, torch's batch norm constant.
"""

from functools import partial

from torch import nn

from convarium.blocks import (
    Residual,
    Slot,
    conv_bn,
    conv_bn_tensorflow,
    glorot_uniform,
    max_pool_same,
    max_pool_torch,
    separable,
    slot,
)
from convarium.network import INCEPTION_MEAN, INCEPTION_STD, Head, Network

# Fig. 5: channels of each separable convolution of a module. A module whose channels change ends in a pooling of
# stride 2, with a 1x1 convolution of that stride around it.
FIG_5 = {
    # Entry flow
    "block1": (128, 128),
    "block2": (256, 256),
    "block3": (728, 728),
    # Middle flow, eight times
    **{f"block{i}": (728, 728, 728) for i in range(4, 12)},
    # Exit flow
    "block12": (728, 1024),
}

# Neither norm nor activation between the halves of a separable convolution (Section 4.7, Fig. 10).
depthwise = partial(nn.Conv2d, padding=1, bias=False)


def module(
    in_chans: int,
    widths: tuple[int, ...],
    attention: Slot | None,
    conv: Slot,
    act: Slot,
    starts_with: Slot,
    pool: Slot = max_pool_same,
) -> Residual:
    """A box of Fig. 5: ReLU and separable convolution in turn, with a residual connection around them."""
    branch = nn.Sequential()
    chans = in_chans
    for i, width in enumerate(widths, start=1):
        branch.add_module(f"act{i}", act() if i > 1 else starts_with())
        branch.add_module(
            f"conv{i}", separable(chans, width, 3, depthwise=depthwise, pointwise=partial(conv, act=None))
        )
        chans = width
    shortcut: nn.Module = nn.Identity()
    if chans != in_chans:
        branch.add_module("pool", pool(3, 2))
        shortcut = conv(in_chans, chans, 1, 2, act=None)
    return Residual(branch, shortcut, slot(attention, chans), nn.Identity())


def xception(
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    attention: Slot | None = None,
    conv: Slot = conv_bn_tensorflow,
    act: Slot = nn.ReLU,
    pool: Slot = max_pool_same,
) -> Network:
    """Fig. 5, for 299x299 images: 22,855,952 parameters (Table 3)."""
    stages: dict[str, nn.Module] = {
        "conv1": conv(in_chans, 32, 3, 2, padding=0),
        "conv2": conv(32, 64, 3, padding=0),
    }
    chans = 64
    for name, widths in FIG_5.items():
        starts_with = nn.Identity if name == "block1" else act  # conv2 has just ended in one
        stages[name] = module(chans, widths, attention, conv, act, starts_with, pool)
        chans = widths[-1]
    for name, width in {"conv3": 1536, "conv4": 2048}.items():
        stages[name] = separable(chans, width, 3, depthwise=depthwise, pointwise=conv)
        chans = width
    head = Head(chans, num_classes, drop_rate=0.5)
    size = (in_chans, 299, 299)
    network = Network(stages, head, input_size=size, min_input_size=32, mean=INCEPTION_MEAN, std=INCEPTION_STD)
    return network.apply(glorot_uniform)


xception_cadene = partial(xception, conv=conv_bn, pool=max_pool_torch)
