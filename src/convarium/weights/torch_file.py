"""Pickles of torch (``.pth``, ``.pt``, ``.bin``), read in a process of its own as tensors only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convarium.errors import DataError
from convarium.tensors import load_tensors
from convarium.weights import unpickle

if TYPE_CHECKING:
    from torch import Tensor

SLOWEST_BYTES_PER_SECOND = 5e6
STARTING_SECONDS = 120  # importing torch from a cold disk


def read_torch(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of a pickle, unwrapped from what trainings put around them; see :mod:`convarium.weights.unpickle`.

    The tensors come back as a safetensors file in a temporary folder, so that this process opens no pickle.

    Raises:
        DataError: the pickle holds more than tensors, is damaged, or took too much memory or time.
    """
    from convarium.console import stderr

    seconds = STARTING_SECONDS + path.stat().st_size / SLOWEST_BYTES_PER_SECOND
    with (
        tempfile.TemporaryDirectory(prefix="convarium-") as folder,
        stderr().status(f"reading {path.name} in a process of its own"),
    ):
        target = Path(folder) / "model.safetensors"
        try:
            ended = subprocess.run(
                [sys.executable, "-P", unpickle.__file__, str(path.absolute()), str(target)],
                env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            raise DataError(f"{path} could not be read in {seconds:.0f} s, and is refused") from None
        if ended.returncode == unpickle.REFUSED:
            raise DataError(f"{path} {ended.stdout.strip()}")
        if ended.returncode:
            raise DataError(f"{path} could not be read: its process ended with {_ending(ended)}")
        return load_tensors(target)


def _ending(ended: subprocess.CompletedProcess[str]) -> str:
    if ended.returncode < 0:
        return signal.Signals(-ended.returncode).name
    last = ended.stderr.strip().splitlines()[-1:]
    return f"code {ended.returncode} ({''.join(last)})"
