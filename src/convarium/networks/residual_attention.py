"""Residual Attention Network: F. Wang et al., "Residual Attention Network for Image Classification", CVPR 2017,
Figs. 2 and 3, Table 2: units in a trunk, and beside them an hourglass that makes a mask for what the trunk gives.

Departs from the paper:

- where its text is silent the authors' Caffe definitions (fwang91/residual-attention-network) are followed: one more
  unit at the bottom of each hourglass, units on the skips, no biases, poolings that pad nothing and round up. They have
  the parameters of the paper's Attention-56 but more than those of its Attention-92 (52.5M; printed are 51.3M);
- they come in two versions: masks end in a sigmoid in one, as in the paper and here, in a tanh in the other;
- enlarging is bilinear with the corner pixels aligned, as their Interp layer does it;
- AttentionNeXt has ResNeXt's own units: the activation after the addition, not before the convolutions;
- ``attention92_cifar``: two modules per stage follow from 36 m + 20 layers (Section 4.1), the widths are assumed to be
  those of the bottlenecks of pre-activation ResNet for CIFAR, and each stage's masks to halve the map 2, 2 and 1 times:
  with these widths, no other choice has both the 1.9M parameters of Attention-92 and the 5.1M of Attention-236;
- convolutions start from He's normal initialisation, the classifier from torch's uniform default.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convarium.blocks import Pair, Residual, Slot, conv_bn, he_normal, max_pool_caffe, slot
from convarium.network import BYTE_STD, CAFFE_MEAN, IMAGENET_MEAN, IMAGENET_STD, Head, Network

# Table 2, a row per stage: channels, stride, and how often its masks halve the map; the last has three units, no module.
TABLE_2 = ((256, 1, 3), (512, 2, 2), (1024, 2, 1), (2048, 2, 0))
CIFAR = ((64, 1, 2), (128, 2, 2), (256, 2, 1), (256, 1, 0))


# -- what makes a mask of its scores (Section 3.2), and what the mask does (Section 3.1) -----------------------------


def mixed_attention(scores: Tensor) -> Tensor:
    """Each place of each channel by itself: a sigmoid (f1, Eq. 4)."""
    return torch.sigmoid(scores)


def channel_attention(scores: Tensor) -> Tensor:
    """What each channel has of the place's L2 norm over all channels (f2, Eq. 5)."""
    return F.normalize(scores, dim=1)


def spatial_attention(scores: Tensor) -> Tensor:
    """A sigmoid of the scores standardised within each channel's map (f3, Eq. 6)."""
    centred = scores - scores.mean((2, 3), keepdim=True)
    return torch.sigmoid(centred * (scores.var((2, 3), correction=0, keepdim=True) + 1e-5).rsqrt())


def residual_learning(mask: Tensor, trunk: Tensor) -> Tensor:
    """Attention residual learning, ``(1 + M) T``: a mask of 0 leaves the trunk as it is (Eq. 3)."""
    return (1 + mask) * trunk


def naive_learning(mask: Tensor, trunk: Tensor) -> Tensor:
    """Naive attention learning, ``M T`` (Eq. 1)."""
    return mask * trunk


# -- units ----------------------------------------------------------------------------------------------------------


def preact_conv(
    in_chans: int,
    out_chans: int,
    kernel_size: int,
    stride: int = 1,
    *,
    padding: Pair | None = None,
    groups: int = 1,
    norm: Slot | None = nn.BatchNorm2d,
    act: Slot | None = nn.ReLU,
) -> nn.Sequential:
    """Norm, activation, then a convolution without bias (He et al., ECCV 2016, Fig. 1b)."""
    padding = kernel_size // 2 if padding is None else padding
    conv = nn.Conv2d(in_chans, out_chans, kernel_size, stride, padding, groups=groups, bias=False)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if norm is not None:
        layers["norm"] = norm(in_chans)
    if act is not None:
        layers["act"] = act()
    return nn.Sequential(OrderedDict(layers, conv=conv))


def split(layer: nn.Module) -> tuple[nn.Sequential, nn.Module]:
    """What a layer does besides its convolution, and the convolution alone."""
    others = OrderedDict((name, each) for name, each in layer.named_children() if name != "conv")
    return nn.Sequential(others), layer.get_submodule("conv")


def preact_unit(in_chans: int, out_chans: int, stride: int, attention: Slot | None, conv: Slot, act: Slot) -> nn.Module:
    """1x1, 3x3 with the stride, 1x1; a projection reads the same activated input as the first 1x1."""
    width, gate = out_chans // 4, slot(attention, out_chans)
    first, *rest = conv(in_chans, width, 1), conv(width, width, 3, stride), conv(width, out_chans, 1)
    if in_chans == out_chans and stride == 1:
        return Residual(nn.Sequential(first, *rest), nn.Identity(), gate, nn.Identity())
    (pre, alone), shortcut = split(first), split(conv(in_chans, out_chans, 1, stride))[1]
    return nn.Sequential(
        OrderedDict(pre=pre, unit=Residual(nn.Sequential(alone, *rest), shortcut, gate, nn.Identity()))
    )


def resnext_unit(
    in_chans: int, out_chans: int, stride: int, attention: Slot | None, conv: Slot, act: Slot
) -> nn.Module:
    """The same with twice the width in 32 groups, and the activation after the addition (Xie et al., CVPR 2017)."""
    width, same = out_chans // 2, in_chans == out_chans and stride == 1
    shrink, grow = conv(in_chans, width, 1), conv(width, out_chans, 1, act=None)
    branch = nn.Sequential(shrink, conv(width, width, 3, stride, groups=32), grow)
    shortcut = nn.Identity() if same else conv(in_chans, out_chans, 1, stride, act=None)
    return Residual(branch, shortcut, slot(attention, out_chans), act())


def preact_stem(in_chans: int, conv: Slot) -> tuple[dict[str, nn.Module], int]:
    """7x7, normed and activated, and the pooling."""
    conv1 = OrderedDict(conv=split(conv(in_chans, 64, 7, 2))[1], post=split(conv(64, 1, 1))[0])
    return {"conv1": nn.Sequential(conv1), "pool1": max_pool_caffe(3, 2)}, 64


def resnext_stem(in_chans: int, conv: Slot) -> tuple[dict[str, nn.Module], int]:
    """The same of a ``conv`` that norms and activates what it gives."""
    return {"conv1": conv(in_chans, 64, 7, 2), "pool1": max_pool_caffe(3, 2)}, 64


def cifar_stem(in_chans: int, conv: Slot) -> tuple[dict[str, nn.Module], int]:
    """A 3x3, which the first unit's norm follows."""
    return {"conv1": split(conv(in_chans, 16, 3))[1]}, 16


def preact_scores(chans: int, conv: Slot) -> nn.Sequential:
    """The two 1x1 before the mask."""
    return nn.Sequential(conv(chans, chans, 1), conv(chans, chans, 1))


def resnext_scores(chans: int, conv: Slot) -> nn.Sequential:
    """The two 1x1 before the mask: nothing follows the second."""
    return nn.Sequential(conv(chans, chans, 1), split(conv(chans, chans, 1))[1])


def preact_last(chans: int, conv: Slot) -> nn.Module:
    """The norm and activation after the last unit."""
    return split(conv(chans, 1, 1))[0]


# -- the attention module ---------------------------------------------------------------------------------------------


class Hourglass(nn.Module):
    """Halve the map, ``r`` units, the same again within a skip, ``r`` units, enlarge it (Fig. 2); keeps the shape."""

    def __init__(self, units: Callable[[int], nn.Module], depth: int, r: int) -> None:
        super().__init__()
        self.down = nn.Sequential(OrderedDict(pool=max_pool_caffe(3, 2), units=units(r)))
        self.skip, self.inner = (units(1), Hourglass(units, depth - 1, r)) if depth > 1 else (None, None)
        self.up = units(r)

    def forward(self, x: Tensor) -> Tensor:
        low = self.down(x)
        if self.skip is not None and self.inner is not None:
            low = self.skip(low) + self.inner(low)
        return F.interpolate(self.up(low), size=x.shape[2:], mode="bilinear", align_corners=True)


class AttentionModule(nn.Module):
    """``p`` units; ``t`` units as the trunk, beside them the mask; ``p`` units of both (Fig. 2); keeps the shape."""

    def __init__(
        self, units: Callable[[int], nn.Module], depth: int, scores: nn.Module, p: int, t: int, r: int,
        attention_type: Callable[[Tensor], Tensor], learning: Callable[[Tensor, Tensor], Tensor],
    ) -> None:  # fmt: skip
        super().__init__()
        self.pre, self.trunk = units(p), units(t)
        self.mask = nn.Sequential(OrderedDict(hourglass=Hourglass(units, depth, r), scores=scores))
        self.post = units(p)
        self.attention_type, self.learning = attention_type, learning

    def forward(self, x: Tensor) -> Tensor:
        x = self.pre(x)
        return self.post(self.learning(self.attention_type(self.mask(x)), self.trunk(x)))


def residual_attention(
    modules: tuple[int, ...],
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    attention: Slot | None = None,
    conv: Slot = preact_conv,
    act: Slot = nn.ReLU,
    p: int = 1,
    t: int = 2,
    r: int = 1,
    attention_type: Callable[[Tensor], Tensor] = mixed_attention,
    learning: Callable[[Tensor, Tensor], Tensor] = residual_learning,
    table: tuple[tuple[int, int, int], ...] = TABLE_2,
    unit: Slot = preact_unit,
    stem: Callable[[int, Slot], tuple[dict[str, nn.Module], int]] = preact_stem,
    scores: Slot = preact_scores,
    last: Slot = preact_last,
    side: int = 224,
    min_side: int = 32,
    mean: tuple[float, ...] = CAFFE_MEAN,
    std: tuple[float, ...] = BYTE_STD,
    crop_pct: float = 0.875,
) -> Network:
    """Table 2, with ``modules`` in each stage: (1, 1, 1) is Attention-56, (1, 2, 3) Attention-92."""
    make = partial(unit, attention=attention, conv=conv, act=act)
    stages, chans = stem(in_chans, conv)
    for i, (width, stride, depth) in enumerate(table[:-1]):
        units = lambda n, width=width: nn.Sequential(*(make(width, width, 1) for _ in range(n)))  # noqa: E731
        stages[f"pre_res_{i + 1}"], chans = make(chans, width, stride), width
        for j in range(modules[i]):
            stages[f"Attention{'ABC'[i]}_{j + 1}"] = AttentionModule(
                units, depth, scores(width, conv), p, t, r, attention_type, learning
            )
    width, stride, _ = table[-1]
    three = (make(chans, width, stride), make(width, width, 1), make(width, width, 1))
    stages["post_res_4"] = nn.Sequential(*three, last(width, conv))
    network = Network(
        stages, Head(width, num_classes), input_size=(in_chans, side, side), min_input_size=min_side,
        mean=mean, std=std, crop_pct=crop_pct,
    )  # fmt: skip
    return network.apply(he_normal)


attentionnext = partial(
    residual_attention,
    conv=conv_bn,
    unit=resnext_unit,
    stem=resnext_stem,
    scores=resnext_scores,
    last=lambda chans, conv: nn.Identity(),
)
residual_attention_cifar = partial(
    residual_attention,
    num_classes=10,
    table=CIFAR,
    stem=cifar_stem,
    side=32,
    min_side=7,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    crop_pct=1.0,
)
