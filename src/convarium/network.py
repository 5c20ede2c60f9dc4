"""What every network can do: named stages, a head, and the verbs that timm made common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from convarium.errors import UsageError, nearest

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CAFFE_MEAN = (123 / 255, 117 / 255, 104 / 255)  # red, green, blue
BYTE_STD = (1 / 255, 1 / 255, 1 / 255)  # white is 255, and only the mean is subtracted
INCEPTION_MEAN = INCEPTION_STD = (0.5, 0.5, 0.5)  # black is -1, white 1

Shape = tuple[int, ...]  # channels, height, width

POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "avg": lambda x: x.mean((2, 3)),
    "max": lambda x: x.amax((2, 3)),
    "flatten": lambda x: x.flatten(1),
    "": lambda x: x,
}


class GlobalPool(nn.Module):
    """``(N, C, H, W)`` to ``(N, C)`` by ``"avg"`` or ``"max"``, to ``(N, CHW)`` by ``"flatten"``; ``""``: unchanged."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        if kind not in POOLS:
            raise UsageError(f"no global pool named {kind!r}; {nearest(kind, [k or repr('') for k in POOLS])}")
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        return POOLS[self.kind](x)

    def extra_repr(self) -> str:
        return repr(self.kind)


class Head(nn.Module):
    """Global pooling, hidden layers under the paper's names, dropout, classifier.

    Maps ``(N, C, H, W)`` to ``(N, num_classes)``.

    ``hidden`` are the dense layers before the classifier (``F6`` of LeNet-5, ``fc6`` and ``fc7`` of VGG); their output,
    ``hidden_size`` wide, is what ``num_classes=0`` returns. ``classifier(features, classes)`` makes the last layer.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        pool: str = "avg",
        hidden: Mapping[str, nn.Module] | None = None,
        hidden_size: int | None = None,
        drop_rate: float = 0.0,
        classifier: Callable[[int, int], nn.Module] = nn.Linear,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.hidden_size = hidden_size or in_features
        self.make_classifier = classifier
        self.image_size = "its own size"  # the network says which
        self.pool = GlobalPool(pool)
        self.hidden = nn.Sequential()
        for name, layer in (hidden or {}).items():
            self.hidden.add_module(name, layer)
        self.drop = nn.Dropout(drop_rate)
        self.reset(num_classes, pool)

    def reset(self, num_classes: int, pool: str | None = None) -> None:
        """A fresh classifier for ``num_classes`` (0: none), and another global pool when one is named."""
        if num_classes < 0:
            raise UsageError(f"num_classes must be 0 (no classifier) or more; got {num_classes}")
        if pool is not None:
            self.pool = GlobalPool(pool)
        if self.pool.kind == "" and num_classes:
            raise UsageError("global_pool='' returns the map, so it needs num_classes=0 (no classifier)")
        self.num_classes = num_classes
        self.classifier = self.make_classifier(self.hidden_size, num_classes) if num_classes else nn.Identity()

    def parts(self) -> list[str]:
        """Paths of its parts in the order in which they work: the last rows of the paper's table."""
        return ["pool", *(f"hidden.{name}" for name, _ in self.hidden.named_children()), "classifier"]

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        height, width = x.shape[-2:]
        x = self.pool(x)
        if self.pool.kind == "":
            return x
        if x.shape[1] != self.in_features:
            raise UsageError(
                f"the dense head takes {self.in_features} features; a {height}x{width} map gave {x.shape[1]}: "
                f"give it images of {self.image_size}, or make it take larger ones with to_fully_convolutional(model)"
            )
        x = self.drop(self.hidden(x))
        return x if pre_logits else self.classifier(x)


class ConvHead(Head):
    """Convolutions to one map per class, then global pooling (Lin, Chen, Yan, ICLR 2014, Section 3.2).

    Maps ``(N, C, H, W)`` to ``(N, num_classes)``; ``hidden`` are the convolutions before the classifier's, and what
    ``num_classes=0`` returns is their output, pooled. ``classifier(channels, classes)`` makes the last convolution,
    with its activation where the paper has one.
    """

    def parts(self) -> list[str]:
        return [*super().parts()[1:], "pool"]

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        if self.pool.kind == "":
            return x
        x = self.drop(self.hidden(x))
        return self.pool(x if pre_logits else self.classifier(x))


@dataclass(frozen=True)
class Auxiliary:
    """Heads on inner stages that only training uses (GoogLeNet, Section 5).

    ``heads(num_classes, maps)`` gives, by stage name, a module from that stage's map to logits; ``maps`` holds the
    shape of every stage's map. ``weight`` is what each of their losses counts beside the main one.
    """

    heads: Callable[[int, Mapping[str, Shape]], Mapping[str, nn.Module]]
    weight: float


class FeatureInfo(list):
    """One row per feature map, ``{"num_chs", "reduction", "module"}``, with timm's accessors."""

    def channels(self) -> list[int]:
        """Channels of each map."""
        return [row["num_chs"] for row in self]

    def reduction(self) -> list[int]:
        """Input pixels that one step on each map spans (the jump of its receptive field)."""
        return [row["reduction"] for row in self]

    def module_name(self) -> list[str]:
        """Stage that yields each map."""
        return [row["module"] for row in self]


class Network(nn.Module):
    """An ordered dict of named stages, then a head.

    Args:
        stages: modules under the paper's own names, each from one map ``(N, C, H, W)`` to the next.
        head: pooling, hidden dense layers and classifier.
        input_size: ``(channels, height, width)`` of the paper's input.
        min_input_size: the smallest height and width that every stage can take and that leave its map a pixel per step.
        mean, std: of the input's channels, on a scale where white is 1.
        crop_pct: side of the test crop over the short side of the resized image.
        auxiliary: how to make the auxiliary heads of the paper. The network holds none of them; training does.
        step_scale: what training multiplies its usual learning rate of SGD by.
    """

    def __init__(
        self,
        stages: Mapping[str, nn.Module],
        head: Head,
        *,
        input_size: tuple[int, int, int],
        min_input_size: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        interpolation: str = "bilinear",
        crop_pct: float = 0.875,
        auxiliary: Auxiliary | None = None,
        step_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.name = type(self).__name__
        self.arguments: dict[str, Any] = {}
        self.plan: dict[str, dict[str, Any] | None] = {}  # how it differs from the catalogue's (convarium.plan)
        self.stages = nn.ModuleDict(stages)
        self.head = head
        head.image_size = "x".join(map(str, input_size[1:]))
        self.input_size = input_size
        self.min_input_size = min_input_size
        self.mean, self.std = _per_channel(mean, input_size[0]), _per_channel(std, input_size[0])
        self.interpolation, self.crop_pct = interpolation, crop_pct
        self.auxiliary = auxiliary
        self.step_scale = step_scale
        self.grad_checkpointing = False

    # -- forward ------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` images, normalised, to ``(N, num_classes)`` logits."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """The last map ``(N, num_features, h, w)``, before the head."""
        self._check_input(x)
        for stage in self.stages.values():
            x = self._run(stage, x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """From the last map to logits, or to the ``head_hidden_size`` features before the classifier."""
        return self.head(x, pre_logits=pre_logits)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int | str] | None = None,
        *,
        stop_early: bool = False,
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The maps of chosen stages, beside the last one.

        Args:
            x: ``(N, C, H, W)``.
            indices: stage names or positions (of all stages, not of ``feature_info``); a single number n means the
                last n stages; ``None`` means all.
            stop_early: run no stage past the last one asked for.
            intermediates_only: return the list alone.

        Returns:
            ``(last map, [map, ...])`` in the order asked for.

        Raises:
            UsageError: a stage that does not exist.
        """
        names = self._stage_names(indices)
        self._check_input(x)
        maps: dict[str, Tensor] = {}
        for name, stage in self.stages.items():
            x = self._run(stage, x)
            if name in names:
                maps[name] = x
            if stop_early and len(maps) == len(set(names)):
                break
        wanted = [maps[name] for name in names]
        return wanted if intermediates_only else (x, wanted)

    def _run(self, stage: nn.Module, x: Tensor) -> Tensor:
        # Recomputing in the backward pass runs batch norm twice, so its running statistics move twice per step.
        if self.grad_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(stage, x, use_reentrant=False)
        return stage(x)

    def _check_input(self, x: Tensor) -> None:
        channels, least = self.input_size[0], self.min_input_size
        if x.ndim != 4 or x.shape[1] != channels:
            raise UsageError(f"{self.name} takes images (N, {channels}, H, W); got {tuple(x.shape)}")
        if x.shape[2] < least or x.shape[3] < least:
            raise UsageError(
                f"{self.name} takes images of at least {least}x{least} pixels; got {x.shape[2]}x{x.shape[3]}: "
                f"{self._collapse(x.shape[2], x.shape[3])}; give it larger images"
            )

    def _collapse(self, height: int, width: int) -> str:
        """Where an image of this size is lost, in words."""
        jumps = {row["module"]: row["reduction"] for row in self.feature_info}
        x = torch.empty(1, self.input_size[0], height, width, device="meta")
        for name, stage in self.stages.items():
            before = tuple(x.shape[2:])
            try:
                x = run_on_meta(stage, x)
            except RuntimeError:
                return f"its stage {name} cannot work on a {before[0]}x{before[1]} map"
            if jumps.get(name, 1) > min(height, width):
                return f"its stage {name} takes steps of {jumps[name]} pixels"
        return f"its head cannot work on a {x.shape[2]}x{x.shape[3]} map"

    def _stage_names(self, indices: int | Sequence[int | str] | None) -> list[str]:
        names = list(self.stages)
        if indices is None:
            return names
        if isinstance(indices, int):
            if not 1 <= indices <= len(names):
                raise UsageError(f"{self.name} has {len(names)} stages; got a number of {indices} last ones")
            return names[-indices:]
        chosen = []
        for index in indices:
            if isinstance(index, int) and -len(names) <= index < len(names):
                chosen.append(names[index])
            elif str(index) in names:
                chosen.append(str(index))
            else:
                raise UsageError(f"{self.name} has no stage {index!r}; stages: {', '.join(names)}")
        return chosen

    # -- the classifier -----------------------------------------------------------------------------------------

    @property
    def num_classes(self) -> int:
        return self.head.num_classes

    @property
    def num_features(self) -> int:
        """Channels of the last map."""
        return list(self.stage_shapes().values())[-1][0]

    @property
    def head_hidden_size(self) -> int:
        """Width of what the classifier reads, and of the output when ``num_classes=0``."""
        return self.head.hidden_size

    def get_classifier(self) -> nn.Module:
        return self.head.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh classifier for ``num_classes`` (0 removes it), and another :class:`GlobalPool` when named."""
        self.head.reset(num_classes, global_pool)
        self.head.to(next(self.parameters()))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each stage in the backward pass instead of keeping its maps."""
        self.grad_checkpointing = enable

    def use_preprocessing(
        self, size: int, mean: Sequence[float], std: Sequence[float], interpolation: str, crop_pct: float
    ) -> None:
        """Say what makes this network's weights valid, for :attr:`pretrained_cfg`: the side of the square input, mean
        and standard deviation per channel where white is 1, the filter, and the crop's side over the short side."""
        channels = self.input_size[0]
        self.input_size = (channels, size, size)
        self.mean, self.std = _per_channel(mean, channels), _per_channel(std, channels)
        self.interpolation, self.crop_pct = interpolation, crop_pct

    # -- facts about the built network --------------------------------------------------------------------------

    def stage_shapes(self, input_size: Sequence[int] | None = None) -> dict[str, tuple[int, ...]]:
        """Stage name to ``(channels, height, width)`` for one image, found on the meta device at no cost."""
        x = torch.empty(1, *(input_size or self.input_size), device="meta")
        shapes = {}
        for name, stage in self.stages.items():
            x = run_on_meta(stage, x)
            shapes[name] = tuple(x.shape[1:])
        return shapes

    @property
    def feature_info(self) -> FeatureInfo:
        """The last stage at each reduction, as timm's pyramid."""
        # Make the image larger by a multiple of any stride: the map grows by that much over the jump.
        channels, height, width = self.input_size
        growth = 1024
        larger = self.stage_shapes((channels, height + growth, width))
        rows = {}
        for name, (chans, rows_out, _) in self.stage_shapes().items():
            jump = growth // (larger[name][1] - rows_out)
            rows[jump] = {"num_chs": chans, "reduction": jump, "module": name}
        return FeatureInfo(rows.values())

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """Input and preprocessing under timm's keys."""
        convs = (name for name, module in self.named_modules() if isinstance(module, nn.Conv2d))
        last = list(self.stage_shapes().values())[-1]
        return {
            "input_size": self.input_size,
            "min_input_size": (self.input_size[0], self.min_input_size, self.min_input_size),
            "pool_size": last[1:],
            "num_classes": self.num_classes,
            "mean": self.mean,
            "std": self.std,
            "interpolation": self.interpolation,
            "crop_pct": self.crop_pct,
            "crop_mode": "center",
            "classifier": "head.classifier",
            "first_conv": next(convs),
        }

    default_cfg = pretrained_cfg


class FeatureNetwork(nn.Module):
    """The feature pyramid of a network: ``(N, C, H, W)`` to a list of maps, finest first (``features_only=True``)."""

    def __init__(self, network: Network, out_indices: Sequence[int] | None = None) -> None:
        super().__init__()
        rows = network.feature_info
        try:
            chosen = [rows[i] for i in (range(len(rows)) if out_indices is None else out_indices)]
        except IndexError:
            raise UsageError(f"{network.name} has {len(rows)} feature maps; got out_indices={out_indices}") from None
        self.feature_info = FeatureInfo(chosen)
        names = list(network.stages)
        for name in names[names.index(max(self.feature_info.module_name(), key=names.index)) + 1 :]:
            del network.stages[name]
        network.head = Head(0, 0, pool="")
        self.network = network

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.network.forward_intermediates(  # type: ignore[return-value]
            x, self.feature_info.module_name(), stop_early=True, intermediates_only=True
        )


def _per_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """The paper's values; their average for every channel where the number of channels is not the paper's."""
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels


class _WithoutNumbers(TorchFunctionMode):
    """Initialisations do nothing. On the meta device they would have nothing to do either, but take their time, and
    import a compiler for it."""

    FILLS = frozenset(getattr(Tensor, name) for name in ("normal_", "uniform_", "fill_", "zero_"))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self.FILLS or getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def on_meta() -> Iterator[None]:
    """What is built in this block stands on the meta device: it has shapes, and no numbers."""
    with torch.device("meta"), _WithoutNumbers():
        yield


def run_on_meta(module: nn.Module, x: Tensor) -> Tensor:
    """``module(x)`` in evaluation mode on the meta device, wherever its weights are: shapes without arithmetic."""
    tensors: Iterable[tuple[str, Tensor]] = [*module.named_parameters(), *module.named_buffers()]
    on_meta = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors}
    training = [m for m in module.modules() if m.training]
    module.eval()
    try:
        with torch.no_grad():
            return functional_call(module, on_meta, (x,))
    finally:
        for m in training:
            m.training = True
