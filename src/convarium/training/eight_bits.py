"""Training for int8: what convolutions and dense layers multiply is rounded to eight bits, and gradients pass as if it
were not (B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", CVPR 2018, Section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

TINY = 1e-12  # of a scale: for what is zero everywhere


class EightBits(TorchFunctionMode):
    """Within it products are those of an int8 file: weights signed, with a scale per output channel; maps unsigned,
    with one scale for the batch, which stands for the range that calibration finds.

    A batch norm that a file has folded into the weights changes nothing here: its gain goes into the channel's scale.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func in (F.conv2d, F.linear):
            maps, weight, *rest = args
            args = (rounded_map(maps), rounded_weight(weight), *rest)
        return func(*args, **(kwargs or {}))


def rounded_weight(weight: Tensor) -> Tensor:
    """To whole numbers from -127 to 127 times the scale of its first dimension's entry."""
    scale = weight.detach().abs().flatten(1).amax(1).clamp(min=TINY) / 127
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -127, 127)


def rounded_map(x: Tensor) -> Tensor:
    """To 256 levels between its least and its largest number, zero among them."""
    low, high = x.detach().amin().clamp(max=0), x.detach().amax().clamp(min=0)
    scale = ((high - low) / 255).clamp(min=TINY)
    zero = (-low / scale).round().to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 255)
