"""One suite over the whole catalogue, with no exclusions: every network answers every verb.

`make check` runs it on the smallest network of each file, `make test` on all.
"""

import contextlib
import functools
import inspect

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from convarium import create_model, describe, list_models
from convarium.attention import HardMask, ResidualScale, SpatialMask
from convarium.blocks import conv_bn
from convarium.errors import UsageError
from convarium.facts import all_facts
from convarium.network import ConvHead
from convarium.networks import ATTENTION, CATALOGUE, create_on_meta, resolve
from convarium.networks.senet import SqueezeExcite
from convarium.surgery import insert_attention

NAMES = list(CATALOGUE)
GATES = (SqueezeExcite, SpatialMask, HardMask, ResidualScale)


# Printed figures more than 2 % from any count of the network; their notes in facts/ say what is known of them.
NOT_REPRODUCED = {
    ("attention92", "params"),
    ("bn_inception", "params"),
    ("googlenet", "params"),
    ("googlenet", "macs"),
    ("inception_v2", "macs"),
    ("inception_v3", "macs"),
    ("inception_resnet_v2_slim", "macs"),
    ("resnext101_32x4d", "macs"),
    ("se_inception_resnet_v2", "macs"),
    ("se_inception_resnet_v2_slim", "macs"),
    ("squeezenet1_0", "macs"),
    ("squeezenet1_1", "macs"),
}


def blank(network, batch=1, side=None):
    channels, height, width = network.input_size
    return torch.empty(batch, channels, side or height, side or width, device="meta")


def test_every_address_resolves():
    for address in (*(address for address, _ in CATALOGUE.values()), *ATTENTION.values()):
        assert callable(resolve(address))


def test_facts_cover_the_catalogue_exactly():
    assert set(all_facts()) == set(CATALOGUE)


# -- against the facts ------------------------------------------------------------------------------------------


def test_parameters_macs_and_stages_equal_the_reference(on_meta):
    facts = all_facts()[on_meta.name]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        on_meta(blank(on_meta))
    assert sum(p.numel() for p in on_meta.parameters()) == facts.counts.params
    assert counter.get_total_flops() == 2 * facts.counts.macs
    assert on_meta.input_size == facts.input
    found = on_meta.stage_shapes()
    assert list(found) == list(facts.stages) and found == facts.stages


@pytest.mark.parametrize("name", NAMES)
def test_printed_figures_are_the_counts_rounded_or_a_note_says_why(name):
    facts = all_facts()[name]
    counts = {"params": facts.counts.params, "macs": facts.counts.macs}
    for fact in facts.published:
        if fact.quantity in counts:
            digits = sum(map(str.isdigit, fact.printed.split("e")[0].lstrip("0.")))
            assert fact.note or float(f"{counts[fact.quantity]:.{digits - 1}e}") == fact.value
            near = abs(fact.value - counts[fact.quantity]) <= 0.02 * counts[fact.quantity]
            assert near or not fact.note or (name, fact.quantity) in NOT_REPRODUCED


# -- forward, backward, the head --------------------------------------------------------------------------------


def test_every_parameter_gets_a_gradient_and_checkpointing_the_same_one(network, smallest_images):
    # Eight values per channel at least: batch norm of two has gains without bound, and a thousand layers multiply them.
    side = network.min_input_size
    last = list(network.stage_shapes((network.input_size[0], side, side)).values())[-1]
    x = smallest_images(network, max(2, 8 // (last[1] * last[2])))
    network.train()
    gradients = []
    for checkpointed in (False, True):
        network.set_grad_checkpointing(checkpointed)
        torch.manual_seed(1)
        network.zero_grad(set_to_none=True)
        logits = network(x)
        assert logits.shape == (len(x), network.num_classes)
        logits.logsumexp(1).sum().backward()
        gradients.append({name: p.grad for name, p in network.named_parameters()})
    network.set_grad_checkpointing(False)
    network.zero_grad(set_to_none=True)
    network.eval()
    without = [name for name, gradient in gradients[0].items() if gradient is None or not gradient.isfinite().all()]
    assert without == []
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_the_head_is_the_rest_of_the_network(network, smallest_images):
    x = smallest_images(network)
    read = []
    hook = network.get_classifier().register_forward_hook(lambda _m, args, _y: read.append(args[0]))
    with torch.no_grad():
        features = network.forward_features(x)
        hidden = network.forward_head(features, pre_logits=True)
        assert features.ndim == 4 and features.shape[1] == network.num_features
        assert hidden.shape == (2, network.head_hidden_size)
        assert torch.equal(network.forward_head(features), network(x))
    hook.remove()
    pooled = read[0].mean((2, 3)) if isinstance(network.head, ConvHead) else read[0]
    assert torch.equal(pooled, hidden)


def test_intermediates_by_name_position_and_number(network, smallest_images):
    x = smallest_images(network)
    names = list(network.stages)
    with torch.no_grad():
        last, maps = network.forward_intermediates(x)
        assert len(maps) == len(names) and torch.equal(last, network.forward_features(x))
        by_name = network.forward_intermediates(x, [names[1], names[0]], stop_early=True, intermediates_only=True)
    assert torch.equal(by_name[0], maps[1]) and torch.equal(by_name[1], maps[0])
    info = network.feature_info
    assert [maps[names.index(name)].shape[1] for name in info.module_name()] == info.channels()


def test_state_dict_round_trip(network, smallest_images):
    twin = create_on_meta(network.name)
    twin.load_state_dict({key: value.clone() for key, value in network.state_dict().items()}, assign=True)
    x = smallest_images(network)
    with torch.no_grad():
        assert torch.equal(twin.eval()(x), network(x))


# -- on the meta device -----------------------------------------------------------------------------------------


def test_feature_info_and_configuration_tell_the_truth(on_meta):
    description = describe(on_meta)
    assert description.not_counted == {}
    info = on_meta.feature_info
    jumps = {row.name: row.jump_px for row in description.stages}
    assert info.reduction() == [jumps[name] for name in info.module_name()]
    assert info.module_name()[-1] == list(on_meta.stages)[-1]
    cfg, modules = on_meta.default_cfg, dict(on_meta.named_modules())
    assert modules[cfg["classifier"]] is on_meta.get_classifier()
    assert modules[cfg["first_conv"]].in_channels == on_meta.input_size[0]
    assert cfg["pool_size"] == list(on_meta.stage_shapes().values())[-1][1:]
    assert len(on_meta.mean) == len(on_meta.std) == on_meta.input_size[0]


def test_positions_numbers_and_wrong_ones(on_meta):
    x = blank(on_meta)
    assert len(on_meta.forward_intermediates(x, 2, intermediates_only=True)) == 2
    last, maps = on_meta.forward_intermediates(x, [-1])
    assert maps[0].shape == last.shape
    for number in (0, -1, 99):
        with pytest.raises(UsageError, match=f"stages; got a number of {number} last ones"):
            on_meta.forward_intermediates(x, number)
    with pytest.raises(UsageError, match="has no stage 'conv99'"):
        on_meta.forward_intermediates(x, ["conv99"])


def test_the_smallest_input_is_the_smallest(on_meta):
    """At that size all works; a pixel less, and a stage or the head fails or steps by more than the image."""
    side = on_meta.min_input_size
    assert on_meta(blank(on_meta, 2, side)).shape == (2, on_meta.num_classes)
    assert max(on_meta.feature_info.reduction()) <= side
    with pytest.raises(UsageError, match=f"at least {side}x{side} pixels; got {side - 1}x{side - 1}: its "):
        on_meta(blank(on_meta, 2, side - 1))
    on_meta.min_input_size = 1
    try:
        too_coarse = max(on_meta.feature_info.reduction()) > side - 1
        with pytest.raises((RuntimeError, UsageError)) if not too_coarse else contextlib.suppress(RuntimeError):
            on_meta(blank(on_meta, 2, side - 1))
    finally:
        on_meta.min_input_size = side


def test_other_classes_and_channels(each_name):
    network = create_on_meta(each_name, num_classes=0, in_chans=4).eval()
    x = blank(network)
    assert network(x).shape == (1, network.head_hidden_size)
    assert isinstance(network.get_classifier(), nn.Identity)
    network.reset_classifier(7)
    assert network(x).shape == (1, 7) and network.num_classes == 7
    network.reset_classifier(0, "")
    assert network(x).shape == (1, *list(network.stage_shapes().values())[-1])
    assert network.pretrained_cfg["input_size"][0] == 4


def test_features_only_is_the_pyramid(each_name):
    features = create_on_meta(each_name, features_only=True).eval()
    x = blank(features.network)
    maps = features(x)
    assert [m.shape[1] for m in maps] == features.feature_info.channels()
    first = create_on_meta(each_name, features_only=True, out_indices=[0]).eval()
    assert list(first.network.stages)[-1] == first.feature_info.module_name()[0]
    assert [m.shape for m in first(x)] == [maps[0].shape]


# -- the slots --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ATTENTION)
def test_the_attention_slot_adds_gates_and_keeps_shapes(each_name, attention):
    network = create_on_meta(each_name, attention=attention).eval()
    kind = resolve(ATTENTION[attention])
    gates = [module for module in network.modules() if isinstance(module, kind)]
    assert gates
    if attention == "se":
        assert all(gate.fc1.out_features == max(1, gate.fc1.in_features // 16) for gate in gates)
    assert network.stage_shapes() == all_facts()[each_name].stages


def test_gates_are_inserted_where_they_are_built(each_name):
    network = create_on_meta(each_name).eval()
    if any(isinstance(module, GATES[:3]) for module in network.modules()):
        with pytest.raises(UsageError, match="no empty attention slot"):
            insert_attention(network, "se")
        return
    insert_attention(network, "se", reduction=8)
    built = create_on_meta(each_name, attention=functools.partial(SqueezeExcite, reduction=8))
    shapes = [{key: value.shape for key, value in each.state_dict().items()} for each in (network, built)]
    assert shapes[0] == shapes[1]


class Marked(nn.Tanh):
    """An activation that no network has of its own."""


def test_the_act_slot_reaches_every_activation(each_name):
    network = create_on_meta(each_name, act=Marked).eval()
    own = create_on_meta(each_name)
    inside_gates = {id(m) for gate in network.modules() if isinstance(gate, GATES) for m in gate.modules()}
    kept = [m for m in network.modules() if isinstance(m, nn.ReLU) and id(m) not in inside_gates]
    assert kept == [] and any(isinstance(m, Marked) for m in network.modules())
    assert {k: v.shape for k, v in network.state_dict().items()} == {k: v.shape for k, v in own.state_dict().items()}
    assert network.stage_shapes() == all_facts()[each_name].stages


def test_the_conv_slot_reaches_every_norm(each_name):
    """With another norm in the slot no batch norm is left, and maps keep their shapes."""
    own = inspect.signature(resolve(CATALOGUE[each_name][0])).parameters["conv"].default
    network = create_on_meta(each_name, conv=functools.partial(own, norm=None)).eval()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    assert network.stage_shapes() == all_facts()[each_name].stages


# -- single laws and bad requests -------------------------------------------------------------------------------


def test_the_pyramid_is_timms():
    """timm's resnet50: 64, 256, 512, 1024 and 2048 channels at 2, 4, 8, 16 and 32 pixels."""
    info = create_on_meta("resnet50").feature_info
    assert info.channels() == [64, 256, 512, 1024, 2048] and info.reduction() == [2, 4, 8, 16, 32]
    assert create_on_meta("resnet20_cifar").feature_info.reduction() == [1, 2, 4]


def test_an_image_too_small_is_told_which_stage_collapsed():
    for name, side, message in [
        ("resnet18", 31, "its stage conv5_x takes steps of 32 pixels"),
        ("resnet18", 8, "its stage conv4_x takes steps of 16 pixels"),
        ("lenet5", 20, "its stage C5 cannot work on a 2x2 map"),
        ("vgg11", 100, "its head cannot work on a 3x3 map"),
    ]:
        network = create_on_meta(name)
        with pytest.raises(UsageError, match=f"{name} takes images of at least .* got {side}x{side}: {message}"):
            network(blank(network, 1, side))


def test_wildcards():
    assert list_models("se_*_cifar") == ["se_resnet20_cifar", "se_resnet56_cifar", "se_resnet110_cifar"]
    assert list_models() == NAMES
    assert list_models("resnet*", exclude_filters=["*_cifar*", "*_v1_5", "*_caffe"]) == [
        f"resnet{d}" for d in (18, 34, 50, 101, 152)
    ]


def test_another_norm_by_the_conv_slot():
    groups = functools.partial(conv_bn, norm=functools.partial(nn.GroupNorm, 4))
    network = create_on_meta("resnet20_cifar", conv=groups)
    assert sum(isinstance(m, nn.GroupNorm) for m in network.modules()) == 19


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(name="resnet51"), "no network named 'resnet51'; nearest: resnet50"),
        (dict(name="resnet50", attention="sc"), "no attention named 'sc'; .*se"),
        (dict(name="resnet50", width=2), "resnet50 takes no argument 'width'; it takes: num_classes"),
        (dict(name="resnet50", depth=34), "resnet50 takes no argument 'depth'"),
        (dict(name="resnet20_cifar", num_classes=-1), "num_classes must be a whole number of 0 or more; got -1"),
        (dict(name="resnet20_cifar", num_classes="10"), "num_classes must be .*; got '10'"),
        (dict(name="resnet20_cifar", in_chans=0), "in_chans must be a whole number of 1 or more; got 0"),
        (dict(name="resnet20_cifar", act="tanh"), "act must be something that makes a module, .*; got 'tanh'"),
        (dict(name="resnet20_cifar", attention=5), "attention must be something that makes a module"),
        (dict(name="resnet20_cifar", global_pool="mean"), "no global pool named 'mean'"),
        (dict(name="resnet20_cifar", global_pool=""), "needs num_classes=0"),
        (dict(name="resnet20_cifar", features_only=True, out_indices=[5]), "has 3 feature maps"),
    ],
)
def test_bad_requests_name_what_was_asked_and_what_there_is(arguments, message):
    with pytest.raises(UsageError, match=message):
        create_model(**arguments)
