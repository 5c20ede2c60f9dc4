"""Convarium: the classic convolutional networks, LeNet-5 to SENet, and the whole life of a classifier."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from convarium.anatomy.describe import describe as describe
    from convarium.deploy.export import export as export
    from convarium.deploy.predict import predict as predict
    from convarium.deploy.predictor import Predictor as Predictor
    from convarium.evaluation.evaluate import evaluate as evaluate
    from convarium.explanation.explain import explain as explain
    from convarium.lineage.compare import compare as compare
    from convarium.lineage.diff import diff as diff
    from convarium.lineage.tree import tree as tree
    from convarium.networks import create_model as create_model
    from convarium.networks import list_models as list_models
    from convarium.runs import load_run as load_run
    from convarium.speed.benchmark import benchmark as benchmark
    from convarium.surgery import insert_attention as insert_attention
    from convarium.surgery import to_fully_convolutional as to_fully_convolutional
    from convarium.training.train import train as train

# Public names and where they live; imported on first use, so that `import convarium` costs nothing.
_PUBLIC = {
    "Predictor": "deploy.predictor",
    "benchmark": "speed.benchmark",
    "compare": "lineage.compare",
    "create_model": "networks",
    "describe": "anatomy.describe",
    "diff": "lineage.diff",
    "evaluate": "evaluation.evaluate",
    "explain": "explanation.explain",
    "export": "deploy.export",
    "insert_attention": "surgery",
    "list_models": "networks",
    "load_run": "runs",
    "predict": "deploy.predict",
    "to_fully_convolutional": "surgery",
    "train": "training.train",
    "tree": "lineage.tree",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"convarium.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'convarium' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]
