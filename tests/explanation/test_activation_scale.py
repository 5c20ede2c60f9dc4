"""How large the last map is: its figures against numpy's, and over a run."""

import json

import numpy as np
import pytest
import torch

from convarium.cli import main
from convarium.explanation.activation_scale import activation_scale


def test_batches_count_as_one_map():
    torch.manual_seed(0)
    maps = torch.relu(torch.randn(5, 4, 3, 3))
    maps[:, 1] = 0
    maps[:2, 2] = 0
    scale, values = activation_scale(maps.split(2)), maps.numpy()
    assert (scale.mean, scale.std) == (pytest.approx(values.mean()), pytest.approx(values.std()))
    assert scale.zero_percent == pytest.approx(100 * np.mean(values == 0))
    assert scale.silent_percent == 25


def test_a_dead_map_is_all_zero():
    scale = activation_scale([torch.zeros(2, 3, 4, 4)])
    assert (scale.mean, scale.std, scale.zero_percent, scale.silent_percent) == (0, 0, 100, 100)


def test_the_verb_follows_a_run(snapshot_run, images, tmp_path, capsys):
    flags = ["--data", str(images), "--limit", "30", "--count", "1", "--method", "activation-scale", "--json"]
    assert main(["explain", str(snapshot_run), *flags, "--output", str(tmp_path)]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert list(row["numbers"]) == ["before training", "after epoch 1", "after epoch 2"]
    assert all(0 <= moment["zero_percent"] <= 100 for moment in row["numbers"].values())
    assert "the map of stage3, which the head reads, over 6 images of" in row["says"]
