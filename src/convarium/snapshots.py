"""The weights of a run before, during and after its training: what ``train --snapshots`` keeps, and its beginning."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from convarium.atomic import make_folder
from convarium.errors import DataError
from convarium.networks import create_model
from convarium.recipe import Recipe, read_recipe
from convarium.runs import CHECKPOINTS, RECIPE, Run
from convarium.tensors import check_fit, digest, load_tensors, save_tensors

if TYPE_CHECKING:
    from convarium.network import Network

NAME = re.compile(r"epoch-(\d+)\.safetensors")


def save_snapshot(folder: Path, epoch: int, network: Network) -> None:
    """Write ``epoch-<epoch>.safetensors`` into ``folder``, a run's ``checkpoints``; one that is there is replaced."""
    weights = network.state_dict()
    make_folder(folder)
    save_tensors(folder / f"epoch-{epoch:04d}.safetensors", weights, {"sha256": digest(weights, str(epoch))})


def snapshots(run: Run) -> Iterator[tuple[int, Network]]:
    """Each epoch that was kept (0: before the first) with its network in evaluation mode, in order, one at a time.

    Raises:
        DataError: a snapshot that is damaged, or not of this network.
    """
    for epoch, path in kept(run).items():
        yield epoch, _load(run, epoch, path)


def kept(run: Run) -> dict[int, Path]:
    """The epochs that have a snapshot, in order, and its file."""
    paths = (run.path / CHECKPOINTS).glob("epoch-*.safetensors")
    found = {int(match[1]): path for path in paths if (match := NAME.fullmatch(path.name))}
    return dict(sorted(found.items()))


def history(run: Run) -> Iterator[tuple[int | None, Network]]:
    """The networks of :func:`moments` in evaluation mode, one at a time.

    Raises:
        DataError: a snapshot that is damaged, or not of this network.
    """
    files = kept(run)
    for epoch in moments(run):
        if epoch in files:
            yield epoch, _load(run, epoch, files[epoch])
        elif epoch == 0:
            yield epoch, untrained(run)
        else:
            yield epoch, run.model


def moments(run: Run) -> list[int | None]:
    """Epochs whose network is known, in order: 0 before training, where it began from a seed; every snapshot; the last,
    as the run has it, which is ``None`` in a folder without a recipe."""
    recipe = _recipe(run)
    epochs = {*kept(run)} | ({0} if recipe and not recipe.weights else set())
    last = recipe.epochs if recipe else None
    return [*sorted(epochs - {last}), last]


def untrained(run: Run) -> Network:
    """The network as its training began, in evaluation mode, rebuilt from the recipe's seed.

    Raises:
        DataError: no recipe, or a training that began from weights.
    """
    import torch

    recipe = read_recipe(run.path / RECIPE)[0]
    if recipe.weights:
        raise DataError(f"{run.path} began from {recipe.weights}, not from a seed; --snapshots 0 keeps its beginning")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return create_model(run.model.name, **run.model.arguments).eval()


def _load(run: Run, epoch: int, path: Path) -> Network:
    weights, metadata = load_tensors(path)
    check_fit(run.model, weights, path)
    if metadata.get("sha256") != digest(weights, str(epoch)):
        raise DataError(f"{path} is damaged: its hash does not match its content; remove it")
    network = copy.deepcopy(run.model)
    network.load_state_dict(weights)
    return network


def _recipe(run: Run) -> Recipe | None:
    path = run.path / RECIPE
    return read_recipe(path)[0] if path.is_file() else None
