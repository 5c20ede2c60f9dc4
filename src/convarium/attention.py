"""Attention for any network's slot: where to look (a mask over places) and how much (a scale).

The gate over channels is SENet's own, ``networks/senet.py``. Each class here maps ``(N, C, H, W)`` to the same shape
and is made from a channel count. A gate or a mask can ``start_as_identity``: put into a trained network, it then
changes nothing until it is trained.
"""

import torch
from torch import Tensor, nn


class TwiceSigmoid(nn.Module):
    """``2 sigmoid(x)``: one where ``x`` is 0."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * torch.sigmoid(x)


class SpatialMask(nn.Module):
    """Soft attention over places: ``x`` times a mask in (0, 1) that all channels share, ``sigmoid(1x1 conv)``
    (Xu et al., ICML 2015, in its deterministic form; the mask of one 1x1 as in Wang et al., CVPR 2017, Section 3.2).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(channels, 1, 1)
        self.gate: nn.Module = nn.Sigmoid()

    def start_as_identity(self) -> None:
        """The mask becomes ``2 sigmoid(score)`` with a score of 0: one everywhere."""
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)  # type: ignore[arg-type]
        self.gate = TwiceSigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.score(x))


class HardMask(nn.Module):
    """Hard attention over places: each kept (1) or dropped (0) for all channels by the sign of a 1x1 convolution.

    The step has no gradient; the backward pass takes that of the sigmoid (the straight-through estimator of Bengio,
    Leonard, Courville 2013). The score starts near one half above 0, so that most places are kept at first.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(channels, 1, 1)
        nn.init.constant_(self.score.bias, 0.5)  # type: ignore[arg-type]

    def start_as_identity(self) -> None:
        """Every place is kept."""
        nn.init.zeros_(self.score.weight)
        nn.init.constant_(self.score.bias, 0.5)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        soft = torch.sigmoid(self.score(x))
        hard = (soft > 0.5).to(soft)
        return x * (hard + (soft - soft.detach()))  # exactly 0 or 1; the gradient is the sigmoid's


class ResidualScale(nn.Module):
    """``x`` times a constant, 0.1 to 0.3, before the addition (Szegedy et al., AAAI 2017, Section 3.3, Fig. 20)."""

    def __init__(self, channels: int, scale: float = 0.2) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale

    def extra_repr(self) -> str:
        return str(self.scale)
