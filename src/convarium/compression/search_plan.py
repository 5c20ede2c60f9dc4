"""What a search for a smaller network was asked for: a small file that ``--resume`` goes by, and the folder around it.

The folder holds ``cut-<n>``, the network of step n as it was cut; ``step-<n>``, the same after fine-tuning, and, where
int8 cost too much of it, ``taught-<n>``, trained for int8; ``files``, what was exported and quantised; and ``chosen``,
the file that was chosen, if one was.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from convarium.atomic import write_text
from convarium.errors import DataError, UsageError
from convarium.runs import check_job

Target = Literal["latency", "macs", "params", "size"]
Importance = Literal["l1", "l2", "median", "norm", "taylor", "gates"]
Scheme = Literal["uniform", "global"]
Runtime = Literal["openvino", "onnxruntime"]

PLAN, RESULT, PAGE = "plan.json", "compress.json", "compress.html"
FILES, CHOSEN = "files", "chosen"
OURS = rf"{re.escape(PLAN)}|{re.escape(RESULT)}|{re.escape(PAGE)}|{FILES}|{CHOSEN}|(cut|step|taught)-\d+"


@dataclass(frozen=True)
class SearchPlan:
    """A search before its first step.

    Attributes:
        run, run_hash: the dense run, and the hash of its weights.
        data, data_hash: the images.
        max_drop: points of top-1 error that the result may cost.
        target: what is to be least.
        steps: for each step the part of the dense network's multiply-adds that is left, or of its parameters where
            ``target`` is params or size.
        importance, scheme: which units go, and how they are shared among the groups.
        runtime: what the files are for.
        samples: training images that int8 takes its ranges from.
        batch: images at once, for the throughput.
        epochs: of fine-tuning after each step.
        recipe: further options of ``train``.
        halfway: whether a step that is over the budget is followed by one between it and the step before.
        without_gates, low_rank: what goes before the first step (:func:`convarium.compression.cutting.take_out`).
    """

    run: str
    run_hash: str
    data: str
    data_hash: str
    max_drop: float
    target: Target
    steps: list[float]
    importance: Importance
    scheme: Scheme
    runtime: Runtime
    samples: int
    batch: int
    epochs: int
    recipe: dict[str, Any]
    halfway: bool = False
    without_gates: str = ""
    low_rank: float = 0.0

    @property
    def goal(self) -> str:
        """What the steps are parts of."""
        return "params" if self.target in ("params", "size") else "macs"


def cut_folder(folder: Path, step: int) -> Path:
    """Where the network of a step lies before fine-tuning; steps count from 1."""
    return folder / f"cut-{step}"


def step_folder(folder: Path, step: int) -> Path:
    return folder / f"step-{step}"


def taught_folder(folder: Path, step: int) -> Path:
    """Where the network of a step lies that was trained for int8."""
    return folder / f"taught-{step}"


def read_steps(text: str) -> list[float]:
    """``"0.6,0.3"`` as numbers.

    Raises:
        UsageError: none, or numbers that do not fall between 1 and 0.
    """
    try:
        steps = [float(part) for part in text.split(",")]
    except ValueError:
        steps = []
    if not steps or any(not 0 < after < before for before, after in zip([1.0, *steps], steps, strict=False)):
        raise UsageError(
            f'--steps are the parts of the network that are left, one after the other, such as "0.6,0.35,0.2"; got '
            f"{text!r}"
        )
    return steps


def write_plan(folder: Path, plan: SearchPlan) -> None:
    write_text(folder / PLAN, json.dumps(asdict(plan), indent=2) + "\n")


def read_plan(folder: Path) -> SearchPlan:
    """The plan of the search in ``folder``.

    Raises:
        DataError: there is none, or none that is whole.
    """
    try:
        return SearchPlan(**json.loads((folder / PLAN).read_text(encoding="utf-8")))
    except OSError:
        raise DataError(f"no search in {folder}, which holds no {PLAN}: leave --resume out to begin one") from None
    except (TypeError, ValueError) as error:
        raise DataError(f"{folder / PLAN} is not the plan of a search: {error}") from None


def check_same(plan: SearchPlan, given: dict[str, Any], folder: Path) -> None:
    """Refuse to resume under options that differ from those the search began with (``None`` where not given).

    Raises:
        UsageError: names the option and both values.
    """
    for name, value in given.items():
        begun = plan.recipe[name] if name in plan.recipe else getattr(plan, name)
        if value is not None and value != begun:
            shown = [",".join(f"{part:g}" for part in each) if isinstance(each, list) else each
                     for each in (begun, value)]  # fmt: skip
            raise UsageError(
                f"the search in {folder} began with --{name.replace('_', '-')} {shown[0]}, and a resumed one keeps it; "
                f"got {shown[1]}"
            )


def check_folder(folder: Path, *, data: Path | None, run: Path, overwrite: bool) -> None:
    """Refuse an output folder that must not be written or replaced; nothing is changed yet.

    Raises:
        UsageError: as :func:`convarium.runs.check_job`, or a folder that holds the run.
    """
    if run.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"the run {run} lies in {folder}, which is to be written: choose another --output")
    check_job(folder, "search", OURS, data=data, overwrite=overwrite)
