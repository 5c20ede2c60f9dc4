"""Pre-activation ResNet: K. He, X. Zhang, S. Ren, J. Sun, "Identity Mappings in Deep Residual Networks", ECCV 2016,
Figs. 4 and 5, Table 2 and the appendix.

Departs from the paper:

- on ImageNet the stride of a stage is in the 3x3, as in the published ResNet-200 (fb.resnet.torch); the paper refers to
  its Caffe code, where it is in the first 1x1. In the bottlenecks on CIFAR it is in the first 1x1, as in its release;
- a projection has a norm of its own only where its branch ends in one, so that Fig. 4a is ResNet, and Fig. 4e both
  releases; zero-padded shortcuts (ResNet-110) take the map as it is, the paper speaking of projections only;
- ``_timm`` pools before the first norm and activation, as timm does: another function where a gain is negative;
- ``_keras`` is Keras' form: a stage's last unit halves the map, with a pooling as its shortcut, and convolutions that
  no norm follows have biases; ``_pytorchcv`` norms twice before its first unit, before the pooling and after it, and
  has the stride in the 3x3 on CIFAR too;
- the initialisation is its reference 23's, variance 2 / fan-out; the classifier starts from torch's uniform default.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from convarium.blocks import Pair, Residual, Slot, conv_act, he_normal, max_pool_torch, slot
from convarium.network import Head, Network
from convarium.networks.resnet import TABLE_1, projection, zero_pad

DEPTHS = TABLE_1 | {
    200: {"conv2_x": (64, 3), "conv3_x": (128, 24), "conv4_x": (256, 36), "conv5_x": (512, 3)},
}

# The convolutions of a unit (appendix): kernel, channels over the stage's width, whether it takes the stride.
Convolutions = tuple[tuple[int, int, bool], ...]
Strides = Callable[[int, int, int], list[int]]
Stem = Callable[[int, Slot, Slot], dict[str, nn.Module]]
BASIC: Convolutions = ((3, 1, True), (3, 1, False))
BOTTLENECK: Convolutions = ((1, 1, True), (3, 1, False), (1, 4, False))
BOTTLENECK_3X3: Convolutions = ((1, 1, False), (3, 1, True), (1, 4, False))


def preact_conv(
    in_chans: int,
    out_chans: int | None,
    kernel_size: Pair = 1,
    stride: Pair = 1,
    *,
    padding: Pair | None = None,
    groups: int = 1,
    bias: bool = False,
    norm: Slot | None = nn.BatchNorm2d,
    act: Slot | None = nn.ReLU,
) -> nn.Sequential:
    """Batch norm (none with ``norm=None``), an activation (none with ``act=None``), then a convolution (none with
    ``out_chans=None``): ``conv_bn`` turned round. Half the kernel is padded unless ``padding`` says otherwise."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if norm is not None:
        layers["norm"] = norm(in_chans)
    if act is not None:
        layers["act"] = act()
    if out_chans is not None:
        convolution = conv_act(in_chans, out_chans, kernel_size, stride, padding=padding, groups=groups, bias=bias)
        layers["conv"] = convolution[0]
    return nn.Sequential(layers)


def _without(parts: str) -> dict[str, None]:
    """What switches off, in the ``conv`` slot, the norm and the activation that ``parts`` does not name."""
    return {part: None for part in ("norm", "act") if part not in parts}


def unit(
    in_chans: int,
    width: int,
    stride: int,
    *,
    convolutions: Convolutions,
    shortcut: Slot,
    before: str = "",
    after: str = "",
    added: str = "",
    first: bool = False,
    last: bool = False,
    bias: bool = False,
    attention: Slot | None = None,
    conv: Slot = preact_conv,
    act: Slot = nn.ReLU,
) -> nn.Module:
    """A residual unit, ``(N, in_chans, H, W)`` to ``(N, width * m, H / stride, W / stride)`` (Fig. 4).

    Between its convolutions stand norm and activation; ``before``, ``after`` and ``added`` name what stands before the
    first, after the last, and after the addition. ``first`` and ``last`` say which unit of the network it is: what
    stands before the first already follows conv1, and what would stand before a next one follows the last (appendix).
    With ``bias``, its last convolution and a projection have one.
    """
    out_chans = width * convolutions[-1][1]
    before, added = "" if first else before, added + (before if last else "")

    def alone(parts: str, chans: int) -> nn.Module:
        return conv(chans, None, **{"act": act, **_without(parts)}) if parts else nn.Identity()

    biased = partial(conv, bias=True) if bias else conv
    bypass = shortcut(in_chans, out_chans, stride, partial(biased, norm=None))
    projects = next(bypass.parameters(), None) is not None
    if projects and "norm" in after:
        bypass = nn.Sequential(bypass, alone("norm", out_chans))
    branch, chans = nn.Sequential(), in_chans
    for i, (kernel, multiple, strided) in enumerate(convolutions):
        parts = "norm act" if i else "" if projects else before
        make = conv if i < len(convolutions) - 1 else biased
        branch.append(make(chans, width * multiple, kernel, stride if strided else 1, **_without(parts)))
        chans = width * multiple
    if after:
        branch.append(alone(after, out_chans))
    residual = Residual(branch, bypass, slot(attention, out_chans), alone(added, out_chans))
    if not (projects and before):
        return residual
    # A projection starts from the activated map, as its branch does; an identity from the map as it is.
    return nn.Sequential(OrderedDict(preactivation=alone(before, in_chans), residual=residual))


# Fig. 4: the same parts in five orders.
original = partial(unit, after="norm", added="act")
bn_after_addition = partial(unit, added="norm act")
relu_before_addition = partial(unit, after="norm act")
relu_only_preactivation = partial(unit, before="act", after="norm")
full_preactivation = partial(unit, before="norm act")


def halved_first(stage: int, stages: int, units: int) -> list[int]:
    """The strides of a stage's units: all stages but the first halve the map, in their first unit."""
    return [2 if stage else 1] + [1] * (units - 1)


def halved_last(stage: int, stages: int, units: int) -> list[int]:
    """All stages but the last halve the map, in their last unit, as in TF-Slim and Keras."""
    return [1] * (units - 1) + [2 if stage < stages - 1 else 1]


def pooled(in_chans: int, out_chans: int, stride: int, conv: Slot) -> nn.Module:
    """Every ``stride``-th pixel where the channels stay the same, else a projection."""
    if in_chans == out_chans and stride > 1:
        return nn.MaxPool2d(1, stride)
    return projection(in_chans, out_chans, stride, conv)


def _stages(
    in_chans: int, rows: Mapping[str, tuple[int, int]], unit: Slot, strides: Strides = halved_first, **parts: Any
) -> dict[str, nn.Module]:
    """The units of a table ``name: (width, units)``, with the ``strides`` of each stage."""
    stages: dict[str, nn.Module] = {}
    for name, (width, count) in rows.items():
        stage = nn.Sequential()
        for i, stride in enumerate(strides(len(stages), len(rows), count)):
            first, last = not stages and i == 0, len(stages) == len(rows) - 1 and i == count - 1
            stage.append(unit(in_chans, width, stride, first=first, last=last, **parts))
            in_chans = width * parts["convolutions"][-1][1]
        stages[name] = stage
    return stages


def _conv1(in_chans: int, out_chans: int, kernel: int, stride: int, conv: Slot, act: Slot) -> nn.Sequential:
    """A convolution alone, then the first unit's norm and activation, before its ways part (appendix)."""
    convolution = conv(in_chans, out_chans, kernel, stride, norm=None, act=None)
    return nn.Sequential(OrderedDict(convolution=convolution, preactivation=conv(out_chans, None, act=act)))


def stem(in_chans: int, conv: Slot, act: Slot) -> dict[str, nn.Module]:
    """7x7/2, the first norm and activation, then the pooling."""
    return {"conv1": _conv1(in_chans, 64, 7, 2, conv, act), "pool1": max_pool_torch(3, 2)}


def stem_timm(in_chans: int, conv: Slot, act: Slot, pool: Slot = max_pool_torch) -> dict[str, nn.Module]:
    """7x7/2, the pooling, then the first norm and activation."""
    convolution, preactivation = _conv1(in_chans, 64, 7, 2, conv, act)
    return {
        "conv1": convolution,
        "pool1": nn.Sequential(OrderedDict(pool=pool(3, 2), preactivation=preactivation)),
    }


def max_pool_of_zeros(kernel_size: int, stride: int) -> nn.Module:
    """Half the kernel padded with zeros, which count where the map has negative values."""
    return nn.Sequential(nn.ZeroPad2d(kernel_size // 2), nn.MaxPool2d(kernel_size, stride))


def stem_keras(in_chans: int, conv: Slot, act: Slot) -> dict[str, nn.Module]:
    """The same with a bias, and a border of zeros around the map that is pooled."""
    return stem_timm(in_chans, partial(conv, bias=True), act, max_pool_of_zeros)


def stem_pytorchcv(in_chans: int, conv: Slot, act: Slot) -> dict[str, nn.Module]:
    """7x7/2, norm and activation, the pooling, norm and activation again."""
    pool = OrderedDict(pool=max_pool_torch(3, 2), preactivation=conv(64, None, act=act))
    return stem(in_chans, conv, act) | {"pool1": nn.Sequential(pool)}


def preact_resnet(
    depth: int,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    attention: Slot | None = None,
    conv: Slot = preact_conv,
    act: Slot = nn.ReLU,
    unit: Slot = full_preactivation,
    convolutions: Convolutions = BOTTLENECK_3X3,
    stem: Stem = stem,
    shortcut: Slot = projection,
    strides: Strides = halved_first,
) -> Network:
    """Pre-activation ResNet-50, 101, 152 or 200 for 224x224 images (Section 5)."""
    stages = stem(in_chans, conv, act)
    parts = dict(convolutions=convolutions, shortcut=shortcut, attention=attention, conv=conv, act=act)
    stages |= _stages(64, DEPTHS[depth], unit, strides, **parts)
    head = Head(512 * convolutions[-1][1], num_classes)
    return Network(stages, head, input_size=(in_chans, 224, 224), min_input_size=32).apply(he_normal)


preact_resnet_timm = partial(preact_resnet, stem=stem_timm)
preact_resnet_pytorchcv = partial(preact_resnet, stem=stem_pytorchcv)
preact_resnet_keras = partial(
    preact_resnet, stem=stem_keras, unit=partial(full_preactivation, bias=True), shortcut=pooled, strides=halved_last
)


def preact_resnet_cifar(
    depth: int,
    *,
    num_classes: int = 10,
    in_chans: int = 3,
    attention: Slot | None = None,
    conv: Slot = preact_conv,
    act: Slot = nn.ReLU,
    unit: Slot = full_preactivation,
    convolutions: Convolutions = BASIC,
    shortcut: Slot = zero_pad,
) -> Network:
    """Pre-activation ResNet for 32x32 images, ``unit`` in the same number on each of three map sizes (Section 4.1)."""
    n = (depth - 2) // (3 * len(convolutions))
    rows = {"stage1": (16, n), "stage2": (32, n), "stage3": (64, n)}
    parts: dict[str, Any] = dict(convolutions=convolutions, shortcut=shortcut, attention=attention, conv=conv, act=act)
    stages = {"conv1": _conv1(in_chans, 16, 3, 1, conv, act)} | _stages(16, rows, unit, **parts)
    head = Head(64 * convolutions[-1][1], num_classes)
    return Network(stages, head, input_size=(in_chans, 32, 32), min_input_size=4, crop_pct=1.0).apply(he_normal)


preact_bottleneck_cifar = partial(preact_resnet_cifar, convolutions=BOTTLENECK, shortcut=projection)
preact_bottleneck_cifar_pytorchcv = partial(preact_bottleneck_cifar, convolutions=BOTTLENECK_3X3)
