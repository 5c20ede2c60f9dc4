"""SENet: J. Hu, L. Shen, G. Sun, "Squeeze-and-Excitation Networks", CVPR 2018; journal form with S. Albanie and E. Wu,
TPAMI 2020, Table 1: SE-ResNet is ResNet with a gate at the end of every residual branch.

Departs from the paper:

- the two dense layers keep their biases, as in the released files; the journal form's ablations drop them;
- the CIFAR forms, whose stages of 16 channels leave one hidden unit at reduction 16, take ``max(1, C // 16)``.
"""

from functools import partial

from torch import Tensor, nn

from convarium.attention import TwiceSigmoid
from convarium.networks.resnet import resnet, resnet_cifar


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from all channels' means (Fig. 1, Eqs. 2-4); keeps ``(N, C, H, W)``."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.fc1 = nn.Linear(channels, hidden)
        self.act = nn.ReLU()
        self.fc2 = nn.Linear(hidden, channels)
        self.gate: nn.Module = nn.Sigmoid()

    def start_as_identity(self) -> None:
        """The gates become ``2 sigmoid(...)`` of 0: one for every channel."""
        nn.init.zeros_(self.fc2.weight)
        nn.init.zeros_(self.fc2.bias)
        self.gate = TwiceSigmoid()

    def forward(self, x: Tensor) -> Tensor:
        squeezed = x.mean((2, 3))
        excited = self.gate(self.fc2(self.act(self.fc1(squeezed))))
        return x * excited[:, :, None, None]


se_resnet = partial(resnet, attention=SqueezeExcite)
se_resnet_cifar = partial(resnet_cifar, attention=SqueezeExcite)
