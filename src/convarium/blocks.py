"""Blocks that two papers or more share.

Three slots run through every network, each a function rather than a flag:

- ``conv(in, out, kernel, stride, ...)`` makes a convolution with its norm and activation;
- ``act()`` makes an activation that stands alone, after an addition or before a convolution;
- ``attention(channels)`` makes a module at the end of a branch; a gate, a mask or a scale has this shape.
"""

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn

Slot = Callable[..., nn.Module]


def conv_bn(
    in_chans: int,
    out_chans: int,
    kernel_size: int,
    stride: int = 1,
    *,
    groups: int = 1,
    norm: Slot = nn.BatchNorm2d,
    act: Slot | None = nn.ReLU,
) -> nn.Sequential:
    """A convolution that keeps the size up to its stride, batch norm, and an activation unless ``act=None``.

    Maps ``(N, in_chans, H, W)`` to ``(N, out_chans, ceil(H / stride), ceil(W / stride))`` for odd kernels. No bias:
    the norm has one.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(in_chans, out_chans, kernel_size, stride, kernel_size // 2, groups=groups, bias=False),
        norm=norm(out_chans),
    )
    if act is not None:
        layers["act"] = act()
    return nn.Sequential(layers)


class Residual(nn.Module):
    """``act(shortcut(x) + attention(branch(x)))`` (He et al., CVPR 2016, Fig. 2; the gate as in SENet, Fig. 3)."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module, attention: nn.Module | None, act: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.attention = attention or nn.Identity()
        self.shortcut = shortcut
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.shortcut(x) + self.attention(self.branch(x)))


def he_normal(module: nn.Module) -> None:
    """Normal initialisation for rectifiers: variance 2 / fan-out (He et al., ICCV 2015, Section 2.2)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
