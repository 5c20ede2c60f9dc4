"""How features come to be: what is shown at each snapshot is that snapshot's own strongest unit."""

import json
import shutil

import numpy as np
import pytest
import torch

from convarium import load_run
from convarium.cli import main
from convarium.explanation.deconvnet import deconvnet
from convarium.explanation.evolution import evolution, spread_channels
from convarium.snapshots import snapshots


def test_every_feature_is_the_strongest_of_all_images_under_its_own_weights(snapshot_run):
    torch.manual_seed(0)
    moments, images = list(snapshots(load_run(snapshot_run))), torch.randn(5, 3, 16, 16)

    def batches(positions):
        for part in np.array_split(np.arange(5) if positions is None else positions, 2):
            yield part, images[part]

    found = evolution(moments, batches, {"stage1": [0, 5], "stage3": [2]})
    assert [(f.epoch, f.channel) for f in found["stage1"]] == [(e, c) for e in (0, 1, 2) for c in (0, 5)]
    networks = dict(moments)
    for stage, features in found.items():
        for feature in features:
            (maps,) = networks[feature.epoch].forward_intermediates(images, [stage], intermediates_only=True)
            own = maps.detach()[:, feature.channel]
            assert feature.value == pytest.approx(own.max().item(), rel=1e-5)
            assert own[feature.image, feature.row, feature.column] == pytest.approx(feature.value, rel=1e-5)
            one = images[feature.image : feature.image + 1]
            alone = deconvnet(networks[feature.epoch], one, stage, feature.channel, (feature.row, feature.column))
            torch.testing.assert_close(feature.signal, alone[0], atol=1e-5, rtol=1e-4)


def test_channels_are_spread_over_all_and_few_are_all():
    assert spread_channels(64)[0] == 0 and spread_channels(64)[-1] == 63 and len(spread_channels(64)) == 6
    assert spread_channels(3) == [0, 1, 2]


def test_the_verb_draws_a_sheet_per_stage(snapshot_run, images, tmp_path, capsys):
    flags = ["--data", str(images), "--limit", "30", "--count", "1", "--method", "evolution", "--json"]
    asked = ["--stage", "stage2", "--channel", "7"]
    assert main(["explain", str(snapshot_run), *flags, *asked, "--output", str(tmp_path)]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert [(f["channel"], f["epoch"]) for f in row["numbers"]["features"]] == [(7, 0), (7, 1), (7, 2)]
    assert row["numbers"]["features"][0]["image"].endswith(".png")


def test_a_run_without_snapshots_is_told_how_to_keep_them(snapshot_run, images, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(snapshot_run, run)
    for path in (run / "checkpoints").glob("epoch-*"):
        path.unlink()
    assert main(["explain", str(run), "--data", str(images), "--method", "evolution"]) == 2
    said = capsys.readouterr().err
    assert "kept no snapshots: train with --snapshots" in said and said.count("\n") == 1
    assert main(["explain", str(snapshot_run), "--method", "evolution"]) == 2
    assert "evolution needs images" in capsys.readouterr().err
