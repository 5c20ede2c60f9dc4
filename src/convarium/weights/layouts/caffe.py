"""Layout of Caffe's files (github.com/BVLC/caffe and its model zoo), with ``read_tensors``' names: ``layer/0``,
``layer/1`` for the blobs of a layer.

A batch norm is two layers there: BatchNorm with mean, variance and the number that both must be divided by, then Scale
with gains and biases. Networks whose keys are here and whose function is none of the catalogue are not: CaffeNet, which
pools before it normalises (:func:`other_function` tells its files), and SqueezeNet 1.0, whose conv10 is padded.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from convarium.weights.layout import Layout, Rules

COUNTERS = ("*.num_batches_tracked", 0)
ENDS: Rules = ((".conv.weight", "/0"), (".conv.bias", "/1"), (".fc.", "."), (".weight", "/0"), (".bias", "/1"))
SHAPES = (("*.bias", "vector"), ("head.hidden.fc?.fc.weight", "rows"), ("head.classifier.weight", "rows"))

DENSE_HEAD: Rules = (("head.hidden.", ""), ("head.classifier.", "fc8."))
ALEXNET: Rules = (("stages.", ""), (".layer.", "."), *DENSE_HEAD, *ENDS)
# Caffe's normalisation has k = 1, ours the paper's k = 2. Its input times the root of two and its output times
# 2 ** (0.75 - 0.5), beta being 0.75, make up for that: the rectifiers in between pass on any positive factor.
ROOT, BACK = 2**0.5, 2**0.25
ALEXNET_FACTORS = (
    ("stages.conv1.*", ROOT),
    ("stages.conv2.*.weight", BACK * ROOT),
    ("stages.conv2.*.bias", ROOT),
    ("stages.conv3.*.weight", BACK),
)
VGG: Rules = (*((f"stages.block{i}.", "") for i in range(1, 6)), *DENSE_HEAD, *ENDS)
NIN: Rules = (
    *((f"stages.mlpconv{i}.", "") for i in (1, 2, 3)),
    ("head.hidden.conv4.", "conv4-1024."),
    ("head.hidden.cccp7.", "cccp7-1024."),
    ("head.classifier.", "cccp8-1024."),
    *ENDS,
)
GOOGLENET: Rules = (
    ("stages.conv1.", "conv1/7x7_s2."),
    ("stages.conv2_reduce.", "conv2/3x3_reduce."),
    ("stages.conv2.layer.", "conv2/3x3."),
    ("stages.", ""),
    *((f".branches.{size}.reduce.", f"/{size}_reduce.") for size in ("3x3", "5x5")),
    *((f".branches.{size}.conv.", f"/{size}.") for size in ("3x3", "5x5")),
    (".branches.pool.project.", "/pool_proj."),
    (".branches.1x1.", "/1x1."),
    ("head.classifier.", "loss3/classifier."),
    *ENDS,
)
SQUEEZENET: Rules = (
    ("stages.", ""),
    (".squeeze.", "/squeeze1x1."),
    (".expand.branches.", "/expand"),
    ("head.classifier.", "conv10."),
    *ENDS,
)
# Batch norm's two layers are called after the convolution's own: res2a_branch1, bn2a_branch1, scale2a_branch1.
RESNET_ENDS: Rules = (
    ("stages.conv1.conv.weight", "conv1/0"),
    ("stages.conv1.norm.", "_conv1.norm."),
    *((f".branch.{i}.", f"_branch2{letter}.") for i, letter in enumerate("abc")),
    (".shortcut.", "_branch1."),
    ("head.classifier.", "fc1000."),
    (re.compile(r"(.*)\.conv\.weight"), r"res\1/0"),
    (re.compile(r"(.*)\.norm\.running_mean"), r"bn\1/0"),
    (re.compile(r"(.*)\.norm\.running_var"), r"bn\1/1"),
    (re.compile(r"(.*)\.norm\.weight"), r"scale\1/0"),
    (re.compile(r"(.*)\.norm\.bias"), r"scale\1/1"),
    *ENDS,
)
SENET: Rules = (
    ("stages.conv1.conv.", "conv1/7x7_s2.conv."),
    ("stages.conv1.norm.", "conv1/7x7_s2.norm."),
    *((f"stages.conv1.{i}.", f"conv1_{i + 1}/3x3{'_s2' if i == 0 else ''}.") for i in range(3)),
    *((f"stages.conv{stage}_x.{i}.", f"conv{stage}_{i + 1}_") for stage in range(2, 6) for i in range(36)),
    ("_branch.0.", "_1x1_reduce."),
    ("_branch.1.", "_3x3."),
    ("_branch.2.", "_1x1_increase."),
    ("_attention.fc1.", "_1x1_down."),
    ("_attention.fc2.", "_1x1_up."),
    ("_shortcut.", "_1x1_proj."),
    (".norm.running_mean", "/bn/0"),
    (".norm.running_var", "/bn/1"),
    (".norm.weight", "/bn/scale/0"),
    (".norm.bias", "/bn/scale/1"),
    ("head.classifier.", "classifier."),
    *ENDS,
)


def resnet(depth: int) -> Rules:
    """Blocks have letters; in the long stages of the deeper networks the later ones have numbers: a, b1, b2."""
    numbers = ["a", *(f"b{number}" for number in range(1, 36))]
    names = {stage: numbers if depth > 50 and stage in (3, 4) else list("abcdef") for stage in range(2, 6)}
    blocks = (
        (f"stages.conv{stage}_x.{i}.", f"{stage}{name}.") for stage in names for i, name in enumerate(names[stage])
    )
    return (*blocks, *RESNET_ENDS)


def averaged(theirs: Mapping[str, Any]) -> dict[str, Any]:
    """A BatchNorm's mean and variance, divided by its third blob, the weight of all that was summed up in them; with
    the values left out, as they are not there where only the keys are asked for."""
    found = dict(theirs)
    for key in [key for key in theirs if key.endswith("/2")]:
        weight = found.pop(key)
        if weight is not None:
            share = 1 / float(weight) if float(weight) else 0.0  # an empty one stands for zeros there
            found |= {blob: found[blob] * share for blob in (f"{key[:-1]}0", f"{key[:-1]}1") if blob in found}
    return found


def averaged_after_bias(theirs: Mapping[str, Any]) -> dict[str, Any]:
    """The same; the bias of ResNet-50's conv1, which the others do not have, goes into the mean of its batch norm."""
    found = averaged(theirs)
    bias = found.pop("conv1/1", None)
    if bias is not None and found.get("bn_conv1/0") is not None:
        found["bn_conv1/0"] = found["bn_conv1/0"] - bias
    return found


def other_function(layers: Sequence[str]) -> str:
    """What a file's layers, in their order, say of another function than its keys let one think; mostly nothing."""
    if "norm1" in layers and "pool1" in layers and layers.index("pool1") < layers.index("norm1"):
        return "is of CaffeNet, which pools before it normalises; AlexNet has the same keys and is another function"
    return ""


def layout(networks: Sequence[str], rules: Rules, **parts: Any) -> Layout:
    return Layout(tuple(networks), rules, **{"values": SHAPES, "absent": (COUNTERS,), **parts})


LAYOUTS = (
    layout(["alexnet"], ALEXNET, factors=ALEXNET_FACTORS),
    layout(["vgg16", "vgg19"], VGG),
    layout(["nin_imagenet"], NIN, values=(("*.bias", "vector"),)),
    layout(["googlenet"], GOOGLENET, spare=("loss1/*", "loss2/*")),
    layout(["squeezenet1_1"], SQUEEZENET, values=(("*.bias", "vector"),)),
    *(layout([f"resnet{depth}_caffe"], resnet(depth), read=averaged_after_bias) for depth in (50, 101, 152)),
    layout(
        ["se_resnet*_caffe", "se_resnext*_caffe", "senet154"],
        SENET,
        values=(("*.attention.fc?.weight", "1x1"), *SHAPES),
        read=averaged,
    ),
)
