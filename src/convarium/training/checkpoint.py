"""Checkpoints: one safetensors file each, hashed and written atomically. The last two are kept; a damaged one is passed
over for the one before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convarium.atomic import make_folder
from convarium.errors import ConvariumError, DataError
from convarium.tensors import digest, load_tensors, save_tensors

KEEP = 2


def save_checkpoint(
    folder: Path, step: int, parts: dict[str, nn.Module | torch.optim.Optimizer], state: dict[str, Any]
) -> Path:
    """Write ``step-<step>.safetensors`` and drop all but the last two.

    Args:
        folder: the run's ``checkpoints``.
        step: optimiser steps taken.
        parts: what has tensors to keep, by name.
        state: anything JSON can hold.
    """
    tensors = {f"{name}.{key}": value for name, part in parts.items() for key, value in _tensors(part).items()}
    text = json.dumps({"step": step, **state})
    make_folder(folder)
    path = folder / f"step-{step:08d}.safetensors"
    save_tensors(path, tensors, {"state": text, "sha256": digest(tensors, text)})
    for old in sorted(folder.glob("step-*.safetensors"))[:-KEEP]:
        old.unlink()
    return path


def load_checkpoint(
    folder: Path, parts: dict[str, nn.Module | torch.optim.Optimizer]
) -> tuple[dict[str, Any] | None, list[str]]:
    """Restore ``parts`` from the newest whole checkpoint.

    Returns:
        Its state, ``None`` where there is no checkpoint, and a line for each damaged file that was passed over.

    Raises:
        ConvariumError: there are checkpoints, and none is whole.
    """
    damaged = []
    paths = sorted(folder.glob("step-*.safetensors"), reverse=True)
    for path in paths:
        try:
            tensors, state = _read(path)
        except DataError:
            damaged.append(f"the checkpoint {path} is damaged")
            continue
        for name, part in parts.items():
            own = {key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.")}
            try:
                _restore(part, own)
            except (RuntimeError, ValueError, KeyError):
                raise DataError(f"the checkpoint {path} is of another network: begin again with --overwrite") from None
        return state, damaged
    if paths:
        raise ConvariumError(f"no checkpoint in {folder} is whole: {damaged[0]}; begin again with --overwrite")
    return None, []


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, metadata = load_tensors(path)
    text = metadata.get("state", "")
    if metadata.get("sha256") != digest(tensors, text):
        raise DataError(f"{path} is damaged: its hash does not match its content")
    return tensors, json.loads(text)


def _tensors(part: nn.Module | torch.optim.Optimizer) -> dict[str, Tensor]:
    if isinstance(part, nn.Module):
        return part.state_dict()
    state = part.state_dict()["state"]
    return {f"{i}.{key}": value for i, entry in state.items() for key, value in entry.items() if value is not None}


def _restore(part: nn.Module | torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    if isinstance(part, nn.Module):
        part.load_state_dict(tensors)
        return
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})
