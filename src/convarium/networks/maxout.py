"""Maxout network for CIFAR-10: I. Goodfellow, D. Warde-Farley, M. Mirza, A. Courville, Y. Bengio, "Maxout Networks",
ICML 2013, Sections 2 and 5.2.

Departs from the paper:

- sizes, paddings and the initialisation, uniform in +-0.005 with biases 0, are those of the authors' program (pylearn2,
  ``scripts/papers/maxout/cifar10.yaml``), the paper giving none; its pools round up, as cuda-convnet's do;
- the input's dropout keeps 80 % of the pixels and scales them up in training; the authors' does not scale them;
- the limits on the norm of each kernel belong to training and are not here;
- global contrast normalisation and ZCA whitening of the images are not here: each colour is standardised.
"""

from collections import OrderedDict
from functools import partial

from torch import Tensor, nn

from convarium.blocks import Slot, conv_act, max_pool_caffe, slot
from convarium.network import Head, Network

# Layers h0, h1, h2: channels, kernel, padding; window and stride of the max pooling; dropout before the layer.
LAYERS = {
    "h0": (96, 8, 4, 4, 2, 0.2),
    "h1": (192, 8, 3, 4, 2, 0.5),
    "h2": (192, 5, 3, 2, 2, 0.5),
}
PIECES = 2
UNITS, DENSE_PIECES = 500, 5  # h3


# What maxout takes the maximum of.
linear = partial(conv_act, act=None)


class Maxout(nn.Module):
    """The largest of each ``pieces`` channels that follow one another (Section 2): ``(N, C pieces)`` to ``(N, C)``, or
    ``(N, C pieces, H, W)`` to ``(N, C, H, W)``."""

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, self.pieces)).amax(2)

    def extra_repr(self) -> str:
        return f"pieces={self.pieces}"


def detector(
    in_chans: int, out_chans: int, kernel: int, padding: int, drop: float, attention: Slot | None, conv: Slot
) -> nn.Sequential:
    """Dropout, one convolution with all linear pieces, their maxout: ``(N, in_chans, H, W)`` to ``(N, out_chans, h,
    w)`` with h = H + 2 padding - kernel + 1."""
    return nn.Sequential(
        OrderedDict(
            drop=nn.Dropout(drop),
            pieces=conv(in_chans, PIECES * out_chans, kernel, padding=padding),
            maxout=Maxout(PIECES),
            attention=slot(attention, out_chans),
        )
    )


def uniform(module: nn.Module) -> None:
    """Weights uniform in +-0.005, biases 0."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.uniform_(module.weight, -0.005, 0.005)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def maxout_cifar(
    *,
    num_classes: int = 10,
    in_chans: int = 3,
    attention: Slot | None = None,
    conv: Slot = linear,
    act: Slot = nn.Identity,
) -> Network:
    """Three convolutional maxout layers and a dense one, for 32x32 images: 16,247,830 parameters.

    Maxout is the activation. ``conv`` makes the linear pieces that it takes the maximum of; an ``act`` other than the
    identity is put on every piece, which for a rising function is the same as on their maximum.
    """
    stages: dict[str, nn.Module] = {}
    chans = in_chans
    for name, (width, kernel, padding, window, stride, drop) in LAYERS.items():
        stages[f"{name}_detector"] = detector(chans, width, kernel, padding, drop, attention, conv)
        stages[f"{name}_pool"] = max_pool_caffe(window, stride)
        chans = width
    features = chans * 5 * 5
    h3 = nn.Sequential(
        OrderedDict(
            drop=nn.Dropout(0.5),
            pieces=nn.Linear(features, DENSE_PIECES * UNITS),
            act=act(),
            maxout=Maxout(DENSE_PIECES),
        )
    )
    head = Head(features, num_classes, pool="flatten", hidden={"h3": h3}, hidden_size=UNITS, drop_rate=0.5)
    network = Network(stages, head, input_size=(in_chans, 32, 32), min_input_size=32, crop_pct=1.0)
    return network.apply(uniform)
