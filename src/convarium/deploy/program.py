"""``torch.export``'s form of an exported file: a .pt2 that torch opens without this project."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convarium.deploy.inputs import Input
from convarium.deploy.onnx import quiet

if TYPE_CHECKING:
    from torch import nn

METADATA = "metadata.json"


def write_program(graph: nn.Module, takes: Input, path: Path, properties: dict[str, str]) -> None:
    """Write ``graph``; :data:`METADATA` inside holds ``properties``."""
    import torch

    with quiet(), torch.no_grad():
        program = torch.export.export(graph, (takes.example,), dynamic_shapes=(takes.dynamic,))
        torch.export.save(program, path, extra_files={METADATA: json.dumps(properties, ensure_ascii=False)})


def load_program(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A function from a batch, as the program takes it, to float32 logits."""
    import torch

    network = torch.export.load(path).module()

    def logits(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.tensor(images)).numpy()

    return logits
