"""Weights on disk: safetensors, read strictly and written atomically; never pickle."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from convarium.atomic import write_bytes
from convarium.errors import DataError

if TYPE_CHECKING:
    from io import BufferedReader

    from torch import Tensor, nn

WEIGHTS = "model.safetensors"
PART, MOST_PIECES, THREADS = 2**24, 512, 4  # bytes and pieces that are read at once, by so many threads
Part = tuple[int, list[memoryview]]  # where in the file, and what is filled from there on


def load_weights(
    model: nn.Module,
    source: str | Path,
    adapt: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda found: found,
) -> None:
    """Load a run folder's or a ``.safetensors`` file's weights, every key and shape in its place.

    Args:
        model: the network.
        source: the folder or file.
        adapt: what is done to the weights before they are held to the network (:mod:`convarium.adaptation`).

    Raises:
        DataError: no such file, a pickle, or keys and shapes that are not this network's, listed from both sides.
    """
    path = Path(source)
    path = path / WEIGHTS if path.is_dir() else path
    found = adapt(load_tensors(path)[0])
    check_fit(model, found, path)
    model.load_state_dict(found)


def check_fit(model: nn.Module, found: Mapping[str, Tensor], source: str | Path) -> None:
    """Every key and shape of ``model`` in ``found``, and none more.

    Raises:
        DataError: what does not fit, from both sides.
    """
    wanted = model.state_dict()
    shapes = [
        (key, tuple(found[key].shape), tuple(wanted[key].shape))
        for key in wanted.keys() & found.keys()
        if wanted[key].shape != found[key].shape
    ]
    tell_misfits(model, source, wanted.keys() - found.keys(), found.keys() - wanted.keys(), shapes)


def tell_misfits(
    model: nn.Module,
    source: str | Path,
    missing: Collection[str],
    unexpected: Collection[str],
    shapes: Collection[tuple[str, tuple[int, ...], tuple[int, ...]]] = (),
) -> None:
    """Raise a :class:`DataError` that lists keys missing in ``source``, keys left over, and shapes (found, wanted)."""
    problems = [f"missing {_some(missing)}"] if missing else []
    problems += [f"unexpected {_some(unexpected)}"] if unexpected else []
    if shapes:
        key, found, wanted = min(shapes)
        problems.append(f"{len(shapes)} of another shape ({key}: {found} for {wanted})")
    if problems:
        name = getattr(model, "name", type(model).__name__)
        raise DataError(
            f"{source} does not hold the weights of this {name}: {'; '.join(problems)}; build the network they were "
            "trained with (its name, num_classes, in_chans, attention; convarium weights identify FILE says which)"
        )


def _some(keys: Collection[str]) -> str:
    return f"{len(keys)} ({', '.join(sorted(keys)[:3])}{', ...' if len(keys) > 3 else ''})"


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """A safetensors file, written atomically."""
    from safetensors.torch import save

    write_bytes(path, save({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, metadata))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        DataError: no such file, a pickle, or a file that is damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise DataError(f"no weights at {path}: a run folder or a .safetensors file is wanted")
    if _is_pickle(path):
        raise refuse_pickle(path)
    try:
        with safe_open(path, "pt") as opened, open(path, "rb") as file:
            # Opened are the file's own pages, which may be replaced in use and count as memory once they are read. The
            # tensors stand one behind the other after the header, as safe_open has made sure.
            begin = 8 + int.from_bytes(file.read(8), "little")
            tensors = {key: _room_for(opened.get_tensor(key)) for key in opened.offset_keys()}
            _fill(tensors.values(), file, begin)
            return tensors, opened.metadata() or {}
    except SafetensorError as error:
        raise DataError(f"{path} is not a whole safetensors file ({error}): write or download it again") from None


def _room_for(like: Tensor) -> Tensor:
    import torch

    return torch.empty(like.shape, dtype=like.dtype)


def _fill(tensors: Iterable[Tensor], file: BufferedReader, begin: int) -> None:
    """Read tensors that stand one behind the other from ``begin`` on, by several threads: one alone does not fill
    memory as quickly as it can be filled."""
    import torch

    parts: list[Part] = [(begin, [])]
    for tensor in tensors:
        room = memoryview(tensor.view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
        for at in range(0, len(room), PART):
            if sum(map(len, parts[-1][1])) >= PART or len(parts[-1][1]) == MOST_PIECES:
                parts.append((begin + at, []))
            parts[-1][1].append(room[at : at + PART])
        begin += len(room)

    def read(part: Part) -> bool:
        at, pieces = part
        return os.preadv(file.fileno(), pieces, at) == sum(map(len, pieces))

    with ThreadPoolExecutor(THREADS) as pool:
        if not all(pool.map(read, parts)):
            raise DataError(f"{file.name} was cut while it was read: read it again")


def digest(tensors: dict[str, Tensor], text: str = "") -> str:
    """A hash of tensors and their names, whatever their order, and of a text."""
    import torch

    hashed = hashlib.sha256(text.encode())
    for key in sorted(tensors):
        value = tensors[key].detach().cpu().contiguous()
        hashed.update(f"{key}{value.dtype}{tuple(value.shape)}".encode())
        hashed.update(value.reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return hashed.hexdigest()


def refuse_pickle(path: Path) -> DataError:
    """The error for a pickle that nobody vouches for, with the command that reads it safely."""
    return DataError(
        f"{path} is a pickle, which can run code when it is opened, and is refused: give a .safetensors file, or make "
        f"one: convarium weights convert {path} --trust"
    )


def _is_pickle(path: Path) -> bool:
    """A pickle of protocol 2 to 5, or torch's zip of one; safetensors have a brace after their eight-byte length."""
    with open(path, "rb") as file:
        start = file.read(9)
    pickled = start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    return start[8:9] != b"{" and (pickled or start[:4] == b"PK\x03\x04")
