"""Blocks that two papers or more share.

Three slots run through every network, each a function rather than a flag:

- ``conv(in, out, kernel, stride, padding=..., groups=..., act=...)`` makes a convolution with its norm and activation;
- ``act()`` makes an activation that stands alone, after an addition or before a convolution;
- ``attention(channels)`` makes a module at the end of a branch; a gate, a mask or a scale has this shape. An empty slot
  is an ``nn.Identity`` named ``attention``, so that a gate can be put there later.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Slot = Callable[..., nn.Module]
Pair = int | tuple[int, int]


# -- convolutions -----------------------------------------------------------------------------------------------


def conv_bn(
    in_chans: int,
    out_chans: int,
    kernel_size: Pair,
    stride: Pair = 1,
    *,
    padding: Pair | None = None,
    groups: int = 1,
    bias: bool | None = None,
    norm: Slot | None = nn.BatchNorm2d,
    act: Slot | None = nn.ReLU,
    make: Slot = nn.Conv2d,
) -> nn.Sequential:
    """A convolution, batch norm (none with ``norm=None``) and an activation (none with ``act=None``).

    Maps ``(N, in_chans, H, W)`` to ``(N, out_chans, ceil(H / stride), ceil(W / stride))`` for odd kernels: half the
    kernel is padded on every side unless ``padding`` says otherwise (0: the papers' "valid"). There is a bias only
    where no norm brings one, unless ``bias`` says otherwise. ``make`` makes the convolution alone.
    """
    height, width = kernel_size if isinstance(kernel_size, tuple) else (kernel_size, kernel_size)
    padding = (height // 2, width // 2) if padding is None else padding
    bias = norm is None if bias is None else bias
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=make(in_chans, out_chans, (height, width), stride, padding, groups=groups, bias=bias)
    )
    if norm is not None:
        layers["norm"] = norm(out_chans)
    if act is not None:
        layers["act"] = act()
    return nn.Sequential(layers)


def pad_same(x: Tensor, kernel: int, stride: int, value: float) -> Tensor:
    """TensorFlow's "same": what windows at every ``stride``-th pixel need, the odd one below and at the right."""
    lacking = [max(0, (-(-side // stride) - 1) * stride + kernel - side) for side in x.shape[2:]]
    top, left = (each // 2 for each in lacking)
    return F.pad(x, (left, lacking[1] - left, top, lacking[0] - top), value=value)


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding, whichever it is given: ``ceil(H / stride)``."""

    def __init__(
        self, in_chans: int, out_chans: int, kernel_size: Pair, stride: int, padding: Pair, **other: Any
    ) -> None:
        super().__init__(in_chans, out_chans, kernel_size, stride, 0, **other)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(pad_same(x, self.kernel_size[0], self.stride[0], 0.0))


# The convolution of the networks before batch norm: a bias, an activation.
conv_act = partial(conv_bn, norm=None)
# Google's: batch norm with TensorFlow's constant.
conv_bn_tensorflow = partial(conv_bn, norm=partial(nn.BatchNorm2d, eps=1e-3))
# The same with its padding, which is uneven where the stride is 2 and the map even.
conv_bn_same = partial(conv_bn_tensorflow, make=SameConv2d)


def separable(
    in_chans: int, out_chans: int, kernel_size: int, stride: int = 1, *, depthwise: Slot, pointwise: Slot
) -> nn.Sequential:
    """A depthwise separable convolution: one kernel per channel, then 1x1 (Chollet, CVPR 2017, Fig. 4; Howard et al.
    2017, Fig. 2). ``depthwise`` and ``pointwise`` are ``conv`` slots; whether a norm or an activation stands between
    the two is theirs to say, and the two papers differ."""
    return nn.Sequential(
        OrderedDict(
            depthwise=depthwise(in_chans, in_chans, kernel_size, stride, groups=in_chans),
            pointwise=pointwise(in_chans, out_chans, 1),
        )
    )


def im2col_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, padding: int = 0) -> Tensor:
    """Convolution as one matrix product: every window of ``(N, C, H, W)`` a column, every kernel of ``(O, C, k, k)`` a
    row (Chellapilla, Puri, Simard, IWFHR 2006). Equals ``F.conv2d``, to rounding; for those who want to see how."""
    kernel = tuple(weight.shape[2:])
    columns = F.unfold(x, kernel, stride=stride, padding=padding)  # (N, C k k, positions)
    rows = weight.flatten(1) @ columns
    if bias is not None:
        rows = rows + bias[:, None]
    height, width = ((side + 2 * padding - k) // stride + 1 for side, k in zip(x.shape[2:], kernel, strict=True))
    return rows.unflatten(2, (height, width))


# -- ways of joining --------------------------------------------------------------------------------------------


def slot(attention: Slot | None, channels: int) -> nn.Module:
    """What the attention slot makes for ``channels``; the identity when it is empty."""
    return attention(channels) if attention else nn.Identity()


class Residual(nn.Module):
    """``act(shortcut(x) + attention(branch(x)))`` (He et al., CVPR 2016, Fig. 2; the gate as in SENet, Fig. 3)."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module, attention: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.attention = attention
        self.shortcut = shortcut
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.shortcut(x) + self.attention(self.branch(x)))


class Concat(nn.Module):
    """``attention`` of the branches' maps, put together along the channels (Szegedy et al., CVPR 2015, Fig. 2).

    Without ``attention`` it has no slot: inside a branch, for one.
    """

    def __init__(self, branches: Mapping[str, nn.Module], attention: nn.Module | None = None) -> None:
        super().__init__()
        self.branches = nn.ModuleDict(branches)
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([branch(x) for branch in self.branches.values()], dim=1)
        return x if self.attention is None else self.attention(x)


def gated(layer: nn.Module, attention: Slot | None, channels: int) -> nn.Sequential:
    """A layer of a plain chain with the attention slot at its end, for the ``channels`` it gives."""
    parts = layer.named_children() if isinstance(layer, nn.Sequential) else [("layer", layer)]
    return nn.Sequential(OrderedDict(parts, attention=slot(attention, channels)))


# -- pooling: three conventions ---------------------------------------------------------------------------------
#
# A 3x3 window of stride 2 maps 112 pixels to 56 in each of them, and looks at other pixels in each.


def max_pool_caffe(kernel_size: int, stride: int) -> nn.Module:
    """Caffe's and cuda-convnet's: no padding, and a last window that hangs over the edge: ``ceil((H - k) / s) + 1``."""
    return nn.MaxPool2d(kernel_size, stride, ceil_mode=True)


def avg_pool_caffe(kernel_size: int, stride: int) -> nn.Module:
    """The same by the mean; a window that hangs over the edge is divided by what lies inside."""
    return nn.AvgPool2d(kernel_size, stride, ceil_mode=True)


def max_pool_torch(kernel_size: int, stride: int) -> nn.Module:
    """Torch's: half the kernel padded on every side, rounded down: ``floor((H + 2 (k // 2) - k) / s) + 1``."""
    return nn.MaxPool2d(kernel_size, stride, padding=kernel_size // 2)


class _SameMaxPool(nn.Module):
    def __init__(self, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(pad_same(x, self.kernel_size, self.stride, float("-inf")), self.kernel_size, self.stride)

    def extra_repr(self) -> str:
        return f"{self.kernel_size}, stride={self.stride}"


def max_pool_same(kernel_size: int, stride: int) -> nn.Module:
    """TensorFlow's "same": ``ceil(H / s)``, what is lacking padded, the odd pixel at the bottom and the right."""
    return _SameMaxPool(kernel_size, stride)


def avg_pool_same(kernel_size: int, *, count_padding: bool = False) -> nn.Module:
    """The mean over each window of stride 1, of what lies inside the map (TensorFlow) or with zeros around (Caffe)."""
    return nn.AvgPool2d(kernel_size, 1, kernel_size // 2, count_include_pad=count_padding)


# -- normalisation before batch norm ----------------------------------------------------------------------------


def lrn(size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> nn.Module:
    """Local response normalisation across ``size`` channels (Krizhevsky et al., NIPS 2012, Section 3.3).

    ``x / (k + alpha / size * sum of squares) ** beta``: alpha is divided by ``size``, as torch, Caffe and the authors'
    own cuda-convnet do; the formula printed in the paper does not divide. The paper has k = 2, Caffe k = 1.
    """
    return nn.LocalResponseNorm(size, alpha, beta, k)


# -- initialisation: functions for ``Module.apply`` --------------------------------------------------------------


def he_normal(module: nn.Module) -> None:
    """Convolutions normal with variance 2 / fan-out, for rectifiers (He et al., ICCV 2015, Section 2.2)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def glorot_uniform(module: nn.Module) -> None:
    """Uniform in +-sqrt(6 / (fan-in + fan-out)), biases 0 (Glorot and Bengio, AISTATS 2010, Eq. 16)."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def gaussian(std: float) -> Callable[[nn.Module], None]:
    """Weights normal with mean 0 and deviation ``std``, biases 0."""
    return partial(_draw, draw=partial(nn.init.normal_, std=std))


def truncated_normal(std: float) -> Callable[[nn.Module], None]:
    """The same, cut at two deviations, as TensorFlow's."""
    return partial(_draw, draw=partial(nn.init.trunc_normal_, std=std, a=-2 * std, b=2 * std))


def _draw(module: nn.Module, draw: Callable[[Tensor], Tensor]) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        draw(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
