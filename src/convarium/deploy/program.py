"""``torch.export``'s form of an exported file: a .pt2 that torch opens without this project."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convarium.data.preprocess import Preprocessing
from convarium.deploy.metadata import to_properties
from convarium.deploy.onnx import example_images, quiet

if TYPE_CHECKING:
    from torch import nn

METADATA = "metadata.json"


def write_program(
    graph: nn.Module, preprocessing: Preprocessing, class_names: Sequence[str], path: Path, metadata: dict[str, str]
) -> None:
    """Write preprocessing and network, one after the other in ``graph``; :data:`METADATA` inside holds the rest."""
    import torch

    images, dynamic = example_images(preprocessing)
    with quiet(), torch.no_grad():
        program = torch.export.export(graph, (images,), dynamic_shapes=dynamic)
        properties = {**metadata, **to_properties(preprocessing, class_names)}
        torch.export.save(program, path, extra_files={METADATA: json.dumps(properties, ensure_ascii=False)})


def load_program(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A function from uint8 ``(N, H, W, C)`` to float32 logits."""
    import torch

    network = torch.export.load(path).module()

    def logits(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.tensor(images)).numpy()

    return logits
