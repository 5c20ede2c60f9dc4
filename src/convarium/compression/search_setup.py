"""What a search does where the user says nothing, settled before it begins."""

from __future__ import annotations

from typing import Any

from convarium.compression.cutting import reachable_steps
from convarium.compression.search_plan import Runtime, SearchPlan
from convarium.data.datasets import Dataset, is_embedded
from convarium.errors import UsageError, require
from convarium.recipe import Recipe, default_recipe, read_recipe
from convarium.runs import RECIPE, Run

USUAL_STEP = 0.6  # of the network before is left
MOST_STEPS = 6
MAX_DROP, SAMPLES, BATCH = 0.5, 300, 32
EPOCHS_PART = 0.5  # of the dense run's epochs: the smaller the network, the quicker they are
TEACHER_PART = 0.5  # of the loss: a teacher that is wrong now and then must not outweigh the labels
# Of the dense run's recipe what fine-tuning keeps.
KEPT = (
    *("image_size", "batch_size", "optimizer", "schedule", "momentum", "weight_decay", "label_smoothing", "clip_norm"),
    *("rotation", "scale", "shift", "flip"),
)


def make_plan(run: Run, dataset: Dataset, data: str, given: dict[str, Any]) -> SearchPlan:
    """Settle what is done, having tried on a copy that every step can be made.

    Raises:
        UsageError: a step below what the network can have, or a package that is missing.
    """
    recipe = read_recipe(run.path / RECIPE)[0] if (run.path / RECIPE).is_file() else None
    usual = recipe or _usual_recipe(run, dataset, data)
    plan = SearchPlan(
        run=str(run.path),
        run_hash=run.own["weights_sha256"],
        data=data,
        data_hash=dataset.fingerprint,
        max_drop=MAX_DROP if given["max_drop"] is None else given["max_drop"],
        target=given["target"] or "latency",
        steps=given["steps"] or [round(USUAL_STEP**number, 3) for number in range(1, MOST_STEPS + 1)],
        importance=given["importance"] or "l1",
        scheme=given["scheme"] or "uniform",
        runtime=_runtime(given["runtime"]),
        samples=given["samples"] or SAMPLES,
        batch=given["batch"] or BATCH,
        epochs=given["epochs"] or max(1, round(EPOCHS_PART * usual.epochs)),
        recipe=_fine_tuning(usual, run, given["threads"]),
        halfway=not given["steps"],
        without_gates=given["without_gates"] or "",
        low_rank=given["low_rank"] or 0.0,
    )
    count = reachable_steps(run, plan)
    if given["steps"] and count < len(plan.steps):
        raise UsageError(
            f"--steps {plan.steps[count]:g} is below what {run.path} can have: {plan.steps[count - 1]:g} of its "
            f"{plan.goal} is the least of these that can be reached"
        )
    return SearchPlan(**{**vars(plan), "steps": plan.steps[:count]})


def _usual_recipe(run: Run, dataset: Dataset, data: str) -> Recipe:
    """What training would choose, for a run that was not trained here."""
    images, size = len(dataset.splits["train"]), run.preprocessing.size
    return default_recipe(run.model.name, data, images, size, not is_embedded(data), "sgd")


def _fine_tuning(recipe: Recipe, run: Run, threads: int | None) -> dict[str, Any]:
    """The dense run's schedule again, with its whole learning rate: what is left has much to learn anew (A. Renda,
    J. Frankle, M. Carbin, "Comparing Rewinding and Fine-tuning in Neural Network Pruning", ICLR 2020)."""
    options = {name: getattr(recipe, name) for name in KEPT}
    options |= {"learning_rate": recipe.learning_rate, "distill_weight": TEACHER_PART}
    options |= {"seed": run.own["data"]["seed"]}
    return options | {"threads": threads or recipe.threads or None}


def _runtime(asked: Runtime | None) -> Runtime:
    from importlib.util import find_spec

    from convarium.compression.trials import BACKENDS

    chosen: Runtime = asked or ("openvino" if find_spec("openvino") and find_spec("nncf") else "onnxruntime")
    for module, extra in BACKENDS[chosen].needs.items():
        require(module, extra)
    return chosen
