"""Residual Attention Network: F. Wang et al., "Residual Attention Network for Image Classification", CVPR 2017,
Figs. 2 and 3, Table 2: units in a trunk, and beside them an hourglass that makes a mask for what the trunk gives.

Departs from the paper:

- where its text is silent, the authors' Caffe definitions are followed (fwang91/residual-attention-network): one more
  unit at the bottom of each hourglass, a unit on each skip, no biases, poolings that pad nothing and round up. They
  have the printed parameters of Attention-56, but 52.5M for Attention-92, where the paper prints 51.3M;
- these come in two versions: masks end in a sigmoid in one, as in the paper and here, in a tanh in the other;
- ``_pytorchcv`` are that library's forms: padded poolings, skips within the hourglasses that add what they take,
  and masks that read what the trunk gives too;
- maps are enlarged bilinearly with the corner pixels aligned, as by their Interp layer;
- AttentionNeXt has ResNeXt's own units: the activation after the addition, not before the convolutions;
- ``attention92_cifar``: two modules per stage follow from the 36 m + 20 layers of Section 4.1; the widths are assumed
  to be those of pre-activation ResNet-164, and the masks of each stage to halve the map 2, 2 and 1 times: with these
  widths no other choice has both the 1.9M parameters printed for Attention-92 and the 5.1M for Attention-236;
- convolutions start from He's normal initialisation, the classifier from torch's uniform default.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convarium.blocks import Residual, Slot, conv_bn, he_normal, max_pool_caffe, max_pool_torch, slot
from convarium.network import BYTE_STD, CAFFE_MEAN, IMAGENET_MEAN, IMAGENET_STD, Head, Network
from convarium.networks.preact_resnet import preact_conv


class Table(NamedTuple):
    """conv1: channels, kernel, stride (with a stride, pool1 follows); per stage: channels, stride, poolings in a mask
    (none: the three units of the last); the image's side and the smallest; its mean and deviation."""

    conv1: tuple[int, int, int]
    stages: tuple[tuple[int, int, int], ...]
    sides: tuple[int, int]
    scale: tuple[tuple[float, ...], tuple[float, ...]]


TABLE_2 = Table((64, 7, 2), ((256, 1, 3), (512, 2, 2), (1024, 2, 1), (2048, 2, 0)), (224, 32), (CAFFE_MEAN, BYTE_STD))
CIFAR = Table((16, 3, 1), ((64, 1, 2), (128, 2, 2), (256, 2, 1), (256, 1, 0)), (32, 7), (IMAGENET_MEAN, IMAGENET_STD))


# -- what makes a mask of its scores (Section 3.2), and what the mask does (Section 3.1) -----------------------------


def mixed_attention(scores: Tensor) -> Tensor:
    """Each place of each channel by itself: a sigmoid (f1)."""
    return torch.sigmoid(scores)


def channel_attention(scores: Tensor) -> Tensor:
    """The share of each channel in the L2 norm over all channels of a place (f2)."""
    return F.normalize(scores, dim=1)


def spatial_attention(scores: Tensor) -> Tensor:
    """A sigmoid of the scores standardised within each channel's map (f3)."""
    centred = scores - scores.mean((2, 3), keepdim=True)
    return torch.sigmoid(centred * (scores.var((2, 3), correction=0, keepdim=True) + 1e-5).rsqrt())


def residual_learning(mask: Tensor, trunk: Tensor) -> Tensor:
    """Attention residual learning, ``(1 + M) T``: a mask of 0 leaves the trunk as it is (Eq. 3)."""
    return (1 + mask) * trunk


def naive_learning(mask: Tensor, trunk: Tensor) -> Tensor:
    """Naive attention learning, ``M T`` (Eq. 1)."""
    return mask * trunk


# -- units ----------------------------------------------------------------------------------------------------------


def split(layer: nn.Module) -> tuple[nn.Sequential, nn.Module, nn.Sequential]:
    """What a ``conv`` slot puts before its convolution, the convolution, and what it puts after it."""
    parts = list(layer.named_children())
    at = [name for name, _ in parts].index("conv")
    return nn.Sequential(OrderedDict(parts[:at])), parts[at][1], nn.Sequential(OrderedDict(parts[at + 1 :]))


def preact_unit(in_chans: int, out_chans: int, stride: int, attention: Slot | None, conv: Slot, act: Slot) -> nn.Module:
    """1x1, 3x3 with the stride, 1x1; a projection reads the same activated map as the first 1x1."""
    width, gate = out_chans // 4, slot(attention, out_chans)
    first, *rest = conv(in_chans, width, 1), conv(width, width, 3, stride), conv(width, out_chans, 1)
    if in_chans == out_chans and stride == 1:
        return Residual(nn.Sequential(first, *rest), nn.Identity(), gate, nn.Identity())
    before, alone, _ = split(first)
    shortcut = split(conv(in_chans, out_chans, 1, stride))[1]
    return nn.Sequential(*before, Residual(nn.Sequential(alone, *rest), shortcut, gate, nn.Identity()))


def resnext_unit(
    in_chans: int, out_chans: int, stride: int, attention: Slot | None, conv: Slot, act: Slot
) -> nn.Module:
    """The same with twice the width, in 32 groups, and an activation after the addition (Xie et al., CVPR 2017)."""
    width, same = out_chans // 2, in_chans == out_chans and stride == 1
    grouped, grow = conv(width, width, 3, stride, groups=32), conv(width, out_chans, 1, act=None)
    shortcut = nn.Identity() if same else conv(in_chans, out_chans, 1, stride, act=None)
    branch = nn.Sequential(conv(in_chans, width, 1), grouped, grow)
    return Residual(branch, shortcut, slot(attention, out_chans), act())


class Hourglass(nn.Module):
    """Halve the map, ``r`` units, an hourglass within and a skip, ``r`` units, enlarge it (Fig. 2); keeps the shape.

    ``pool`` makes what halves it, ``skip`` a skip of the unit that stands on it.
    """

    def __init__(
        self,
        units: Callable[[int], nn.Module],
        depth: int,
        r: int,
        pool: Slot = max_pool_caffe,
        skip: Callable[[nn.Module], nn.Module] = lambda unit: unit,
    ) -> None:
        super().__init__()
        self.down = nn.Sequential(OrderedDict(pool=pool(3, 2), units=units(r)))
        self.skip = skip(units(1)) if depth > 1 else None
        self.inner = Hourglass(units, depth - 1, r, pool, skip) if depth > 1 else None
        self.up = units(r)

    def forward(self, x: Tensor) -> Tensor:
        low = self.down(x)
        if self.skip is not None and self.inner is not None:
            low = self.skip(low) + self.inner(low)
        return F.interpolate(self.up(low), size=x.shape[2:], mode="bilinear", align_corners=True)


class Doubled(nn.Module):
    """What a unit takes, added to what it gives, which holds it already."""

    def __init__(self, unit: nn.Module) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, x: Tensor) -> Tensor:
        return x + self.unit(x)


class AttentionModule(nn.Module):
    """``p`` units; the trunk of ``t`` units, and its mask; ``p`` units (Fig. 2); keeps the shape ``(N, C, H, W)``."""

    def __init__(
        self, units: Callable[[int], nn.Module], ptr: tuple[int, int, int], depth: int, scores: nn.Module,
        normalise: Callable[[Tensor], Tensor], learning: Callable[[Tensor, Tensor], Tensor],
        hourglass: Slot = Hourglass,
    ) -> None:  # fmt: skip
        super().__init__()
        p, t, r = ptr
        self.pre, self.trunk = units(p), units(t)
        self.mask = nn.Sequential(OrderedDict(hourglass=hourglass(units, depth, r), scores=scores))
        self.post = units(p)
        self.normalise, self.learning = normalise, learning

    def forward(self, x: Tensor) -> Tensor:
        x = self.pre(x)
        return self.post(self.learning(self.normalise(self.mask(x)), self.trunk(x)))


class TrunkInMask(AttentionModule):
    """A module whose mask reads the sum of what its hourglass and its trunk give."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.pre(x)
        trunk = self.trunk(x)
        hourglass, scores = self.mask
        return self.post(self.learning(self.normalise(scores(hourglass(x) + trunk)), trunk))


def residual_attention(
    modules: tuple[int, ...],
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    attention: Slot | None = None,
    conv: Slot = preact_conv,
    act: Slot = nn.ReLU,
    table: Table = TABLE_2,
    unit: Slot = preact_unit,
    ptr: tuple[int, int, int] = (1, 2, 1),
    normalise: Callable[[Tensor], Tensor] = mixed_attention,
    learning: Callable[[Tensor, Tensor], Tensor] = residual_learning,
    pool: Slot = max_pool_caffe,
    module: Slot = AttentionModule,
) -> Network:
    """Table 2, with ``modules`` in each stage: (1, 1, 1) is Attention-56, (1, 2, 3) Attention-92. ``ptr`` counts the
    units before and after a module's branches, in its trunk, and between the poolings of its mask."""
    make = partial(unit, attention=attention, conv=conv, act=act)
    chans, kernel, stride = table.conv1
    first = split(conv(in_chans, chans, kernel, stride))[1:]
    stages: dict[str, nn.Module] = {"conv1": nn.Sequential(*first)}
    if stride > 1:
        stages["conv1"] = nn.Sequential(*first, split(conv(chans, 1, 1))[0])
        stages["pool1"] = pool(3, 2)
    for i, (width, stride, depth) in enumerate(table.stages[:-1]):
        units = lambda count, width=width: nn.Sequential(*(make(width, width, 1) for _ in range(count)))  # noqa: E731
        stages[f"pre_res_{i + 1}"], chans = make(chans, width, stride), width
        for j in range(modules[i]):
            scores = nn.Sequential(conv(chans, chans, 1), *split(conv(chans, chans, 1))[:2])
            stages[f"Attention{'ABC'[i]}_{j + 1}"] = module(units, ptr, depth, scores, normalise, learning)
    width, stride, _ = table.stages[-1]
    last = make(chans, width, stride), make(width, width, 1), make(width, width, 1)
    stages["post_res_4"] = nn.Sequential(*last, split(conv(width, 1, 1))[0])
    (side, least), (mean, std) = table.sides, table.scale
    network = Network(
        stages, Head(width, num_classes), input_size=(in_chans, side, side), min_input_size=least,
        mean=mean, std=std, crop_pct=0.875 if side == 224 else 1.0,
    )  # fmt: skip
    return network.apply(he_normal)


attentionnext = partial(residual_attention, unit=resnext_unit, conv=conv_bn)
residual_attention_pytorchcv = partial(
    residual_attention,
    pool=max_pool_torch,
    module=partial(TrunkInMask, hourglass=partial(Hourglass, pool=max_pool_torch, skip=Doubled)),
)
residual_attention_cifar = partial(residual_attention, table=CIFAR, num_classes=10)
