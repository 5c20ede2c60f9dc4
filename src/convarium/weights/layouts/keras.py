"""Keras applications' layout (github.com/keras-team/keras), with ``read_tensors``' names: ``layer/variable``.

Kernels are height by width by in by out. Layers without a name of their own are numbered by class, here from 0.
"""

import re
from collections.abc import Mapping
from typing import Any

from convarium.weights.keras_file import renumbered
from convarium.weights.layout import Layout, Rules

COUNTERS = ("*.num_batches_tracked", 0)
GAINS = ("*.norm.weight", 1)
EPS = 1.001e-5  # of the batch norms of the ResNets


def variables(conv: str = "", norm: str = "_bn") -> Rules:
    """The ends of our keys to theirs; ``conv`` and ``norm`` are what a layer's name ends in."""
    return (
        (".conv.weight", f"{conv}/kernel"),
        (".conv.bias", f"{conv}/bias"),
        (".norm.weight", f"{norm}/gamma"),
        (".norm.bias", f"{norm}/beta"),
        (".norm.running_mean", f"{norm}/moving_mean"),
        (".norm.running_var", f"{norm}/moving_variance"),
        ("head.classifier", "predictions"),
        (".weight", "/kernel"),
        (".bias", "/bias"),
    )


KERNELS = (("*.conv.weight", "hwio"), ("*.linear.weight", "hwio"), ("*.depthwise.weight", "hwoi"))
DENSE = (("head.*.weight", "transposed"),)

VGG = (
    *((f"stages.block{i}.conv{i}_", f"block{i}_conv") for i in range(1, 6)),
    ("head.hidden.fc6.fc.", "fc1."),
    ("head.hidden.fc7.fc.", "fc2."),
    *variables(),
)
BLOCKS = (("stages.", ""), *((f"_x.{i}.", f"_block{i + 1}.") for i in range(36)))
BRANCH = tuple((f".branch.{i}.", f"_{i + 1}.") for i in range(3))
RESNET = (*BLOCKS, *BRANCH, (".shortcut.", "_0."), *variables("_conv"))
# What stands before a convolution here is named after the one before it there.
RESNET_V2 = (
    ("stages.pool1.preactivation.", "conv2_block1_preact."),
    ("stages.conv5_x.2.act.", "post."),
    *BLOCKS,
    (".preactivation.", "_preact."),
    (".residual.", "."),
    (".branch.0.norm.", "_preact.norm."),
    (".branch.1.norm.", "_1.norm."),
    (".branch.2.norm.", "_2.norm."),
    *BRANCH,
    (".shortcut.", "_0."),
    *variables("_conv"),
)
NUMBERED = (("*.conv", "conv2d_{}.conv"), ("*.norm", "batch_normalization_{}.norm"))
INCEPTION_RESNET_V2 = (("stages.", ""), *((f".{i}.branch.linear.", f"_{i + 1}_conv.") for i in range(20)))
XCEPTION = (
    ("stages.conv1.", "block1_conv1."),
    ("stages.conv2.", "block1_conv2."),
    ("stages.conv3.", "block14_sepconv1."),
    ("stages.conv4.", "block14_sepconv2."),
    *((f"stages.block{i}.branch.conv", f"block{i + 1}_sepconv") for i in range(1, 13)),
    (".depthwise.weight", "/depthwise_kernel"),
    (".pointwise.conv.weight", "/pointwise_kernel"),
    (".pointwise.", "."),
    (".norm.", "_bn.norm."),
    (".number.", ".norm."),
)
MOBILENET = (
    ("stages.conv1.", "conv1."),
    (".depthwise.conv.weight", ".depthwise/depthwise_kernel"),
    *((f"stages.dw{i}.depthwise", f"conv_dw_{i}") for i in range(1, 14)),
    *((f"stages.dw{i}.pointwise", f"conv_pw_{i}") for i in range(1, 14)),
    ("head.classifier", "conv_preds"),
)


def one_set_of_names(theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Layers numbered from 0; a depthwise kernel under its own name, which Keras 3 calls a kernel."""
    depthwise = re.compile(r"(conv_dw_\d+/)kernel$")
    return {depthwise.sub(r"\1depthwise_kernel", key): value for key, value in renumbered(theirs).items()}


def layout(*networks: str, **parts: Any) -> Layout:
    return Layout(networks, **{"absent": (COUNTERS,), "read": one_set_of_names, **parts})


LAYOUTS = (
    layout("vgg16", "vgg19", rules=VGG, values=(("head.hidden.fc6.fc.weight", "over 7x7 hwc"), *DENSE, *KERNELS)),
    layout(
        *(f"resnet{depth}" for depth in (50, 101, 152)),
        rules=RESNET,
        values=(*DENSE, *KERNELS),
        idle_biases=True,
        eps=EPS,
    ),
    layout("preact_resnet*_keras", rules=RESNET_V2, values=(*DENSE, *KERNELS), eps=EPS),
    layout(
        "inception_v3",
        rules=variables(norm=""),
        numbered=NUMBERED,
        absent=(COUNTERS, GAINS),
        values=(*DENSE, *KERNELS),
    ),
    layout(
        "inception_resnet_v2_slim",
        rules=(*INCEPTION_RESNET_V2, *variables(norm="")),
        numbered=(
            ("stages.conv2d_7b.conv", "conv_7b.conv"),
            ("stages.conv2d_7b.norm", "conv_7b_bn.norm"),
            *NUMBERED,
        ),
        absent=(COUNTERS, GAINS),
        values=(*DENSE, *KERNELS),
    ),
    layout(
        "xception",
        rules=(*XCEPTION, *variables(norm="")),
        numbered=(("*.shortcut.conv", "conv2d_{}.conv"), ("*.shortcut.norm", "batch_normalization_{}.number")),
        values=(*DENSE, *KERNELS),
    ),
    layout(
        "mobilenet_v1*_tf",
        rules=(*MOBILENET, *variables()),
        values=(("head.classifier.weight", "hwio 1x1"), ("*.depthwise.conv.weight", "hwoi"), *KERNELS),
    ),
)
