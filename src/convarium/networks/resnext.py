"""ResNeXt: S. Xie, R. Girshick, P. Dollar, Z. Tu, K. He, "Aggregated Residual Transformations for Deep Neural
Networks", CVPR 2017, Table 1 and Fig. 3: ResNet whose bottlenecks add up many narrow ones.

Departs from the paper:

- ``resnext29_8x64d_cifar`` has its release's blocks, with activations after the convolutions; its Section 5.3 takes
  pre-activated ones, and the release found its own better;
- ``resnext101_32x8d`` is later (Mahajan et al., ECCV 2018);
- the initialisation is its reference 13's, variance 2 / fan-out; the classifier starts from torch's uniform default.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, nn

from convarium.blocks import Slot, conv_bn, he_normal, max_pool_torch
from convarium.network import Head, Network
from convarium.networks.resnet import Branch, residual_stages, resnet


class Paths(nn.Module):
    """Paths side by side from one map; ``join`` makes one map of theirs."""

    def __init__(self, paths: Sequence[nn.Module], join: Callable[[list[Tensor]], Tensor]) -> None:
        super().__init__()
        self.paths = nn.ModuleList(paths)
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        return self.join([path(x) for path in self.paths])


add = partial(reduce, torch.add)
concatenate = partial(torch.cat, dim=1)


def split_transform_add(
    in_chans: int, width: int, stride: int, conv: Slot, *, cardinality: int, base_width: int
) -> nn.Sequential:
    """Fig. 3a: ``cardinality`` bottlenecks of ``base_width`` channels (at width 64), their sum normed (footnote 6)."""
    inner = width * base_width // 64
    ends: list[Any] = [conv(inner, 4 * width, 1, act=None) for _ in range(cardinality)]
    paths = [nn.Sequential(conv(in_chans, inner, 1), conv(inner, inner, 3, stride), end[0]) for end in ends]
    return nn.Sequential(Paths(paths, add), ends[0][1:])


def early_concatenation(
    in_chans: int, width: int, stride: int, conv: Slot, *, cardinality: int, base_width: int
) -> nn.Sequential:
    """Fig. 3b: the paths put together before one last 1x1."""
    inner = width * base_width // 64
    paths = [nn.Sequential(conv(in_chans, inner, 1), conv(inner, inner, 3, stride)) for _ in range(cardinality)]
    return nn.Sequential(Paths(paths, concatenate), conv(cardinality * inner, 4 * width, 1, act=None))


def grouped(in_chans: int, width: int, stride: int, conv: Slot, *, cardinality: int, base_width: int) -> nn.Sequential:
    """Fig. 3c: one bottleneck whose 3x3 has ``cardinality`` groups of ``base_width`` channels (at width 64)."""
    inner = cardinality * (width * base_width // 64)
    return nn.Sequential(
        conv(in_chans, inner, 1),
        conv(inner, inner, 3, stride, groups=cardinality),
        conv(inner, 4 * width, 1, act=None),
    )


def carry_over(source: Iterable[Any], target: Iterable[Any]) -> None:
    """Give the weights of a branch of Fig. 3c to one of Fig. 3a or b, which then computes the same function.

    Path i takes the i-th part of the channels inside; of the last 1x1, its columns (a), or that stays whole (b).
    """
    *inside, end = source
    joined, last = target
    paths = list(joined.paths)
    for i, path in enumerate(paths):
        for layer, whole in zip(path, inside, strict=False):
            state = whole.state_dict().items()  # a batch norm counts its batches in a scalar
            layer.load_state_dict({key: v.chunk(len(paths))[i] if v.ndim else v for key, v in state})
        if len(path) > len(inside):
            path[-1].load_state_dict({"weight": end[0].weight.chunk(len(paths), dim=1)[i]})
    last.load_state_dict((end if len(last) == len(end) else end[1:]).state_dict())


def resnext(
    depth: int,
    cardinality: int,
    base_width: int,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    attention: Slot | None = None,
    conv: Slot = conv_bn,
    act: Slot = nn.ReLU,
    form: Branch = grouped,
    pool: Slot = max_pool_torch,
) -> Network:
    """ResNeXt-50 or 101 (``cardinality`` x ``base_width`` d) for 224x224 images (Table 1)."""
    parts: dict[str, Any] = dict(attention=attention, conv=conv, act=act, pool=pool)
    deep = partial(form, cardinality=cardinality, base_width=base_width)
    return resnet(depth, num_classes=num_classes, in_chans=in_chans, deep=deep, **parts)


def resnext_cifar(
    depth: int,
    cardinality: int,
    base_width: int,
    *,
    num_classes: int = 10,
    in_chans: int = 3,
    attention: Slot | None = None,
    conv: Slot = conv_bn,
    act: Slot = nn.ReLU,
    form: Branch = grouped,
) -> Network:
    """ResNeXt of 9n + 2 layers for 32x32 images (Section 5.3)."""
    n = (depth - 2) // 9
    branch = partial(form, cardinality=cardinality, base_width=base_width)
    parts: dict[str, Any] = dict(branch=branch, expansion=4, attention=attention, conv=conv, act=act)
    stages = {"conv1": conv(in_chans, 64, 3)}
    stages |= residual_stages(64, {"stage1": (64, n), "stage2": (128, n), "stage3": (256, n)}, **parts)
    head = Head(1024, num_classes)
    return Network(stages, head, input_size=(in_chans, 32, 32), min_input_size=4, crop_pct=1.0).apply(he_normal)
