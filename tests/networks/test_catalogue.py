"""One suite over the whole catalogue, with no exclusions: every network, built once, answers every verb."""

import functools

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from convarium import create_model, describe, list_models
from convarium.errors import UsageError
from convarium.facts import all_facts
from convarium.networks import ATTENTION, CATALOGUE, resolve
from convarium.networks.senet import SqueezeExcite

NAMES = list(CATALOGUE)


def on_meta(name, **arguments):
    with torch.device("meta"):
        return create_model(name, **arguments)


def smallest(network, batch=2):
    side = network.min_input_size
    return torch.randn(batch, network.input_size[0], side, side, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=NAMES)
def network(request):
    torch.manual_seed(0)
    return create_model(request.param)


def test_every_address_resolves():
    for address, _ in CATALOGUE.values():
        assert callable(resolve(address))
    for address in ATTENTION.values():
        assert callable(resolve(address))


def test_facts_cover_the_catalogue_exactly():
    assert set(all_facts()) == set(CATALOGUE)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_macs_equal_the_reference_counts(name):
    counts = all_facts()[name].counts
    network = on_meta(name).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, *network.input_size, device="meta"))
    assert sum(p.numel() for p in network.parameters()) == counts.params
    assert counter.get_total_flops() == 2 * counts.macs
    assert network.input_size == all_facts()[name].input


@pytest.mark.parametrize("name", NAMES)
def test_stages_and_their_maps_are_the_papers(name):
    stages = all_facts()[name].stages
    found = on_meta(name).stage_shapes()
    assert list(found) == list(stages) and found == stages


@pytest.mark.parametrize("name", NAMES)
def test_printed_figures_are_the_counts_rounded_or_a_note_says_why(name):
    facts = all_facts()[name]
    counts = {"params": facts.counts.params, "macs": facts.counts.macs}
    for fact in facts.published:
        if fact.quantity in counts:
            digits = sum(map(str.isdigit, fact.printed.split("e")[0].lstrip("0.")))
            assert fact.note or float(f"{counts[fact.quantity]:.{digits - 1}e}") == fact.value
            assert fact.value == pytest.approx(counts[fact.quantity], rel=0.02)


def test_forward_and_backward_at_the_smallest_input(network):
    network.train()
    logits = network(smallest(network))
    assert logits.shape == (2, network.num_classes)
    logits.square().sum().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []
    network.zero_grad(set_to_none=True)
    network.eval()


def test_the_head_is_the_rest_of_the_network(network):
    x = smallest(network)
    with torch.no_grad():
        features = network.forward_features(x)
        hidden = network.forward_head(features, pre_logits=True)
        assert features.ndim == 4 and features.shape[1] == network.num_features
        assert hidden.shape == (2, network.head_hidden_size)
        assert torch.equal(network.get_classifier()(hidden), network(x))


def test_intermediates_by_name_position_and_number(network):
    x = smallest(network)
    names = list(network.stages)
    with torch.no_grad():
        last, maps = network.forward_intermediates(x)
        assert len(maps) == len(names) and torch.equal(last, network.forward_features(x))
        by_name = network.forward_intermediates(x, [names[1], names[0]], stop_early=True, intermediates_only=True)
        assert torch.equal(by_name[0], maps[1]) and torch.equal(by_name[1], maps[0])
        assert torch.equal(network.forward_intermediates(x, [-1], intermediates_only=True)[0], last)
        assert len(network.forward_intermediates(x, 2, intermediates_only=True)) == 2
    for number in (0, -1, 99):
        with pytest.raises(UsageError, match=f"stages; got a number of {number} last ones"):
            network.forward_intermediates(x, number)
    with pytest.raises(UsageError, match="has no stage 'conv99'"):
        network.forward_intermediates(x, ["conv99"])


def test_feature_info_tells_the_truth(network):
    info = network.feature_info
    with torch.no_grad():
        maps = network.forward_intermediates(smallest(network), info.module_name(), intermediates_only=True)
    assert [m.shape[1] for m in maps] == info.channels()
    jumps = {row.name: row.jump_px for row in describe(network).stages}
    assert info.reduction() == [jumps[name] for name in info.module_name()]
    assert info.module_name()[-1] == list(network.stages)[-1]


def test_the_pyramid_is_timms():
    """timm's resnet50: 64, 256, 512, 1024 and 2048 channels at 2, 4, 8, 16 and 32 pixels."""
    info = on_meta("resnet50").feature_info
    assert info.channels() == [64, 256, 512, 1024, 2048] and info.reduction() == [2, 4, 8, 16, 32]
    assert on_meta("resnet20_cifar").feature_info.reduction() == [1, 2, 4]


@pytest.mark.parametrize("name", NAMES)
def test_num_classes_zero_returns_the_features_before_the_classifier(name):
    network = on_meta(name, num_classes=0).eval()
    x = torch.empty(1, *network.input_size, device="meta")
    assert network(x).shape == (1, network.head_hidden_size)
    assert isinstance(network.get_classifier(), nn.Identity)
    network.reset_classifier(7)
    assert network(x).shape == (1, 7) and network.num_classes == 7
    network.reset_classifier(0, "")
    assert network(x).shape == (1, *list(network.stage_shapes().values())[-1])


@pytest.mark.parametrize("name", NAMES)
def test_features_only_is_the_pyramid(name):
    features = on_meta(name, features_only=True).eval()
    maps = features(torch.empty(1, *features.network.input_size, device="meta"))
    assert [m.shape[1] for m in maps] == features.feature_info.channels()
    first = on_meta(name, features_only=True, out_indices=[0])
    assert list(first.network.stages)[-1] == first.feature_info.module_name()[0]
    last = on_meta(name, features_only=True, out_indices=[-1]).eval()
    assert last(torch.empty(1, *features.network.input_size, device="meta"))[0].shape == maps[-1].shape


@pytest.mark.parametrize("name", NAMES)
def test_other_channels_and_classes(name):
    network = on_meta(name, in_chans=4, num_classes=17).eval()
    assert network(torch.empty(1, *network.input_size, device="meta")).shape == (1, 17)
    assert network.pretrained_cfg["input_size"][0] == 4


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("attention", ["se", functools.partial(SqueezeExcite, reduction=8)], ids=["se", "partial"])
def test_the_attention_slot_adds_gates_and_keeps_shapes(name, attention):
    network = on_meta(name, attention=attention).eval()
    gates = [module for module in network.modules() if isinstance(module, SqueezeExcite)]
    assert gates
    assert network.stage_shapes() == on_meta(name).stage_shapes()
    reduction = 16 if attention == "se" else 8
    assert all(gate.fc1.out_features == max(1, gate.fc1.in_features // reduction) for gate in gates)


def test_state_dict_round_trip_and_configuration(network):
    twin = create_model(network.name)
    twin.load_state_dict(network.state_dict())
    x = smallest(network)
    with torch.no_grad():
        assert torch.equal(twin.eval()(x), network.eval()(x))
    cfg = network.default_cfg
    modules = dict(network.named_modules())
    assert modules[cfg["classifier"]] is network.get_classifier()
    assert modules[cfg["first_conv"]].in_channels == network.input_size[0]
    assert cfg["pool_size"] == list(network.stage_shapes().values())[-1][1:]


def test_gradient_checkpointing_gives_the_same_gradients(network):
    x = smallest(network)
    gradients = []
    for enable in (False, True):
        network.set_grad_checkpointing(enable)
        network.train()
        torch.manual_seed(1)
        network.zero_grad(set_to_none=True)
        network(x).logsumexp(1).sum().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    network.set_grad_checkpointing(False)
    network.zero_grad(set_to_none=True)
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_too_small_is_refused_by_name_and_size(name):
    network = on_meta(name)
    side = network.min_input_size - 1
    with pytest.raises(UsageError, match=f"{name} takes images of at least {side + 1}x{side + 1} pixels; got {side}x"):
        network(torch.empty(1, network.input_size[0], side, side, device="meta"))


def test_wildcards():
    assert list_models("se_*_cifar") == ["se_resnet20_cifar", "se_resnet56_cifar", "se_resnet110_cifar"]
    assert list_models() == NAMES
    assert list_models("resnet*", exclude_filters=["*_cifar", "*_v1_5"]) == [
        f"resnet{d}" for d in (18, 34, 50, 101, 152)
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(name="resnet51"), "no network named 'resnet51'; nearest: resnet50"),
        (dict(name="resnet50", attention="sc"), "no attention named 'sc'; .*se"),
        (dict(name="resnet50", width=2), "resnet50 takes no argument 'width'; it takes: num_classes"),
        (dict(name="resnet50", depth=34), "resnet50 takes no argument 'depth'"),
        (dict(name="resnet20_cifar", num_classes=-1), "num_classes must be 0 .*got -1"),
        (dict(name="resnet20_cifar", in_chans=0), "in_chans must be 1 or more; got 0"),
        (dict(name="resnet20_cifar", global_pool="mean"), "no global pool named 'mean'"),
        (dict(name="resnet20_cifar", global_pool=""), "needs num_classes=0"),
        (dict(name="resnet20_cifar", features_only=True, out_indices=[5]), "has 3 feature maps"),
    ],
)
def test_bad_requests_name_what_was_asked_and_what_there_is(arguments, message):
    with pytest.raises(UsageError, match=message):
        create_model(**arguments)
