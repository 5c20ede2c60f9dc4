"""What a claim can be held against, as plain data: counts of networks or of layers, and sums and ratios of them.

``{ measure = "macs", network = "googlenet", stage = "inception_3a" }`` counts a stage of a network of the catalogue;
``{ measure = "macs", layers = ["1x1, 64", "3x3, 192"], input = [256, 28, 28] }`` builds those layers and counts them.
Nothing is computed: both stand on the meta device and are counted by :mod:`convarium.anatomy.trace`.
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convarium.anatomy.trace import Row, trace
from convarium.blocks import Concat, Residual
from convarium.errors import DataError, nearest
from convarium.network import GlobalPool, run_on_meta
from convarium.networks import CATALOGUE, resolve
from convarium.networks.lenet import Subsampling
from convarium.networks.senet import SqueezeExcite

Node = Mapping[str, Any]

# -- what is counted --------------------------------------------------------------------------------------------


class Subject:
    """A model at one input size, built and traced once; ``stage`` is a wildcard over the rows of the paper's table."""

    def __init__(self, model: nn.Module, size: tuple[int, ...]) -> None:
        self.model, self.size = model, size
        self.parameters = {path: p for path, p in model.named_parameters() if p.requires_grad}

    @cached_property
    def rows(self) -> list[Row]:
        return trace(self.model, (self.size[0], self.size[1], self.size[2])).rows

    def stages(self) -> list[str]:
        return list(dict.fromkeys(stage_of(path) for path, _ in self.model.named_modules()))

    def params(self, stage: str = "*") -> int:
        """Trainable parameters."""
        return sum(p.numel() for path, p in self.parameters.items() if _in(path, stage))

    def weights(self, stage: str = "*") -> int:
        """Parameters that multiply inputs: without biases and those of norms."""
        return sum(p.numel() for path, p in self.parameters.items() if p.ndim > 1 and _in(path, stage))

    def gate_weights(self, stage: str = "*") -> int:
        """Weights of both dense layers of every channel gate, without their biases."""
        gates = tuple(f"{path}." for path, m in self.model.named_modules() if isinstance(m, SqueezeExcite))
        own = {path: p for path, p in self.parameters.items() if path.startswith(gates)}
        return sum(p.numel() for path, p in own.items() if p.ndim > 1 and _in(path, stage))

    def stored_bytes(self, stage: str = "*") -> int:
        """Parameters and buffers as a file holds them, in single precision."""
        tensors = self.model.state_dict().items()
        return sum(t.numel() * t.element_size() for path, t in tensors if _in(path, stage))

    def macs(self, stage: str = "*") -> int:
        """Multiply-adds of convolutions and matrix products."""
        return sum(row.macs for row in self.rows if _in(row.path, stage))

    def operations(self, stage: str = "*") -> int:
        """Multiplications and additions counted apart: twice the multiply-adds."""
        return 2 * self.macs(stage)

    def neurons(self, stage: str = "*") -> int:
        """Outputs of convolutions and matrix products."""
        return sum(row.activations for row in self.rows if _in(row.path, stage))

    def inputs(self, stage: str = "*") -> int:
        """Numbers in one image."""
        return math.prod(self.size)

    def connections(self, stage: str = "*") -> int:
        """As LeNet-5's paper counts: every weight at every place, and a bias wherever one is added. A unit of a
        sub-sampling layer has five: the four it averages and its bias (Section II-B)."""
        total = 0
        for row in self.rows:
            if _in(row.path, stage):
                module = self.model.get_submodule(row.path)
                biased = getattr(module, "bias", None) is not None
                total += row.macs + row.activations * biased
                total += 5 * math.prod(row.shape) * isinstance(module, Subsampling)
        return total

    def macs_and_elementwise(self, stage: str = "*") -> int:
        """Multiply-adds, and one operation per element of every shortcut's addition and of every map that a gate
        squeezes: the count that gives most of the figures in SENet's Tables 2 and 3."""
        maps = {row.path: math.prod(row.shape) for row in self.rows if len(row.shape) == 3 and _in(row.path, stage)}
        counted = (Residual, SqueezeExcite)
        elements = (n for path, n in maps.items() if isinstance(self.model.get_submodule(path), counted))
        return self.macs(stage) + sum(elements)

    def receptive_field_px(self, stage: str = "*") -> int:
        """Pixels that a unit of the last map sees along one axis."""
        fields = next(row.fields for row in reversed(self.rows) if _in(row.path, stage))
        if fields is None:
            raise DataError("its last map sees the whole image")
        return max(field.size for field in fields)


def stage_of(path: str) -> str:
    """The row of the paper's table that a module or parameter belongs to: a stage, or a part of the head."""
    for prefix in ("stages.", "head.hidden.", "head."):
        if path.startswith(prefix):
            return path.removeprefix(prefix).partition(".")[0]
    return ""


def _in(path: str, stage: str) -> bool:
    return fnmatch.fnmatchcase(stage_of(path), stage)


# -- layers as papers write them --------------------------------------------------------------------------------

LAYER = re.compile(
    r"(?P<local>local )?(?P<height>\d+)x(?P<width>\d+)(?:/(?P<stride>\d+))?(?P<valid> valid)?, (?P<out>\d+)"
    r"(?:, C=(?P<groups>\d+))?"
)
DENSE = re.compile(r"dense, (\d+)")


class LocallyConnected(nn.Module):
    """A convolution whose weights are not shared: each place has its own. Square kernels, stride 1."""

    def __init__(self, shape: tuple[int, ...], out_chans: int, kernel: int, padding: int) -> None:
        super().__init__()
        self.kernel, self.before, self.after = kernel, padding // 2, padding - padding // 2
        self.height, self.width = (side + padding - kernel + 1 for side in shape[1:])
        self.weight = nn.Parameter(torch.empty(self.height * self.width, out_chans, shape[0] * kernel**2))

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (self.before, self.after) * 2)
        columns = F.unfold(padded, self.kernel).permute(2, 1, 0)  # (places, C k k, N)
        return (self.weight @ columns).permute(2, 1, 0).unflatten(2, (self.height, self.width))


def build(layers: list[Any], shape: tuple[int, ...]) -> nn.Module:
    """Layers in turn on a map of ``(C, H, W)``, without biases, with their map kept at stride 1; lists of layers are
    branches on one map whose outputs are put together.

    ``"3x3/2, 64"`` is 64 kernels of 3x3 with stride 2, ``"3x3, 128, C=32"`` in 32 groups, ``"5x5 valid, 6"`` without
    padding, ``"local 5x5, 6"`` without shared weights, ``"dense, 10"`` on all the map, ``"mean"`` the mean of the map.

    Raises:
        DataError: a layer that is written otherwise.
    """
    if layers and all(isinstance(branch, list) for branch in layers):
        return Concat({str(i): build(branch, shape) for i, branch in enumerate(layers)})
    made = nn.Sequential()
    for text in layers:
        layer = _layer(str(text), shape)
        made.append(layer)
        shape = tuple(run_on_meta(layer, torch.empty(1, *shape, device="meta")).shape[1:])
    return made


def _layer(text: str, shape: tuple[int, ...]) -> nn.Module:
    if text == "mean":
        return GlobalPool("avg")
    if dense := DENSE.fullmatch(text):
        linear = nn.Linear(math.prod(shape), int(dense[1]), bias=False)
        return linear if len(shape) == 1 else nn.Sequential(nn.Flatten(), linear)
    found = LAYER.fullmatch(text)
    if found is None:
        raise DataError(
            f"no layer can be read from {text!r}; written like '3x3/2, 64', '3x3, 128, C=32' or 'dense, 10'"
        )
    height, width, out, stride = (int(found[key] or 1) for key in ("height", "width", "out", "stride"))
    if found["local"]:
        if height != width or stride > 1 or found["groups"]:
            raise DataError(f"a local layer has a square kernel, stride 1 and no groups; got {text!r}")
        return LocallyConnected(shape, out, height, 0 if found["valid"] else height - 1)
    layer = nn.Conv2d(shape[0], out, (height, width), stride, groups=int(found["groups"] or 1), bias=False)
    if found["valid"]:
        return layer
    # Half the kernel on every side; an even one has a pixel less on the left and on top.
    around = ((width - 1) // 2, width // 2, (height - 1) // 2, height // 2)
    return nn.Sequential(nn.ZeroPad2d(around), layer)


# -- measures ---------------------------------------------------------------------------------------------------

COUNTS: dict[str, Callable[[Subject, str], int]] = {
    count.__name__: count
    for count in (
        *(Subject.params, Subject.weights, Subject.gate_weights, Subject.stored_bytes),
        *(Subject.macs, Subject.operations, Subject.macs_and_elementwise),
        *(Subject.neurons, Subject.inputs, Subject.connections, Subject.receptive_field_px),
    )
}
COMBINATIONS: dict[str, tuple[tuple[str, ...], Callable[..., Fraction]]] = {
    "sum": (("parts",), lambda parts: sum(parts, Fraction(0))),
    "difference": (("of", "less"), lambda of, less: of - less),
    "ratio": (("of", "to"), lambda of, to: of / to),
    "percent": (("of", "to"), lambda of, to: 100 * of / to),
}
OF_A_NETWORK = ("network", "stage", "input_size", "reduction", "arguments")
OF_LAYERS = ("layers", "input")


class Measurer:
    """Evaluates measures; builds and traces each network once."""

    def __init__(self) -> None:
        self.subjects: dict[str, Subject] = {}

    def measure(self, node: Node) -> Fraction:
        """The value of a measure: whole for a count, a fraction for a ratio.

        Raises:
            DataError: an unknown measure, argument, network, stage or layer, with those that there are.
        """
        name = node.get("measure", "")
        arguments = {key: value for key, value in node.items() if key != "measure"}
        if name in COMBINATIONS:
            known, combine = COMBINATIONS[name]
            _check(name, arguments, known, required=known)
            values = {
                key: [self.measure(part) for part in value] if isinstance(value, list) else self.measure(value)
                for key, value in arguments.items()
            }
            return combine(**values)
        if name not in COUNTS:
            raise DataError(f"no measure {name!r}; {nearest(name, [*COUNTS, *COMBINATIONS])}")
        if "layers" in arguments:
            _check(name, arguments, OF_LAYERS, required=OF_LAYERS)
        else:
            _check(name, arguments, OF_A_NETWORK, required=("network",))
        subject, stage = self._subject(arguments), arguments.get("stage", "*")
        if not any(fnmatch.fnmatchcase(each, stage) for each in subject.stages()):
            raise DataError(f"no stage {stage!r} in {arguments['network']}; {nearest(stage, subject.stages())}")
        return Fraction(COUNTS[name](subject, stage))

    def _subject(self, arguments: dict[str, Any]) -> Subject:
        key = repr(sorted((key, value) for key, value in arguments.items() if key != "stage"))
        if key not in self.subjects:
            self.subjects[key] = _layers(**arguments) if "layers" in arguments else _network(**arguments)
        return self.subjects[key]


def networks_of(node: Any) -> set[str]:
    """The catalogue names that a measure counts."""
    if isinstance(node, list):
        return set().union(*map(networks_of, node))
    if not isinstance(node, Mapping):
        return set()
    return {node["network"]} & {*CATALOGUE} if "network" in node else set().union(*map(networks_of, node.values()))


def _layers(layers: list[Any], input: list[int]) -> Subject:
    with torch.device("meta"):
        return Subject(build(layers, tuple(input)), tuple(input))


def _network(
    network: str = "",
    stage: str = "",
    input_size: int | None = None,
    reduction: int | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Subject:
    """A catalogue network, with gates of ``reduction`` and other ``arguments`` than its own where given."""
    if network not in CATALOGUE:
        raise DataError(f"no network named {network!r}; {nearest(network, CATALOGUE)}")
    address, own = CATALOGUE[network]
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in (arguments or {}).items()}
    if reduction is not None:
        given["attention"] = partial(SqueezeExcite, reduction=reduction)
    with torch.device("meta"):
        model = resolve(address)(**{**own, **given}).eval()
    channels, height, width = model.input_size
    return Subject(model, (channels, input_size or height, input_size or width))


def _check(name: str, arguments: Node, known: tuple[str, ...], required: tuple[str, ...]) -> None:
    for key in arguments:
        if key not in known:
            raise DataError(f"measure {name!r} takes no {key!r}; it takes: {', '.join(known)}")
    for key in required:
        if key not in arguments:
            raise DataError(f"measure {name!r} needs {key!r}")
