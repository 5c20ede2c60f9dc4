"""The catalogue: every network by name. Names resolve on use, so that listing them needs no torch."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from convarium.errors import UsageError, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from convarium.network import FeatureNetwork, Network
    from convarium.weights.cards import Card

# name -> ("module:builder", the builder's arguments).
CATALOGUE: dict[str, tuple[str, dict[str, Any]]] = {
    # LeCun et al. 1998
    "lenet5": ("lenet:lenet5", {}),
    "lenet5_modern": ("lenet:lenet5_modern", {}),
    # Krizhevsky et al. 2012, 2014
    "alexnet": ("alexnet:alexnet", {}),
    "alexnet_owt": ("alexnet:alexnet_owt", {}),
    "alexnet_pytorchcv": ("alexnet:alexnet_pytorchcv", {}),
    # Zeiler, Fergus 2014
    "zfnet": ("zfnet:zfnet", {}),
    "zfnet_pytorchcv": ("zfnet:zfnet_pytorchcv", {}),
    # Goodfellow et al. 2013
    "maxout_cifar": ("maxout:maxout_cifar", {}),
    # Lin et al. 2014
    "nin_cifar": ("nin:nin_cifar", {}),
    "nin_cifar_pytorchcv": ("nin:nin_cifar_pytorchcv", {}),
    "nin_imagenet": ("nin:nin_imagenet", {}),
    # Simonyan, Zisserman 2015
    "vgg11": ("vgg:vgg", {"configuration": "A"}),
    "vgg11_lrn": ("vgg:vgg", {"configuration": "A-LRN"}),
    "vgg13": ("vgg:vgg", {"configuration": "B"}),
    "vgg16_c": ("vgg:vgg", {"configuration": "C"}),
    "vgg16": ("vgg:vgg", {"configuration": "D"}),
    "vgg19": ("vgg:vgg", {"configuration": "E"}),
    "vgg11_bn": ("vgg:vgg_bn", {"configuration": "A"}),
    "vgg13_bn": ("vgg:vgg_bn", {"configuration": "B"}),
    "vgg16_bn": ("vgg:vgg_bn", {"configuration": "D"}),
    "vgg19_bn": ("vgg:vgg_bn", {"configuration": "E"}),
    # Szegedy et al. 2015
    "googlenet": ("googlenet:googlenet", {}),
    "googlenet_naive": ("googlenet:googlenet_naive", {}),
    "googlenet_tv": ("googlenet:googlenet_tv", {}),
    # Ioffe, Szegedy 2015
    "bn_inception": ("bn_inception:bn_inception", {}),
    "bn_inception_caffe": ("bn_inception:bn_inception_caffe", {}),
    "inception_v2_slim": ("bn_inception:inception_v2_slim", {}),
    # Szegedy et al. 2016
    "inception_v2": ("inception_v3:inception_v2", {}),
    "inception_v3": ("inception_v3:inception_v3", {}),
    "inception_v3_tv": ("inception_v3:inception_v3_tv", {}),
    # He et al. 2016, and the plain nets it measures against
    "plain18": ("resnet:plain_net", {"depth": 18}),
    "plain34": ("resnet:plain_net", {"depth": 34}),
    "plain20_cifar": ("resnet:plain_net_cifar", {"depth": 20}),
    "plain56_cifar": ("resnet:plain_net_cifar", {"depth": 56}),
    "resnet18": ("resnet:resnet", {"depth": 18}),
    "resnet34": ("resnet:resnet", {"depth": 34}),
    "resnet50": ("resnet:resnet", {"depth": 50}),
    "resnet101": ("resnet:resnet", {"depth": 101}),
    "resnet152": ("resnet:resnet", {"depth": 152}),
    "resnet50_v1_5": ("resnet:resnet_v1_5", {"depth": 50}),
    "resnet101_v1_5": ("resnet:resnet_v1_5", {"depth": 101}),
    "resnet152_v1_5": ("resnet:resnet_v1_5", {"depth": 152}),
    "resnet50_caffe": ("resnet:resnet_caffe", {"depth": 50}),
    "resnet101_caffe": ("resnet:resnet_caffe", {"depth": 101}),
    "resnet152_caffe": ("resnet:resnet_caffe", {"depth": 152}),
    "resnet20_cifar": ("resnet:resnet_cifar", {"depth": 20}),
    "resnet32_cifar": ("resnet:resnet_cifar", {"depth": 32}),
    "resnet44_cifar": ("resnet:resnet_cifar", {"depth": 44}),
    "resnet56_cifar": ("resnet:resnet_cifar", {"depth": 56}),
    "resnet110_cifar": ("resnet:resnet_cifar", {"depth": 110}),
    "resnet1202_cifar": ("resnet:resnet_cifar", {"depth": 1202}),
    "resnet20_cifar_b": ("resnet:resnet_cifar_b", {"depth": 20}),
    "resnet56_cifar_b": ("resnet:resnet_cifar_b", {"depth": 56}),
    "resnet110_cifar_b": ("resnet:resnet_cifar_b", {"depth": 110}),
    # He et al. 2016b
    "preact_resnet50": ("preact_resnet:preact_resnet", {"depth": 50}),
    "preact_resnet101": ("preact_resnet:preact_resnet", {"depth": 101}),
    "preact_resnet152": ("preact_resnet:preact_resnet", {"depth": 152}),
    "preact_resnet200": ("preact_resnet:preact_resnet", {"depth": 200}),
    "preact_resnet50_timm": ("preact_resnet:preact_resnet_timm", {"depth": 50}),
    "preact_resnet101_timm": ("preact_resnet:preact_resnet_timm", {"depth": 101}),
    "preact_resnet50_keras": ("preact_resnet:preact_resnet_keras", {"depth": 50}),
    "preact_resnet101_keras": ("preact_resnet:preact_resnet_keras", {"depth": 101}),
    "preact_resnet152_keras": ("preact_resnet:preact_resnet_keras", {"depth": 152}),
    "preact_resnet50_pytorchcv": ("preact_resnet:preact_resnet_pytorchcv", {"depth": 50}),
    "preact_resnet101_pytorchcv": ("preact_resnet:preact_resnet_pytorchcv", {"depth": 101}),
    "preact_resnet152_pytorchcv": ("preact_resnet:preact_resnet_pytorchcv", {"depth": 152}),
    "preact_resnet110_cifar": ("preact_resnet:preact_resnet_cifar", {"depth": 110}),
    "preact_resnet164_cifar": ("preact_resnet:preact_bottleneck_cifar", {"depth": 164}),
    "preact_resnet1001_cifar": ("preact_resnet:preact_bottleneck_cifar", {"depth": 1001}),
    "preact_resnet164_cifar_pytorchcv": ("preact_resnet:preact_bottleneck_cifar_pytorchcv", {"depth": 164}),
    # Iandola et al. 2016
    "squeezenet1_0": ("squeezenet:squeezenet1_0", {}),
    "squeezenet1_1": ("squeezenet:squeezenet1_1", {}),
    # Szegedy et al. 2017
    "inception_v4": ("inception_v4:inception_v4", {}),
    "inception_resnet_v1": ("inception_v4:inception_resnet_v1", {}),
    "inception_resnet_v1_facenet": ("inception_v4:inception_resnet_v1_facenet", {}),
    "inception_resnet_v2": ("inception_v4:inception_resnet_v2", {}),
    "inception_resnet_v2_slim": ("inception_v4:inception_resnet_v2_slim", {}),
    # Chollet 2017
    "xception": ("xception:xception", {}),
    "xception_cadene": ("xception:xception_cadene", {}),
    # Xie et al. 2017
    "resnext50_32x4d": ("resnext:resnext", {"depth": 50, "cardinality": 32, "base_width": 4}),
    "resnext101_32x4d": ("resnext:resnext", {"depth": 101, "cardinality": 32, "base_width": 4}),
    "resnext101_64x4d": ("resnext:resnext", {"depth": 101, "cardinality": 64, "base_width": 4}),
    "resnext101_32x8d": ("resnext:resnext", {"depth": 101, "cardinality": 32, "base_width": 8}),
    "resnext29_8x64d_cifar": ("resnext:resnext_cifar", {"depth": 29, "cardinality": 8, "base_width": 64}),
    # Wang et al. 2017
    "attention56": ("residual_attention:residual_attention", {"modules": (1, 1, 1)}),
    "attention92": ("residual_attention:residual_attention", {"modules": (1, 2, 3)}),
    "attention56_pytorchcv": ("residual_attention:residual_attention_pytorchcv", {"modules": (1, 1, 1)}),
    "attention92_pytorchcv": ("residual_attention:residual_attention_pytorchcv", {"modules": (1, 2, 3)}),
    "attentionnext56": ("residual_attention:attentionnext", {"modules": (1, 1, 1)}),
    "attention92_cifar": ("residual_attention:residual_attention_cifar", {"modules": (2, 2, 2)}),
    # Howard et al. 2017
    "mobilenet_v1": ("mobilenet:mobilenet_v1", {}),
    "mobilenet_v1_075": ("mobilenet:mobilenet_v1", {"width": 0.75}),
    "mobilenet_v1_050": ("mobilenet:mobilenet_v1", {"width": 0.5}),
    "mobilenet_v1_025": ("mobilenet:mobilenet_v1", {"width": 0.25}),
    "mobilenet_v1_timm": ("mobilenet:mobilenet_v1_timm", {}),
    "mobilenet_v1_tf": ("mobilenet:mobilenet_v1_tf", {}),
    "mobilenet_v1_075_tf": ("mobilenet:mobilenet_v1_tf", {"width": 0.75}),
    "mobilenet_v1_050_tf": ("mobilenet:mobilenet_v1_tf", {"width": 0.5}),
    "mobilenet_v1_025_tf": ("mobilenet:mobilenet_v1_tf", {"width": 0.25}),
    # Hu, Shen, Sun 2018
    "se_resnet18": ("senet:se_resnet", {"depth": 18}),
    "se_resnet34": ("senet:se_resnet", {"depth": 34}),
    "se_resnet50": ("senet:se_resnet", {"depth": 50}),
    "se_resnet101": ("senet:se_resnet", {"depth": 101}),
    "se_resnet152": ("senet:se_resnet", {"depth": 152}),
    "se_resnet18_timm": ("senet:se_resnet_timm", {"depth": 18}),
    "se_resnet34_timm": ("senet:se_resnet_timm", {"depth": 34}),
    "se_resnet50_v1_5": ("senet:se_resnet_v1_5", {"depth": 50}),
    "se_resnet50_caffe": ("senet:se_resnet_caffe", {"depth": 50}),
    "se_resnet101_caffe": ("senet:se_resnet_caffe", {"depth": 101}),
    "se_resnet152_caffe": ("senet:se_resnet_caffe", {"depth": 152}),
    "se_resnext50_32x4d": ("senet:se_resnext", {"depth": 50, "cardinality": 32, "base_width": 4}),
    "se_resnext101_32x4d": ("senet:se_resnext", {"depth": 101, "cardinality": 32, "base_width": 4}),
    "se_resnext50_32x4d_caffe": ("senet:se_resnext_caffe", {"depth": 50, "cardinality": 32, "base_width": 4}),
    "se_resnext101_32x4d_caffe": ("senet:se_resnext_caffe", {"depth": 101, "cardinality": 32, "base_width": 4}),
    "senet154": ("senet:senet154", {}),
    "senet154_gluon": ("senet:senet154_gluon", {}),
    "se_vgg16_bn": ("senet:se_vgg_bn", {"configuration": "D"}),
    "se_bn_inception": ("senet:se_bn_inception", {}),
    "se_inception_resnet_v2": ("senet:se_inception_resnet_v2", {}),
    "se_inception_resnet_v2_slim": ("senet:se_inception_resnet_v2_slim", {}),
    "se_mobilenet_v1": ("senet:se_mobilenet_v1", {}),
    "se_resnet20_cifar": ("senet:se_resnet_cifar", {"depth": 20}),
    "se_resnet56_cifar": ("senet:se_resnet_cifar", {"depth": 56}),
    "se_resnet110_cifar": ("senet:se_resnet_cifar", {"depth": 110}),
    "se_resnet20_cifar_b": ("senet:se_resnet_cifar_b", {"depth": 20}),
    "se_resnet56_cifar_b": ("senet:se_resnet_cifar_b", {"depth": 56}),
    "se_resnet110_cifar_b": ("senet:se_resnet_cifar_b", {"depth": 110}),
}

# What the attention slot takes by name.
ATTENTION: dict[str, str] = {
    "se": "convarium.networks.senet:SqueezeExcite",
    "spatial": "convarium.attention:SpatialMask",
    "hard": "convarium.attention:HardMask",
    "scale": "convarium.attention:ResidualScale",
}


def list_models(filter: str = "", exclude_filters: str | Sequence[str] = "") -> list[str]:
    """Catalogue names that match the wildcard ``filter`` and none of ``exclude_filters``, in the catalogue's order."""
    excluded = [exclude_filters] if isinstance(exclude_filters, str) else exclude_filters
    return [
        name
        for name in CATALOGUE
        if fnmatch.fnmatch(name, filter or "*") and not any(fnmatch.fnmatch(name, pattern) for pattern in excluded)
    ]


def check_name(name: str) -> str:
    """``name`` itself, or a :class:`UsageError` with the nearest names."""
    if name not in CATALOGUE:
        raise UsageError(f"no network named {name!r}; {nearest(name, CATALOGUE)} (all: convarium list)")
    return name


def resolve(address: str) -> Any:
    """``"module:attribute"``, of this folder unless the module's name is a full one."""
    module, attribute = address.split(":")
    return getattr(import_module(module if "." in module else f"{__name__}.{module}"), attribute)


def departures(name: str) -> list[str]:
    """Where the network departs from its paper: that list of its file, without what speaks of other networks."""
    notes = inspect.getdoc(import_module(f"{__name__}.{CATALOGUE[name][0].split(':')[0]}")) or ""
    listed = notes.partition("Departs from the paper:\n")[2].strip().split("\n\n")[0]
    items = [" ".join(item.split()) for item in f"\n{listed}".split("\n- ")[1:]]
    return [item.rstrip(";.") for item in items if _speaks_of(item, name)]


def _speaks_of(item: str, name: str) -> bool:
    """An item that begins with a network's name or the suffix of a form speaks of those alone."""
    subject = item.split("``")[1] if item.startswith("``") else ""
    if subject.startswith("_"):
        return name.endswith(subject)
    return subject not in CATALOGUE or subject == name


@overload
def create_model(name: str, *, features_only: Literal[False] = False, **arguments: Any) -> Network: ...
@overload
def create_model(name: str, *, features_only: Literal[True], **arguments: Any) -> FeatureNetwork: ...
def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    attention: str | Callable[[int], Any] | None = None,
    weights: str | Path | None = None,
    pretrained: bool = False,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
    global_pool: str | None = None,
    **arguments: Any,
) -> Network | FeatureNetwork:
    """Build a network of the catalogue.

    Args:
        name: a catalogue name (``list_models()``).
        num_classes: outputs; ``None`` means the paper's number, 0 returns pooled features.
        in_chans: input channels; ``None`` means the paper's number.
        attention: ``"se"``, ``"spatial"``, ``"hard"``, ``"scale"`` or ``channels -> module``, put at the end of every
            residual branch, Inception module or convolution of a chain.
        weights: public ones by name (``"torchvision:IMAGENET1K_V2"``, ``"hf-hub:owner/name"``), a run folder, or a
            file of any library's, loaded strictly; where ``num_classes`` or ``in_chans`` is given and differs from the
            weights', the classifier is a fresh one, the first convolution is adapted, and a line on stderr says so.
            The network then carries the preprocessing (``pretrained_cfg``) that makes named weights valid.
        pretrained: take the weights recommended for the network (``list_weights(name)[0]``).
        features_only: return the maps at each reduction instead of logits.
        out_indices: which of those maps.
        global_pool: ``"avg"``, ``"max"``, ``"flatten"``, or ``""`` (with ``num_classes=0``) for the map itself.
        arguments: the builder's own: ``act``, a callable that makes every activation (``nn.Tanh``); ``conv``, one that
            makes every convolution (``partial(blocks.conv_bn, norm=None)``: no batch norm); ...

    Raises:
        UsageError: a name, argument, pool or weights that do not exist, with those that do.
        DataError: weights that are not this network's.
    """
    check_name(name)
    weights = None if weights is None else str(weights)
    card = _card(name, weights, pretrained)
    address, own = CATALOGUE[name]
    builder = resolve(address)
    gate = None if attention is None else find_attention(attention)
    classes = card.classes if card and num_classes is None else num_classes
    given = dict(num_classes=classes, in_chans=in_chans, attention=gate, **arguments)
    given = {key: value for key, value in given.items() if value is not None}
    accepted = [key for key in inspect.signature(builder).parameters if key not in own]
    for key in given:
        if key not in accepted:
            raise UsageError(f"{name} takes no argument {key!r}; it takes: {', '.join(accepted)}")
    for key, least in (("in_chans", 1), ("num_classes", 0)):
        if key in given and not (isinstance(given[key], int) and given[key] >= least):
            raise UsageError(f"{key} must be a whole number of {least} or more; got {given[key]!r}")
    for key in ("act", "conv", "attention"):
        if key in given and not callable(given[key]):
            raise UsageError(f"{key} must be something that makes a module, such as torch.nn.Tanh; got {given[key]!r}")
    # What is to be replaced by weights needs no numbers of its own: on the meta device it takes no memory and no time.
    whole = (card or weights is not None) and num_classes is None and in_chans is None
    network = _build(builder, {**own, **_slots(builder, given)}, on_meta=bool(whole))
    network.name = name
    network.arguments = {key: value for key, value in {**given, "attention": attention}.items() if value is not None}
    if global_pool is not None:
        network.reset_classifier(network.num_classes, global_pool)
    if weights is not None or card:
        _load(network, weights, card, classes=num_classes is not None, channels=in_chans is not None)
    if features_only:
        from convarium.network import FeatureNetwork

        return FeatureNetwork(network, out_indices)
    return network


def _build(builder: Callable[..., Network], arguments: dict[str, Any], *, on_meta: bool) -> Network:
    if on_meta:
        from convarium import network as networks

        with networks.on_meta():
            network = builder(**arguments)
        stored = network.state_dict()
        if all(name in stored for name, _ in network.named_buffers()):  # nothing that no file holds
            return network
    return builder(**arguments)


def _card(name: str, weights: str | None, pretrained: bool) -> Card | None:
    from convarium.weights.cards import recommended
    from convarium.weights.source import named_card

    if weights is None:
        return recommended(name) if pretrained else None
    return named_card(name, weights)


def _load(network: Network, weights: str | None, card: Card | None, *, classes: bool, channels: bool) -> None:
    """Weights into ``network``; what had to be adapted or decided is said on stderr."""
    from convarium.adaptation import adapt
    from convarium.console import stderr
    from convarium.plan import apply_plan
    from convarium.weights.loading import load_source
    from convarium.weights.source import fetch_card, find_source

    def adapted(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        fitting, notes = adapt(tensors, network, classes=classes, channels=channels)
        for note in notes:
            stderr().print(f"{network.name}: {note}")
        return fitting

    source, asked = fetch_card(card) if card else find_source(network.name, str(weights)), network.num_classes
    if source.plan:
        if classes:
            network.reset_classifier(source.classes)  # the plan is for theirs
        apply_plan(network, source.plan)
    for said in load_source(network, source, adapted):
        stderr().print(said)
    if network.num_classes != asked:
        network.reset_classifier(asked)
        stderr().print(f"{network.name}: a fresh classifier for {asked} classes: the weights' is for {source.classes}")


def create_on_meta(name: str, **arguments: Any) -> Network:
    """The network without weights, on the meta device: for its shapes alone. Arguments are :func:`create_model`'s."""
    from convarium.network import on_meta

    with on_meta():
        return create_model(name, **arguments)


def find_attention(attention: str | Callable[..., Any]) -> Callable[..., Any]:
    """What makes a gate from a channel count: an attention by name, or ``attention`` itself.

    Raises:
        UsageError: no attention of that name.
    """
    if isinstance(attention, str):
        if attention not in ATTENTION:
            raise UsageError(f"no attention named {attention!r}; {nearest(attention, ATTENTION)}")
        return resolve(ATTENTION[attention])
    return attention


def _slots(builder: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """``given`` with ``act`` in every convolution too: what a builder's ``conv`` makes ends in that activation."""
    own_conv = inspect.signature(builder).parameters.get("conv")
    if "act" not in given or own_conv is None:
        return given
    return {**given, "conv": partial(given.get("conv", own_conv.default), act=given["act"])}
