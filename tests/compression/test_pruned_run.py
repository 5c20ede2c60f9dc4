"""A pruned run in its life: it is opened, trained on, adapted to other classes, pruned again."""

import json

import pytest
import torch

from convarium import create_model, train
from convarium.compression.groups import find_groups
from convarium.compression.importance import l1_norm
from convarium.compression.prune import prune
from convarium.runs import CONFIG, load_run, save_run


@pytest.fixture(scope="module")
def pruned(run, tmp_path_factory):
    """Half of the channels of the trained ResNet-20, saved as a run."""
    folder, loaded = tmp_path_factory.mktemp("pruned"), load_run(run)
    prune(loaded.model, l1_norm(loaded.model, find_groups(loaded.model)), ratio=0.5)
    save_run(folder, loaded.model, loaded.preprocessing, loaded.class_names, data=loaded.own["data"])
    return folder


def test_it_is_rebuilt_from_its_configuration(pruned):
    model = load_run(pruned).model
    assert model.num_features == 32 and model.head.in_features == 32
    x = torch.randn(2, 3, 16, 16)
    again = create_model("resnet20_cifar", num_classes=3, weights=pruned).eval()
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
    assert again.plan == model.plan == json.loads((pruned / CONFIG).read_text())["convarium"]["plan"]


def test_training_that_begins_from_it_keeps_its_widths(pruned, images, tmp_path):
    options = dict(weights=str(pruned), image_size=16, batch_size=8, threads=1)
    train(str(images), output=tmp_path / "tuned", epochs=1, **options)
    tuned, before = load_run(tmp_path / "tuned").model, load_run(pruned).model
    assert tuned.plan == before.plan and tuned.num_features == 32
    assert not torch.equal(tuned.head.classifier.weight, before.head.classifier.weight)


def test_other_classes_get_a_fresh_classifier_on_the_pruned_features(pruned, draw_folder, tmp_path, capsys):
    for names in ({"elk": 8, "fox": 8}, {"elk": 8, "fox": 8, "gnu": 8}):  # another number, and as many others
        data = draw_folder(tmp_path / "data" / str(len(names)), names)
        options = dict(weights=str(pruned), image_size=16, batch_size=8, epochs=1, threads=1)
        train(str(data), output=tmp_path / str(len(names)), **options)
        model = load_run(tmp_path / str(len(names))).model
        assert model.get_classifier().weight.shape == (len(names), 32)
        assert "a fresh classifier" in capsys.readouterr().err
