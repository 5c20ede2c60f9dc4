"""Auxiliary heads: their losses count as the paper says, they learn, and they are left behind."""

import pytest
import torch
from torch.nn import functional as F

from convarium import create_model, train
from convarium.networks import create_on_meta
from convarium.tensors import load_tensors
from convarium.training.auxiliary import WithAuxiliary


def test_the_loss_is_the_main_one_plus_three_tenths_of_each_other():
    torch.manual_seed(0)
    model = WithAuxiliary(create_model("googlenet", num_classes=3), 64).eval()
    x, labels = torch.rand(2, 3, 64, 64), torch.tensor([0, 2])
    logits = model(x)
    assert [each.shape for each in logits] == [(2, 3)] * 3
    assert torch.equal(logits[0], model.network(x))
    main, first, second = (F.cross_entropy(each, labels) for each in logits)
    torch.testing.assert_close(model.loss(logits, lambda z: F.cross_entropy(z, labels)), main + 0.3 * (first + second))


def test_each_head_reads_the_map_of_its_stage():
    torch.manual_seed(0)
    model = WithAuxiliary(create_model("googlenet", num_classes=3), 64).eval()
    x = torch.rand(1, 3, 64, 64)
    maps = model.network.forward_intermediates(x, ["inception_4a", "inception_4d"], intermediates_only=True)
    for logits, head, map_ in zip(model(x)[1:], model.heads.values(), maps, strict=True):
        assert torch.equal(logits, head(map_))


def test_heads_get_gradients_and_pass_them_on():
    torch.manual_seed(0)
    model = WithAuxiliary(create_model("googlenet", num_classes=3), 64).train()
    logits = model(torch.rand(2, 3, 64, 64))
    F.cross_entropy(logits[1], torch.tensor([0, 1])).backward()
    assert all(p.grad is not None for p in model.heads["inception_4a"].parameters())
    assert model.network.stages["conv1"].conv.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.network.stages["inception_4b"].parameters())


@pytest.mark.parametrize(("name", "count"), [("googlenet", 13_378_280), ("googlenet_tv", 13_004_888)])
def test_counts_with_both_heads(name, count):
    with torch.device("meta"):
        model = WithAuxiliary(create_on_meta(name), 224)
    assert sum(p.numel() for p in model.parameters()) == count


def test_a_network_without_heads_is_trained_on_its_own_loss():
    model = WithAuxiliary(create_model("lenet5"), 32)
    logits = model(torch.rand(2, 1, 32, 32))
    labels = torch.tensor([1, 2])
    assert len(logits) == 1 and not list(model.heads)
    loss = model.loss(logits, lambda z: F.cross_entropy(z, labels))
    torch.testing.assert_close(loss, F.cross_entropy(logits[0], labels))


@pytest.mark.long
def test_train_uses_the_heads_and_the_run_holds_none(images, tmp_path):
    options = dict(model="googlenet", image_size=32, epochs=1, batch_size=18, threads=1, ema=0.9)
    train(str(images), output=tmp_path / "run", **options)
    stored, _ = load_tensors(tmp_path / "run" / "model.safetensors")
    assert set(stored) == set(create_model("googlenet", num_classes=3).state_dict())
    checkpoint = next((tmp_path / "run" / "checkpoints").glob("*.safetensors"))
    assert any(key.startswith("model.heads.inception_4a") for key in load_tensors(checkpoint)[0])
