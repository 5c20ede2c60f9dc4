"""Inception-v2 and v3: C. Szegedy, V. Vanhoucke, S. Ioffe, J. Shlens, Z. Wojna, "Rethinking the Inception Architecture
for Computer Vision", CVPR 2016, Table 1, Figs. 5, 6, 7 and 10.

Departs from the paper:

- the widths in its modules are unpublished (Section 6 leaves them to a file beside the preprint). Those of
  ``inception_v2`` below are assumptions: v3's where v3 has that module, else such that the maps are as deep as Table 1
  says. Table 1 marks one convolution as padded; its sizes need a second one, the last before the modules;
- ``inception_v3`` is the network of the authors' release, with the stage names of TF-Slim. Against Table 1: a 1x1, a
  3x3 and a pooling for the last plain convolutions, 5x5 in the modules of Fig. 5, four modules of Fig. 6 and not five,
  other branches in the reductions;
- averages leave out the padding, as in TensorFlow;
- ``inception_v3_tv`` is torchvision's form, and timm's: its averages count the padding;
- initialisation and 20 % dropout are those of the authors' release, and the 0.3 of the auxiliary loss is GoogLeNet's:
  the paper gives none of them.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from torch import nn

from convarium.blocks import Concat, Slot, avg_pool_same, conv_act, conv_bn_tensorflow, slot, truncated_normal
from convarium.network import INCEPTION_MEAN, INCEPTION_STD, Auxiliary, Head, Network, Shape

# What each branch of a module does, from the bottom up: kernels, or one of these words.
MEAN, MAXIMUM = "3x3 mean", "3x3/2 maximum"
HALVE = "3x3/2 convolution, valid"
SPLIT = "1x3 and 3x1 of the same map"
Figure = Sequence[Sequence[int | tuple[int, int] | str]]
FIG_5: Figure = ((1,), (1, 3), (1, 3, 3), (MEAN, 1))
FIG_5_WITH_5X5: Figure = ((1,), (1, 5), (1, 3, 3), (MEAN, 1))
FIG_6: Figure = ((1,), (1, (1, 7), (7, 1)), (1, (7, 1), (1, 7), (7, 1), (1, 7)), (MEAN, 1))
FIG_7: Figure = ((1,), (1, SPLIT), (1, 3, SPLIT), (MEAN, 1))
FIG_10: Figure = ((1, HALVE), (1, 3, HALVE), (MAXIMUM,))
REDUCTION_6A: Figure = ((HALVE,), (1, 3, HALVE), (MAXIMUM,))
REDUCTION_7A: Figure = ((1, HALVE), (1, (1, 7), (7, 1), HALVE), (MAXIMUM,))

# The authors' initialisation is for RMSProp, whose steps are as long whatever the gradient. Over all weights its
# variance is six times He's, and the larger a weight before batch norm, the less a step of SGD turns it.
STEP_SCALE = 6.0

# Plain convolutions: channels, kernel, stride, padding; None: a 3x3/2 maximum.
Stem = Mapping[str, tuple[int, int, int, int] | None]
# Modules of a stage, their figure, and the channels after each convolution of each branch.
Modules = Mapping[str, tuple[int, Figure, Sequence[Sequence[int]]]]

TABLE_1: Stem = {
    "conv1": (32, 3, 2, 0),
    "conv2": (32, 3, 1, 0),
    "conv3": (64, 3, 1, 1),
    "pool": None,
    "conv4": (80, 3, 1, 0),
    "conv5": (192, 3, 2, 0),
    "conv6": (288, 3, 1, 1),
}
TABLE_1_MODULES: Modules = {
    "inception_fig5": (3, FIG_5, ((64,), (48, 64), (64, 96, 96), (64,))),
    "reduction1": (1, FIG_10, ((128, 384), (64, 96, 96), ())),
    "inception_fig6": (5, FIG_6, ((192,), (128, 128, 192), (128, 128, 128, 128, 192), (192,))),
    "reduction2": (1, FIG_10, ((192, 320), (192, 192, 192), ())),
    "inception_fig7": (2, FIG_7, ((320,), (384, 384), (448, 384, 384), (192,))),
}
V3: Stem = {
    "Conv2d_1a_3x3": (32, 3, 2, 0),
    "Conv2d_2a_3x3": (32, 3, 1, 0),
    "Conv2d_2b_3x3": (64, 3, 1, 1),
    "MaxPool_3a_3x3": None,
    "Conv2d_3b_1x1": (80, 1, 1, 0),
    "Conv2d_4a_3x3": (192, 3, 1, 0),
    "MaxPool_5a_3x3": None,
}
V3_MODULES: Modules = {
    "Mixed_5b": (1, FIG_5_WITH_5X5, ((64,), (48, 64), (64, 96, 96), (32,))),
    "Mixed_5c": (1, FIG_5_WITH_5X5, ((64,), (48, 64), (64, 96, 96), (64,))),
    "Mixed_5d": (1, FIG_5_WITH_5X5, ((64,), (48, 64), (64, 96, 96), (64,))),
    "Mixed_6a": (1, REDUCTION_6A, ((384,), (64, 96, 96), ())),
    "Mixed_6b": (1, FIG_6, ((192,), (128, 128, 192), (128, 128, 128, 128, 192), (192,))),
    "Mixed_6c": (1, FIG_6, ((192,), (160, 160, 192), (160, 160, 160, 160, 192), (192,))),
    "Mixed_6d": (1, FIG_6, ((192,), (160, 160, 192), (160, 160, 160, 160, 192), (192,))),
    "Mixed_6e": (1, FIG_6, ((192,), (192, 192, 192), (192, 192, 192, 192, 192), (192,))),
    "Mixed_7a": (1, REDUCTION_7A, ((192, 320), (192, 192, 192, 192), ())),
    "Mixed_7b": (1, FIG_7, ((320,), (384, 384), (448, 384, 384), (192,))),
    "Mixed_7c": (1, FIG_7, ((320,), (384, 384), (448, 384, 384), (192,))),
}


def tower(
    chans: int, kernels: Sequence[int | tuple[int, int] | str], widths: Sequence[int], conv: Slot, mean: Slot
) -> tuple[nn.Module, int]:
    """One branch, and the channels it gives."""
    layers, left = nn.Sequential(), iter(widths)
    for kernel in kernels:
        if kernel in (MEAN, MAXIMUM):
            layers.append(mean(3) if kernel == MEAN else nn.MaxPool2d(3, 2))
            continue
        width = next(left)
        if kernel == SPLIT:
            layers.append(Concat({"1x3": conv(chans, width, (1, 3)), "3x1": conv(chans, width, (3, 1))}))
        else:
            layers.append(conv(chans, width, 3, 2, padding=0) if kernel == HALVE else conv(chans, width, kernel))
        chans = 2 * width if kernel == SPLIT else width
    return layers, chans


def module(
    chans: int, figure: Figure, widths: Sequence[Sequence[int]], conv: Slot, mean: Slot, attention: Slot | None
) -> tuple[nn.Module, int]:
    """An Inception module or a reduction, and the channels it gives."""
    made = [tower(chans, *each, conv, mean) for each in zip(figure, widths, strict=True)]
    width = sum(out for _, out in made)
    return Concat({f"branch_{i}": branch for i, (branch, _) in enumerate(made)}, slot(attention, width)), width


def auxiliary_head(num_classes: int, map_: Shape, conv: Slot, dense: Slot) -> nn.Sequential:
    """5x5/3 mean, 1x1 to 128, a dense layer of 768 (a convolution as large as the map), classifier (Section 4). Where
    images are so small that the map is less than 5x5, the window of the mean is the map's side."""
    chans, height, width = map_
    window = min(5, height, width)
    kernel = ((height - window) // 3 + 1, (width - window) // 3 + 1)
    head = nn.Sequential(
        nn.AvgPool2d(window, 3), conv(chans, 128, 1), dense(128, 768, kernel, padding=0), nn.Flatten(),
        nn.Linear(768, num_classes),
    ).apply(initialise)  # fmt: skip
    head[2].apply(truncated_normal(0.01))
    return head


def initialise(module: nn.Module) -> None:
    """Normal, cut at two deviations: 0.1 in convolutions, 0.001 in classifiers."""
    truncated_normal(0.001 if isinstance(module, nn.Linear) else 0.1)(module)


def build(
    stem: Stem,
    modules: Modules,
    auxiliary: str,
    dense: Slot | None = None,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    attention: Slot | None = None,
    conv: Slot = conv_bn_tensorflow,
    act: Slot = nn.ReLU,
    mean: Slot = avg_pool_same,
) -> Network:
    """The stages of two tables, for 299x299 images, with the ``mean`` of 3x3 windows in the modules; in training a head
    on the stage ``auxiliary``, whose dense layer is made by ``dense`` (``None``: by ``conv``)."""
    stages: dict[str, nn.Module] = {}
    chans = in_chans
    for name, row in stem.items():
        stages[name] = nn.MaxPool2d(3, 2) if row is None else conv(chans, *row[:3], padding=row[3])
        chans = chans if row is None else row[0]
    for name, (count, figure, widths) in modules.items():
        blocks = nn.Sequential()
        for _ in range(count):
            block, chans = module(chans, figure, widths, conv, mean, attention)
            blocks.append(block)
        stages[name] = blocks if count > 1 else block
    hidden = partial(dense, act=act) if dense else conv

    def heads(num_classes: int, maps: Mapping[str, Shape]) -> dict[str, nn.Module]:
        return {auxiliary: auxiliary_head(num_classes, maps[auxiliary], conv, hidden)}

    network = Network(
        stages, Head(chans, num_classes, drop_rate=0.2), input_size=(in_chans, 299, 299), min_input_size=75,
        mean=INCEPTION_MEAN, std=INCEPTION_STD, auxiliary=Auxiliary(heads, weight=0.3), step_scale=STEP_SCALE,
    )  # fmt: skip
    return network.apply(initialise)


# Section 10: "BN-auxiliary", batch norm in the dense layer of the auxiliary head too, makes v3 of v2.
inception_v2 = partial(build, TABLE_1, TABLE_1_MODULES, "inception_fig6", conv_act)
inception_v3 = partial(build, V3, V3_MODULES, "Mixed_6e")
inception_v3_tv = partial(inception_v3, mean=partial(avg_pool_same, count_padding=True))
