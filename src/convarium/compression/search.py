"""The walk of a search: cut a part, train what is left, look at the error, go on or go back; then int8 of the best few.

Each step cuts the network of the step before, once it has been trained again: cutting a little and training in turns
loses less than cutting much at once (S. Han et al., "Learning both Weights and Connections", NIPS 2015, Section 3.4).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convarium.atomic import make_folder, write_text
from convarium.compression.cutting import cost_of, prune_run, take_out
from convarium.compression.search_plan import FILES, SearchPlan, cut_folder, step_folder, taught_folder
from convarium.console import short, stderr
from convarium.runs import CONFIG, EVALUATION, RECIPE, REPORT, load_run, save_run

if TYPE_CHECKING:
    from convarium.data.datasets import Dataset

TAUGHT_EPOCHS, TAUGHT_RATE = 0.5, 0.1  # of a step's, in training for int8
FEW = 2  # of the smallest networks within the budget that int8 is tried on, beside the dense one


@dataclass(frozen=True)
class Step:
    """A network on the way: step 0 is the dense run, which is not ours to write into.

    ``val_error_percent`` is the top-1 error on the validation images, by which the walk goes on or ends; ``taught``
    says that it was trained for int8.
    """

    number: int
    run: Path
    val_error_percent: float
    taught: bool = False

    @property
    def name(self) -> str:
        return f"step-{self.number}" if self.number else "dense"


def walk(plan: SearchPlan, dataset: Dataset, folder: Path, dense_error_percent: float) -> list[Step]:
    """Prune and train what is not done yet, until a step is over the budget or the last is done.

    Raises:
        Interrupted: stopped, after a checkpoint.
        Diverged: a fine-tuning that went wrong.
    """
    steps = [Step(0, Path(plan.run), dense_error_percent)]
    parts = [1.0, *plan.steps]
    for number, part in enumerate(plan.steps, 1):
        steps.append(_step(plan, dataset, folder, number, part, source=steps[-1]))
        if _drop(steps[-1], steps[0]) > plan.max_drop:
            if plan.halfway:
                between = (parts[number - 1] * part) ** 0.5
                steps.insert(-1, _step(plan, dataset, folder, number + 1, between, source=steps[-2]))
            break
    return steps


def _step(plan: SearchPlan, dataset: Dataset, folder: Path, number: int, part: float, source: Step) -> Step:
    """Cut the network of ``source`` to ``part`` of the dense one's cost and train it, if that is not done yet."""
    run = step_folder(folder, number)
    if not (run / REPORT).is_file():  # the last that a training writes
        _cut(plan, dataset, source.run, cut_folder(folder, number), number, part)
        _fine_tune(plan, cut_folder(folder, number), run)
    step = Step(number, run, read_val_error(run))
    stderr().print(f"step {number}: {step.val_error_percent:.2f} % error on the validation images")
    return step


def _drop(step: Step, dense: Step) -> float:
    """Points of error on the validation images."""
    return step.val_error_percent - dense.val_error_percent


def within_budget(steps: Sequence[Step], max_drop: float) -> list[Step]:
    """Those that int8 is tried on: the dense network, and the smallest few that cost no more than allowed."""
    dense, *pruned = steps
    allowed = [step for step in pruned if _drop(step, dense) <= max_drop]
    return [dense, *allowed[-FEW:]]


def read_val_error(run: Path) -> float:
    """Top-1, in per cent, that a finished training wrote down."""
    return float(json.loads((run / EVALUATION).read_text(encoding="utf-8"))["top1_error_percent"])


# -- cutting and training -------------------------------------------------------------------------------------------


def _cut(plan: SearchPlan, dataset: Dataset, source: Path, output: Path, number: int, part: float) -> None:
    if (output / CONFIG).is_file():  # the last that is written of a run
        return
    dense, run = load_run(plan.run), load_run(source)
    if source == dense.path:
        take_out(run, plan.without_gates, plan.low_rank)
    prune_run(run, plan.goal, part * cost_of(dense, plan.goal), plan.scheme, plan.importance, dataset)
    left = cost_of(run, plan.goal)
    stderr().print(f"\nstep {number}: {short(left)} {plan.goal}, at most {part:.3g} of the dense network's")
    make_folder(output)
    save_run(
        output, run.model, run.preprocessing, run.class_names, data=dense.own["data"], threads=dense.own["threads"]
    )


def _fine_tune(plan: SearchPlan, pruned: Path, output: Path) -> None:
    """Train what is left from the weights that are left, towards the dense network's answers."""
    from convarium.training.train import train

    if (output / RECIPE).is_file():
        train(plan.data, weights=str(pruned), output=output, resume=True)
        return
    train(plan.data, weights=str(pruned), teacher=plan.run, output=output, epochs=plan.epochs, **plan.recipe)


# -- files ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class File:
    """A step's file for the runtime: ``form`` is float or int8, ``in_float`` the layers that int8 left as they were."""

    step: Step
    form: str
    path: Path
    in_float: list[str]


def write_files(
    plan: SearchPlan, dataset: Dataset, folder: Path, steps: Sequence[Step]
) -> tuple[list[File], list[str]]:
    """Export every step, and quantise the best few; what is there already is kept.

    Returns:
        The files, and a line on each network that int8 costs too much.
    """
    from convarium.deploy.export import export

    make_folder(folder / FILES)
    files, remarks = [], []
    chosen = within_budget(steps, plan.max_drop)
    for step in steps:
        path = folder / FILES / f"{step.name}.onnx"
        if not path.is_file():
            export(step.run, output=path)
        files.append(File(step, "float", path, []))
        if step in chosen:
            said = _quantise(plan, dataset, folder / FILES, step, steps[0])
            if not said["path"]:
                step = _taught_int8(plan, folder, step)
                said = _quantise(plan, dataset, folder / FILES, step, steps[0])
            if said["path"]:
                files.append(File(step, "int8", folder / FILES / said["path"], said["in_float"]))
            else:
                remarks.append(f"Of {step.name} in int8 no way was within the budget; the best: {said['sentence']}.")
    return files, remarks


def _taught_int8(plan: SearchPlan, folder: Path, step: Step) -> Step:
    """The last resort: the network of a step trained with its products in eight bits."""
    from convarium.training.train import train

    run = taught_folder(folder, step.number)
    if not (run / REPORT).is_file():
        stderr().print(f"{step.name} is trained for int8")
        options: dict[str, Any] = {"resume": True}
        if not (run / RECIPE).is_file():
            rate = plan.recipe["learning_rate"] * TAUGHT_RATE
            options = {**plan.recipe, "learning_rate": rate, "epochs": max(1, round(TAUGHT_EPOCHS * plan.epochs))}
            options |= {"teacher": plan.run, "int8": True}
        train(plan.data, weights=str(step.run), output=run, **options)
    return Step(step.number, run, read_val_error(run), taught=True)


def _quantise(plan: SearchPlan, dataset: Dataset, folder: Path, step: Step, dense: Step) -> dict[str, Any]:
    """What came of it, kept beside the file: ``path`` (``None`` where none was within the budget), ``in_float`` and a
    ``sentence``. The validation images judge, so that those that test have no part in any choice."""
    from dataclasses import replace

    from convarium.compression.quantise import quantise
    from convarium.compression.quantised import OverBudget
    from convarium.compression.trials import BACKENDS

    stem = f"{step.name}-int8" + "-taught" * step.taught
    record = folder / f"{stem}.json"
    if record.is_file():
        return json.loads(record.read_text(encoding="utf-8"))
    stderr().print(f"{step.name} in int8, for {plan.runtime}")
    output = folder / f"{stem}{BACKENDS[plan.runtime].suffix}"
    without_test = {name: positions for name, positions in dataset.splits.items() if name != "test"}
    left = min(100.0, max(0.0, plan.max_drop - _drop(step, dense)))
    options: dict[str, Any] = dict(backend=plan.runtime, samples=plan.samples, max_drop=left)
    try:
        found = quantise(load_run(step.run), replace(dataset, splits=without_test), output=output, **options)
    except OverBudget as over:
        found = over.result
    said = {
        "path": output.name if found.path else None,
        "in_float": found.best.in_float,
        "sentence": found.sentence(),
    }
    write_text(record, json.dumps(said, indent=2) + "\n")
    return said
