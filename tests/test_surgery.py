"""Gates put into a network change nothing at the start and learn; dense heads slide over larger images."""

import pytest
import torch
from torch import nn

from convarium import create_model, insert_attention, to_fully_convolutional
from convarium.errors import UsageError
from convarium.networks.senet import SqueezeExcite


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("attention", ["se", "spatial", "hard"])
@pytest.mark.parametrize("name", ["resnet20_cifar", "lenet5", "plain20_cifar"])
def test_gates_change_nothing_at_the_start_and_get_gradients(name, attention):
    torch.manual_seed(0)
    network = create_model(name).eval()
    x = random(2, *network.input_size)
    before = network(x)
    added = insert_attention(network, attention)
    assert len(added) == (3 if name == "lenet5" else 9)
    torch.testing.assert_close(network(x), before, rtol=0, atol=1e-5)
    network.train()(x).logsumexp(1).sum().backward()
    for path in added:
        gradients = [p.grad for p in network.get_submodule(path).parameters()]
        assert all(g is not None for g in gradients) and any(g.abs().sum() > 0 for g in gradients)


def test_chosen_stages_and_options():
    network = create_model("resnet20_cifar")
    added = insert_attention(network, "se", stages=["stage2"], reduction=8)
    assert added == [f"stages.stage2.{i}.attention" for i in range(3)]
    assert network.get_submodule(added[0]).fc1.out_features == 4
    assert isinstance(network.stages.stage1[0].attention, nn.Identity)
    twin = create_model("resnet20_cifar")
    insert_attention(twin, "se", stages=["stage2"], reduction=8)
    twin.load_state_dict(network.state_dict())


def test_gates_stand_where_create_model_puts_them():
    network = create_model("resnet20_cifar")
    insert_attention(network, "se")
    built = create_model("resnet20_cifar", attention="se")
    assert {k: v.shape for k, v in network.state_dict().items()} == {k: v.shape for k, v in built.state_dict().items()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(attention="sq"), "no attention named 'sq'; .*se"),
        (dict(attention="se", stages=["conv9"]), "resnet20_cifar has no stage 'conv9'; stages: conv1, stage1"),
        (dict(attention="se", stages=["conv1"]), "no empty attention slot in conv1"),
        (dict(attention="se", ratio=8), "attention 'se' takes no 'ratio'; it takes: reduction"),
        (dict(attention="scale"), "'scale' changes its input as made"),
        (dict(attention=SqueezeExcite, stages=[]), "no empty attention slot"),
    ],
)
def test_what_cannot_be_inserted_is_refused_and_nothing_is_changed(arguments, message):
    network = create_model("resnet20_cifar")
    before = list(network.state_dict())
    with pytest.raises(UsageError, match=message):
        insert_attention(network, **arguments)
    assert list(network.state_dict()) == before


def test_a_second_time_there_is_no_empty_slot():
    network = create_model("resnet20_cifar")
    insert_attention(network, "se")
    with pytest.raises(UsageError, match="no empty attention slot"):
        insert_attention(network, "spatial")


@pytest.mark.parametrize("name", ["lenet5", "lenet5_modern"])
def test_a_dense_head_slides_over_a_larger_image(name):
    """The class scores of a larger image are the mean of those at every place; each is the head's, on that window."""
    torch.manual_seed(0)
    network = create_model(name).eval()
    sliding = to_fully_convolutional(network)
    x = random(2, 1, 32, 32)
    torch.testing.assert_close(sliding(x), network(x), rtol=1e-5, atol=1e-3)
    assert to_fully_convolutional(network).stages.C1 is network.stages.C1
    larger = random(1, 1, 40, 36)
    features = network.forward_features(larger)
    assert features.shape[2:] == (3, 2)
    rows = features.permute(0, 2, 3, 1).reshape(6, -1, 1, 1)
    torch.testing.assert_close(sliding(larger)[0], network.forward_head(rows).mean(0), rtol=1e-5, atol=1e-3)
    with pytest.raises(UsageError, match="to_fully_convolutional"):
        network(larger)


def test_windows_of_the_map_are_what_the_first_dense_layer_reads():
    """VGG's fc6 is a 7x7 convolution: on an 8x9 map its six scores are the dense head's on the six windows."""
    from convarium.network import Head, Network
    from convarium.networks.vgg import dense

    torch.manual_seed(0)
    hidden = {"fc6": dense(3 * 7 * 7, 8, nn.ReLU), "fc7": dense(8, 8, nn.ReLU)}
    head = Head(3 * 7 * 7, 5, pool="flatten", hidden=hidden, hidden_size=8)
    network = Network({"block": nn.Identity()}, head, input_size=(3, 7, 7), min_input_size=7).eval()
    sliding = to_fully_convolutional(network)
    x = random(1, 3, 8, 9)
    windows = [x[:, :, i : i + 7, j : j + 7] for i in range(2) for j in range(3)]
    torch.testing.assert_close(sliding(x), torch.stack([network(w) for w in windows]).mean(0))
    assert sliding.forward_head(x, pre_logits=True).shape == (1, 8)
    sliding.reset_classifier(4)
    assert sliding(x).shape == (1, 4)
    assert sliding.head.hidden.fc6.fc.weight.data_ptr() == network.head.hidden.fc6.fc.weight.data_ptr()


def test_a_network_with_global_pooling_is_returned_as_it_is():
    network = create_model("resnet20_cifar")
    assert to_fully_convolutional(network) is network
