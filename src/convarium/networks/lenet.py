"""LeNet-5: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document Recognition",
Proc. IEEE 86(11), 1998, Section II-B, Fig. 2, Table I; ``lenet5_modern`` is the form that later textbooks teach.

Departs from the paper:

- training is ours (the paper's stochastic diagonal Levenberg-Marquardt is not here); cross entropy on these logits is
  the paper's MAP criterion (its Eq. 9) without the constant that keeps the penalties of all classes bounded;
- the codes are read off Fig. 3 of the paper as printed in public transcriptions, not off a scan;
- classes other than ten digits get seeded random codes of -1 and +1, since the paper draws only characters;
- MACs count the 60 kernels of C3 as connected in Table I, F6, and one multiply-add per code element; sub-sampling none.
"""

import random
from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convarium.blocks import Slot, conv_act, gated
from convarium.network import Head, Network

# Table I: the S2 maps that each of the sixteen C3 maps reads.
C3_TABLE = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip

# Fig. 3: the digits 0 to 9 as 7x12 bitmaps, drawn side by side.
DIGIT_BITMAPS = """
    .#####. ...##.. .#####. ####### .#####. .#####. ..####. ####### .#####. .#####.
    ....... ..###.. ....... .....## ....... ....... .##.... .....## ##...## ##..###
    ..###.. .####.. .#####. ....##. ....... ####### ##..... .....## ##...## ##...##
    .##.##. ...##.. ##...## ...##.. .##..## ##..... ##..... ....##. ##...## ##...##
    ##...## ...##.. #....## ..####. .##..## ##..... ######. ...##.. .#####. ##..###
    ##...## ...##.. ....##. .....## ###..## .####.. ###..## ...##.. ##...## .######
    ##...## ...##.. ..###.. .....## ##...## ..####. ##...## ..##... ##...## .....##
    ##...## ...##.. .##.... .....## ##...## .....## ##...## ..##... ##...## .....##
    .##.##. ...##.. ##..... ##...## ##..### ##...## ###..## ..##... ##...## ....##.
    ..###.. .###### ####### .#####. .###### .#####. .#####. ..##... .#####. .####..
    ....... ....... ....... ....... .....## ....... ....... ....... ....... .......
    ....... ....... ....... ....... .....## ....... ....... ....... ....... .......
"""


class ScaledTanh(nn.Module):
    """``A tanh(S x)`` with A = 1.7159 and S = 2/3, so that f(1) = 1 and f(-1) = -1 (Appendix A)."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(2 / 3 * x)


class Subsampling(nn.Module):
    """The sum of each 2x2 square, times one trainable coefficient per map, plus a bias (S2 and S4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        total = 4 * F.avg_pool2d(x, 2)
        return total * self.coefficient[:, None, None] + self.bias[:, None, None]


class TableConvolution(nn.Module):
    """One 5x5 convolution per output map, each over the input maps that the table lists for it (C3)."""

    def __init__(self, table: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(len(maps), 1, 5) for maps in table)
        for i, maps in enumerate(table):  # not weights: they keep their numbers on the meta device
            self.register_buffer(f"maps{i}", torch.tensor(maps, device="cpu"))

    def forward(self, x: Tensor) -> Tensor:
        gathered = (x.index_select(1, self.get_buffer(f"maps{i}")) for i in range(len(self.convs)))
        pairs = zip(self.convs, gathered, strict=True)
        return torch.cat([conv(maps) for conv, maps in pairs if isinstance(conv, nn.Conv2d)], dim=1)  # not pruned away


class RBF(nn.Module):
    """Minus the squared distance from ``(N, features)`` to each class's code of -1 and +1 (Eq. 7): the logits."""

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("codes", _codes(features, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        codes = self.get_buffer("codes")
        # |x - w|^2 = |x|^2 - 2 w.x + |w|^2, with one multiply-add per code element.
        return 2 * F.linear(x, codes) - x.square().sum(1, keepdim=True) - codes.square().sum(1)


def _codes(features: int, num_classes: int) -> Tensor:
    if (features, num_classes) == (84, 10):
        digits = zip(*(line.split() for line in DIGIT_BITMAPS.split("\n") if line.strip()), strict=True)
        return torch.tensor([[1.0 if dot == "#" else -1.0 for dot in "".join(rows)] for rows in digits])
    draw = random.Random(1998)
    return torch.tensor([[draw.choice((-1.0, 1.0)) for _ in range(features)] for _ in range(num_classes)])


def _lecun_uniform(module: nn.Module) -> None:
    """Weights and biases uniform in +-2.4 / fan-in (Section II-B)."""
    if isinstance(module, nn.Conv2d | nn.Linear | Subsampling):
        fan_in = 4 if isinstance(module, Subsampling) else module.weight[0].numel()
        for parameter in module.parameters():
            nn.init.uniform_(parameter, -2.4 / fan_in, 2.4 / fan_in)


def lenet5(
    *,
    num_classes: int = 10,
    in_chans: int = 1,
    attention: Slot | None = None,
    conv: Slot = conv_act,
    act: Slot = ScaledTanh,
) -> Network:
    """LeNet-5 as published: 60,000 trainable parameters for one channel and ten digits."""
    stages = {
        "C1": gated(conv(in_chans, 6, 5, padding=0, act=act), attention, 6),
        "S2": nn.Sequential(OrderedDict(pool=Subsampling(6), act=act())),
        "C3": gated(nn.Sequential(OrderedDict(conv=TableConvolution(C3_TABLE), act=act())), attention, 16),
        "S4": nn.Sequential(OrderedDict(pool=Subsampling(16), act=act())),
        "C5": gated(conv(16, 120, 5, padding=0, act=act), attention, 120),
    }
    return _network(stages, num_classes, in_chans, act, RBF).apply(_lecun_uniform)


def lenet5_modern(
    *,
    num_classes: int = 10,
    in_chans: int = 1,
    attention: Slot | None = None,
    conv: Slot = conv_act,
    act: Slot = nn.ReLU,
) -> Network:
    """The same widths with rectifiers, max pooling, a fully connected C3 and a linear classifier: 61,706 parameters."""
    stages = {
        "C1": gated(conv(in_chans, 6, 5, padding=0, act=act), attention, 6),
        "S2": nn.MaxPool2d(2),
        "C3": gated(conv(6, 16, 5, padding=0, act=act), attention, 16),
        "S4": nn.MaxPool2d(2),
        "C5": gated(conv(16, 120, 5, padding=0, act=act), attention, 120),
    }
    return _network(stages, num_classes, in_chans, act, nn.Linear)


def _network(stages: Mapping[str, nn.Module], num_classes: int, in_chans: int, act: Slot, classifier: Slot) -> Network:
    f6 = nn.Sequential(OrderedDict(fc=nn.Linear(120, 84), act=act()))
    head = Head(120, num_classes, pool="flatten", hidden={"F6": f6}, hidden_size=84, classifier=classifier)
    # White becomes -0.1 and ink 1.175, for a mean near 0 and a variance near 1 (Section II-B).
    mean, std = [0.1 / 1.275] * in_chans, [1 / 1.275] * in_chans
    size = (in_chans, 32, 32)
    return Network(stages, head, input_size=size, min_input_size=32, mean=mean, std=std, crop_pct=1.0)
