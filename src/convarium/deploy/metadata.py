"""What an exported file says of itself, as flat text: class names and preprocessing, under the same keys in every
format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from convarium.data.preprocess import Preprocessing
from convarium.errors import DataError

TASK = "image-classification"
TAKES, TENSORS = "takes", "prepared tensors"  # said by files without preprocessing


def to_properties(preprocessing: Preprocessing, class_names: Sequence[str]) -> dict[str, str]:
    values = {
        "names": list(class_names),
        "input_size": [preprocessing.channels, preprocessing.size, preprocessing.size],
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "crop_pct": preprocessing.crop_pct,
    }
    texts = {"interpolation": preprocessing.interpolation, "task": TASK}
    return {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()} | texts


def from_properties(path: Path, properties: Mapping[str, str]) -> tuple[list[str], Preprocessing]:
    """The class names in their order, and the preprocessing.

    Raises:
        DataError: properties of ``path`` that lack one of ours, or hold something else under its name; a file that
            takes no images.
    """
    if properties.get(TAKES) == TENSORS:
        raise DataError(
            f"{path} takes {TENSORS}, not images: for images, write it with convarium export RUN, not --raw"
        )
    keys = ("names", "input_size", "mean", "std", "crop_pct")
    try:
        names, (channels, size, _), mean, std, crop_pct = (json.loads(properties[key]) for key in keys)
        return names, Preprocessing(size, channels, tuple(mean), tuple(std), crop_pct, properties["interpolation"])
    except (KeyError, TypeError, ValueError) as error:
        missing = f"no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise DataError(
            f"{path} does not say how to use it ({missing} in its metadata): write it with convarium export RUN"
        ) from None
