"""ResNet: K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, Tables 1 and 6.

Departs from the paper:

- ResNet-18 and 34 have projection shortcuts (option B, Table 3) as all public weights do; the paper's Table 2 pads with
  zeros (option A: 11,515,688 and 21,623,848 parameters);
- the 3x3 max pooling pads by one (as Torch and its heirs); the released Caffe files pad nothing and round up: the same
  56x56 map, shifted by one pixel;
- the classifier starts from torch's uniform default; the paper does not say how its own does;
- ``_v1_5`` is the later form (facebook/fb.resnet.torch, 2016) with the stride in the 3x3: same keys, another function.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from convarium.blocks import Residual, Slot, conv_bn, he_normal, max_pool_torch, slot
from convarium.network import Head, Network

Branch = Callable[..., nn.Module]

# Table 1: blocks in conv2_x, conv3_x, conv4_x, conv5_x; their widths; the branch and its expansion.
TABLE_1 = {
    18: ((2, 2, 2, 2), "basic"),
    34: ((3, 4, 6, 3), "basic"),
    50: ((3, 4, 6, 3), "bottleneck"),
    101: ((3, 4, 23, 3), "bottleneck"),
    152: ((3, 8, 36, 3), "bottleneck"),
}
WIDTHS = (64, 128, 256, 512)

# Section 4.2: 6n + 2 layers, n blocks per map size 32, 16, 8.
CIFAR_WIDTHS = (16, 32, 64)


def basic(in_chans: int, width: int, stride: int, conv: Slot) -> nn.Module:
    """Two 3x3 (Fig. 5, left)."""
    return nn.Sequential(conv(in_chans, width, 3, stride), conv(width, width, 3, act=None))


def bottleneck(in_chans: int, width: int, stride: int, conv: Slot) -> nn.Module:
    """1x1, 3x3, 1x1 of four times the width (Fig. 5, right); the stride is in the first 1x1."""
    return nn.Sequential(
        conv(in_chans, width, 1, stride),
        conv(width, width, 3),
        conv(width, 4 * width, 1, act=None),
    )


def bottleneck_v1_5(in_chans: int, width: int, stride: int, conv: Slot) -> nn.Module:
    """The bottleneck with its stride in the 3x3."""
    return nn.Sequential(
        conv(in_chans, width, 1),
        conv(width, width, 3, stride),
        conv(width, 4 * width, 1, act=None),
    )


def projection(in_chans: int, out_chans: int, stride: int, conv: Slot) -> nn.Module:
    """Option B: a 1x1 convolution where the shape changes, the identity elsewhere (Section 3.3)."""
    if in_chans == out_chans and stride == 1:
        return nn.Identity()
    return conv(in_chans, out_chans, 1, stride, act=None)


class ZeroPadShortcut(nn.Module):
    """Option A: every ``stride``-th pixel, then zeros for the new channels; no parameters, no MACs (Section 3.3).

    ``source[i]`` is the input channel that output channel i copies; ``in_chans`` stands for a channel of zeros. An
    index instead of a slice and a pad lets a pruner follow each channel through the shortcut.
    """

    def __init__(self, in_chans: int, out_chans: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.register_buffer("source", torch.arange(out_chans).clamp(max=in_chans))

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return torch.cat([x, torch.zeros_like(x[:, :1])], dim=1).index_select(1, self.get_buffer("source"))


def zero_pad(in_chans: int, out_chans: int, stride: int, conv: Slot) -> nn.Module:
    """Option A where the shape changes, the identity elsewhere."""
    if in_chans == out_chans and stride == 1:
        return nn.Identity()
    return ZeroPadShortcut(in_chans, out_chans, stride)


def plain(branch: nn.Module, shortcut: nn.Module, attention: nn.Module, act: nn.Module) -> nn.Sequential:
    """The block of the plain nets that residual nets are measured against: no shortcut (Fig. 3, middle)."""
    return nn.Sequential(OrderedDict(branch=branch, attention=attention, act=act))


def residual_stage(
    in_chans: int,
    width: int,
    blocks: int,
    stride: int,
    *,
    branch: Branch,
    expansion: int = 1,
    shortcut: Slot = projection,
    block: Slot = Residual,
    attention: Slot | None = None,
    conv: Slot = conv_bn,
    act: Slot = nn.ReLU,
) -> nn.Sequential:
    """``blocks`` blocks of ``width * expansion`` channels, the first with the stride."""
    out_chans = width * expansion
    stage = nn.Sequential()
    for i in range(blocks):
        first = i == 0
        source, step = (in_chans, stride) if first else (out_chans, 1)
        gate = slot(attention, out_chans)
        stage.append(block(branch(source, width, step, conv), shortcut(source, out_chans, step, conv), gate, act()))
    return stage


def resnet(
    depth: int,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    attention: Slot | None = None,
    conv: Slot = conv_bn,
    act: Slot = nn.ReLU,
    wide: Branch = bottleneck,
    block: Slot = Residual,
) -> Network:
    """ResNet-18, 34, 50, 101 or 152 for 224x224 images (Table 1); ``wide`` makes the branch of the last three."""
    blocks, kind = TABLE_1[depth]
    branch, expansion = (basic, 1) if kind == "basic" else (wide, 4)
    stages: dict[str, nn.Module] = {"conv1": conv(in_chans, 64, 7, 2), "pool1": max_pool_torch(3, 2)}
    chans = 64
    for i, (width, count) in enumerate(zip(WIDTHS, blocks, strict=True)):
        stages[f"conv{i + 2}_x"] = residual_stage(
            chans, width, count, 1 if i == 0 else 2,
            branch=branch, expansion=expansion, block=block, attention=attention, conv=conv, act=act,
        )  # fmt: skip
        chans = width * expansion
    head = Head(chans, num_classes)
    return Network(stages, head, input_size=(in_chans, 224, 224), min_input_size=32).apply(he_normal)


plain_net = partial(resnet, block=plain)
resnet_v1_5 = partial(resnet, wide=bottleneck_v1_5)


def resnet_cifar(
    depth: int,
    *,
    num_classes: int = 10,
    in_chans: int = 3,
    attention: Slot | None = None,
    conv: Slot = conv_bn,
    act: Slot = nn.ReLU,
    block: Slot = Residual,
) -> Network:
    """ResNet-20, 32, 44, 56, 110 for 32x32 images, with parameter-free shortcuts (Section 4.2)."""
    blocks = (depth - 2) // 6
    stages: dict[str, nn.Module] = {"conv1": conv(in_chans, 16, 3)}
    chans = 16
    for i, width in enumerate(CIFAR_WIDTHS):
        stages[f"stage{i + 1}"] = residual_stage(
            chans, width, blocks, 1 if i == 0 else 2,
            branch=basic, shortcut=zero_pad, block=block, attention=attention, conv=conv, act=act,
        )  # fmt: skip
        chans = width
    head = Head(chans, num_classes)
    return Network(stages, head, input_size=(in_chans, 32, 32), min_input_size=4, crop_pct=1.0).apply(he_normal)


plain_net_cifar = partial(resnet_cifar, block=plain)
