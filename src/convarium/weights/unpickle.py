"""A program of its own, ``python unpickle.py PICKLE SAFETENSORS``: the tensors of a pickle, and nothing else of it.

It runs without network where Linux lets it, and may take no more memory than importing torch took and a few times the
file. ``weights_only`` lets a pickle build tensors and plain containers; whatever else it asks for is refused before it
runs. It imports nothing of this package.
"""

from __future__ import annotations

import os
import re
import sys
from typing import IO, TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from torch import Tensor

REFUSED = 3  # exit code; the reason stands on stdout
# Where trainings put the weights, first what is meant for evaluation: a moving average before the weights themselves.
NESTS = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "weights",
)
PREFIXES = ("module.", "_orig_mod.")  # DataParallel's; torch.compile's
COPIES = 4  # of the file: read, made contiguous, written, and one to spare
SPARE_BYTES = 512 * 2**20
NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000  # unshare(2)


def main(source: str, target: str) -> None:
    """Write the tensors of ``source`` to ``target``; what was taken off them stands in its metadata."""
    with open(source, "rb") as file:
        _leave_network()
        import torch  # noqa: F401

        _limit_memory(COPIES * os.fstat(file.fileno()).st_size + SPARE_BYTES)
        try:
            tensors, metadata = _unwrapped(_load(file))
            _write(tensors, target, metadata)
        except OSError as error:
            _refuse(f"could not be read and written as safetensors: {error.strerror or error}")
        except (MemoryError, RuntimeError) as error:
            if not _memory_ended(error):
                raise
            _refuse("takes far more memory than its size, which weights do not: refused")


def _load(file: IO[bytes]) -> Any:
    import torch

    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        if _memory_ended(error):
            raise
        said = str(error)
        if asked := re.search(r"GLOBAL ([\w.]+)", said):
            _refuse(
                f"asks for {asked[1]} as it is opened, which only running its code could give, and is refused: save "
                "the state_dict() alone where it came from"
            )
        _refuse(f"is not a whole pickle of tensors ({' '.join(said.split())[:160]}): download it again")


def _memory_ended(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "allocate memory" in str(error) or "bad_alloc" in str(error)


def _unwrapped(loaded: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
    from torch import Tensor

    nests = []
    while isinstance(loaded, dict) and (nest := next((n for n in NESTS if isinstance(loaded.get(n), dict)), None)):
        nests.append(nest)
        loaded = loaded[nest]
    if not isinstance(loaded, dict) or not any(isinstance(value, Tensor) for value in loaded.values()):
        kind = type(loaded).__name__
        held = f" of {', '.join(map(str, list(loaded)[:5]))}" if isinstance(loaded, dict) and loaded else ""
        _refuse(f"holds a {kind}{held} and no tensors by name: save the state_dict() where it came from")
    tensors = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
    left_out = [str(key) for key, value in loaded.items() if not isinstance(value, Tensor)]
    prefix = ""
    while common := next((p for p in PREFIXES if all(key.startswith(prefix + p) for key in tensors)), None):
        prefix += common
    metadata = {"unwrapped": ".".join(nests), "prefix": prefix, "left_out": ", ".join(left_out)}
    return {key.removeprefix(prefix): value for key, value in tensors.items()}, {k: v for k, v in metadata.items() if v}


def _write(tensors: dict[str, Tensor], target: str, metadata: dict[str, str]) -> None:
    import torch
    from safetensors.torch import save_file

    seen: set[int] = set()
    for key, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            _refuse(f"holds {key!r} as a sparse, quantised or empty form of a tensor, which is not read here")
        storage = tensor.untyped_storage().data_ptr()
        dense = tensor.detach().contiguous()
        tensors[key] = dense.clone() if storage in seen else dense  # safetensors keeps no two names for one tensor
        seen.add(storage)
    save_file(tensors, target, metadata)


def _leave_network() -> None:
    """Into a network without interfaces, where the kernel lets a user do so; before any thread begins."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).unshare(NEW_USER | NEW_NETWORK)


def _limit_memory(more_bytes: int) -> None:
    """No more address space than is held now and ``more_bytes``, on Linux, which says how much that is."""
    if sys.platform == "linux":
        import resource

        with open("/proc/self/statm") as file:
            held = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + more_bytes, held + more_bytes))


def _refuse(reason: str) -> NoReturn:
    print(reason)
    sys.exit(REFUSED)


if __name__ == "__main__":
    main(*sys.argv[1:])
