"""ResNet: K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, Tables 1 and 6.

Departs from the paper:

- ResNet-18 and 34 have projection shortcuts (option B, Table 3) as all public weights do; the paper's Table 2 pads with
  zeros (option A: 11,515,688 and 21,623,848 parameters);
- the 3x3 max pooling pads by one (as Torch and its heirs); the released Caffe files (``resnet50_caffe`` and deeper) pad
  nothing and round up: the same 56x56 map, shifted by one pixel;
- ``_cifar_b`` has projections, option B, as most public weights do;
- the classifier starts from torch's uniform default; the paper does not say how its own does;
- ``_v1_5`` is the later form (facebook/fb.resnet.torch, 2016) with the stride in the 3x3: same keys, another function.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from convarium.blocks import Residual, Slot, conv_bn, he_normal, max_pool_caffe, max_pool_torch, slot
from convarium.network import Head, Network

Branch = Callable[..., nn.Module]

# Table 1: width and blocks of each stage. Up to 34 layers a block is two 3x3 of that width, from 50 on a bottleneck.
TABLE_1 = {
    18: {"conv2_x": (64, 2), "conv3_x": (128, 2), "conv4_x": (256, 2), "conv5_x": (512, 2)},
    34: {"conv2_x": (64, 3), "conv3_x": (128, 4), "conv4_x": (256, 6), "conv5_x": (512, 3)},
    50: {"conv2_x": (64, 3), "conv3_x": (128, 4), "conv4_x": (256, 6), "conv5_x": (512, 3)},
    101: {"conv2_x": (64, 3), "conv3_x": (128, 4), "conv4_x": (256, 23), "conv5_x": (512, 3)},
    152: {"conv2_x": (64, 3), "conv3_x": (128, 8), "conv4_x": (256, 36), "conv5_x": (512, 3)},
}


def basic(in_chans: int, width: int, stride: int, conv: Slot) -> nn.Module:
    """Two 3x3 (Fig. 5, left)."""
    return nn.Sequential(conv(in_chans, width, 3, stride), conv(width, width, 3, act=None))


def bottleneck(in_chans: int, width: int, stride: int, conv: Slot) -> nn.Module:
    """1x1, 3x3, 1x1 of four times the width (Fig. 5, right); the stride is in the first 1x1."""
    return nn.Sequential(conv(in_chans, width, 1, stride), conv(width, width, 3), conv(width, 4 * width, 1, act=None))


def bottleneck_v1_5(in_chans: int, width: int, stride: int, conv: Slot) -> nn.Module:
    """The bottleneck with its stride in the 3x3."""
    return nn.Sequential(conv(in_chans, width, 1), conv(width, width, 3, stride), conv(width, 4 * width, 1, act=None))


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


def residual_stages(
    in_chans: int,
    rows: Mapping[str, tuple[int, int]],
    *,
    branch: Branch,
    expansion: int = 1,
    shortcut: Slot = projection,
    block: Slot = Residual,
    attention: Slot | None = None,
    conv: Slot = conv_bn,
    act: Slot = nn.ReLU,
) -> dict[str, nn.Module]:
    """A stage of ``blocks`` blocks of ``width * expansion`` channels for each row ``name: (width, blocks)`` of a table;
    all but the first halve the map."""
    stages: dict[str, nn.Module] = {}
    for name, (width, blocks) in rows.items():
        stage, out_chans = nn.Sequential(), width * expansion
        for i in range(blocks):
            stride = 2 if stages and i == 0 else 1
            ways = branch(in_chans, width, stride, conv), shortcut(in_chans, out_chans, stride, conv)
            stage.append(block(*ways, slot(attention, out_chans), act()))
            in_chans = out_chans
        stages[name] = stage
    return stages


def resnet(
    depth: int,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    attention: Slot | None = None,
    conv: Slot = conv_bn,
    act: Slot = nn.ReLU,
    shallow: Branch = basic,
    deep: Branch = bottleneck,
    block: Slot = Residual,
    pool: Slot = max_pool_torch,
) -> Network:
    """ResNet-18, 34, 50, 101 or 152 for 224x224 images (Table 1); ``shallow`` makes the branch of the first two,
    ``deep`` of the others."""
    branch, expansion = (shallow, 1) if depth < 50 else (deep, 4)
    parts: dict[str, Any] = dict(expansion=expansion, block=block, attention=attention, conv=conv, act=act)
    stages = {"conv1": conv(in_chans, 64, 7, 2), "pool1": pool(3, 2)}
    stages |= residual_stages(64, TABLE_1[depth], branch=branch, **parts)
    head = Head(512 * expansion, num_classes)
    return Network(stages, head, input_size=(in_chans, 224, 224), min_input_size=32).apply(he_normal)


plain_net = partial(resnet, block=plain)
resnet_v1_5 = partial(resnet, deep=bottleneck_v1_5)
resnet_caffe = partial(resnet, pool=max_pool_caffe)


def resnet_cifar(
    depth: int,
    *,
    num_classes: int = 10,
    in_chans: int = 3,
    attention: Slot | None = None,
    conv: Slot = conv_bn,
    act: Slot = nn.ReLU,
    block: Slot = Residual,
    shortcut: Slot = zero_pad,
) -> Network:
    """ResNet of 6n + 2 layers for 32x32 images, 20 to 1202, with parameter-free shortcuts (Section 4.2)."""
    n = (depth - 2) // 6
    parts: dict[str, Any] = dict(branch=basic, shortcut=shortcut, block=block, attention=attention, conv=conv, act=act)
    stages = {"conv1": conv(in_chans, 16, 3)}
    stages |= residual_stages(16, {"stage1": (16, n), "stage2": (32, n), "stage3": (64, n)}, **parts)
    head = Head(64, num_classes)
    return Network(stages, head, input_size=(in_chans, 32, 32), min_input_size=4, crop_pct=1.0).apply(he_normal)


resnet_cifar_b = partial(resnet_cifar, shortcut=projection)
plain_net_cifar = partial(resnet_cifar, block=plain)
