"""What a race was asked for and what it measured before it began: a small file that ``--resume`` goes by."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from convarium.atomic import write_text
from convarium.errors import DataError, UsageError
from convarium.race.pace import Pace
from convarium.runs import check_job

PLAN, RESULT, PAGE = "plan.json", "race.json", "race.html"
OURS = rf"{re.escape(PLAN)}|{re.escape(RESULT)}|{re.escape(PAGE)}|round-\d+"


@dataclass(frozen=True)
class Plan:
    """A race before its first step.

    Attributes:
        data, data_hash: the images.
        models: the candidates.
        budget: as it was asked for.
        recipe: options of ``train``, the same for every candidate and round.
        pace: of each candidate, where the budget is a time.
        notes: what there is to say of how it was set up.
        runs: finished ones that are judged beside the candidates.
    """

    data: str
    data_hash: str
    models: list[str]
    budget: str
    recipe: dict[str, Any]
    pace: dict[str, Pace]
    notes: list[str]
    runs: list[str] = field(default_factory=list)

    @property
    def seed(self) -> int:
        return int(self.recipe["seed"])


def run_folder(folder: Path, round_: int, model: str) -> Path:
    """Where a candidate's training of one round lies; rounds count from 1."""
    return folder / f"round-{round_}" / model


def write_plan(folder: Path, plan: Plan) -> None:
    write_text(folder / PLAN, json.dumps(asdict(plan), indent=2) + "\n")


def read_plan(folder: Path) -> Plan:
    """The plan of the race in ``folder``.

    Raises:
        DataError: there is none, or none that is whole.
    """
    try:
        stored = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        paces = {name: Pace(**pace) for name, pace in stored.pop("pace").items()}
        return Plan(**stored, pace=paces)
    except OSError:
        raise DataError(f"no race in {folder}, which holds no {PLAN}: leave --resume out to begin one") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{folder / PLAN} is not the plan of a race: {error}") from None


def check_same(plan: Plan, given: dict[str, Any], folder: Path) -> None:
    """Refuse to resume under options that differ from those the race began with.

    Args:
        given: ``models`` and ``runs`` as lists, ``budget``, and options of the recipe; ``None`` where not given.

    Raises:
        UsageError: names the option and both values.
    """
    for name, value in given.items():
        begun = getattr(plan, name, None) or plan.recipe.get(name)
        if value is not None and value != begun:
            shown = [",".join(each) if isinstance(each, list) else each for each in (begun, value)]
            raise UsageError(
                f"the race in {folder} began with --{name.replace('_', '-')} {shown[0]}, and a resumed one keeps it; "
                f"got {shown[1]}"
            )


def check_folder(folder: Path, *, data: Path | None, overwrite: bool) -> None:
    """Refuse an output folder that must not be written or replaced; nothing is changed yet.

    Raises:
        UsageError: as :func:`convarium.runs.check_job`.
    """
    check_job(folder, "race", OURS, data=data, overwrite=overwrite)
