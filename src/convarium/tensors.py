"""Weights on disk: safetensors, read strictly and written atomically; never pickle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from convarium.atomic import write_bytes
from convarium.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS = "model.safetensors"


def load_weights(model: nn.Module, source: str | Path) -> None:
    """Load a run folder's or a ``.safetensors`` file's weights, every key and shape in its place.

    Raises:
        DataError: no such file, a pickle, or keys and shapes that are not this network's, listed from both sides.
    """
    path = Path(source)
    path = path / WEIGHTS if path.is_dir() else path
    found, _ = load_tensors(path)
    wanted = model.state_dict()
    problems = []
    if missing := sorted(wanted.keys() - found.keys()):
        problems.append(f"missing {_some(missing)}")
    if unexpected := sorted(found.keys() - wanted.keys()):
        problems.append(f"unexpected {_some(unexpected)}")
    shapes = [key for key in wanted.keys() & found.keys() if wanted[key].shape != found[key].shape]
    if shapes:
        key = min(shapes)
        problems.append(
            f"{len(shapes)} of another shape ({key}: {tuple(found[key].shape)} for {tuple(wanted[key].shape)})"
        )
    if problems:
        name = getattr(model, "name", type(model).__name__)
        raise DataError(
            f"{path} does not hold the weights of this {name}: {'; '.join(problems)}; build the network they were "
            "trained with (its name, num_classes, in_chans, attention)"
        )
    model.load_state_dict(found)


def _some(keys: list[str]) -> str:
    return f"{len(keys)} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"


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
        raise DataError(
            f"{path} is a pickle, which can run code when it is opened, and is refused: give a .safetensors file"
        )
    try:
        with safe_open(path, "pt") as opened:
            # Copies: what is opened is the file itself, which may be replaced in use.
            keys = opened.keys()
            return {key: opened.get_tensor(key).clone() for key in keys}, opened.metadata() or {}
    except SafetensorError as error:
        raise DataError(f"{path} is not a whole safetensors file ({error}): write or download it again") from None


def _is_pickle(path: Path) -> bool:
    """A pickle of protocol 2 to 5, or torch's zip of one; safetensors have a brace after their eight-byte length."""
    with open(path, "rb") as file:
        start = file.read(9)
    pickled = start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    return start[8:9] != b"{" and (pickled or start[:4] == b"PK\x03\x04")
