"""``race``: which network to use for one's images."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from convarium.atomic import write_text
from convarium.console import stderr
from convarium.data.datasets import Dataset, is_embedded, open_dataset
from convarium.errors import Interrupted, UsageError
from convarium.lineage.names import matching
from convarium.race.budget import Budget, epochs_by_round, field_sizes, parse_budget, share_s
from convarium.race.candidates import check_data, choose
from convarium.race.entrants import check_entrants
from convarium.race.pace import Pace, measure_pace
from convarium.race.plan import PLAN, RESULT, Plan, check_folder, check_same, read_plan, write_plan
from convarium.race.result import Race
from convarium.recipe import Optimizer, Recipe, check_options, default_recipe, resolve
from convarium.runs import clear_output

BUDGET = "10m"


def race(
    data: str,
    /,
    *,
    models: str | None = None,
    runs: str | None = None,
    budget: str | None = None,
    output: Path | None = None,
    image_size: int | None = None,
    batch_size: int | None = None,
    optimizer: Optimizer | None = None,
    learning_rate: float | None = None,
    flip: bool | None = None,
    seed: int | None = None,
    threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Race:
    """Train several networks under one recipe and an equal budget, and say which to take.

    All train for a share of the budget; the better half, by the error on the held-out images, goes on with its weights
    and twice the share, until two are left. Each round is a finished training, its learning rate brought down to
    nothing. Every round of every network is a run folder, round-<n>/<network>; race.html and race.json tell the rest.

    Args:
        data: "digits", "glyphs", or a folder, as train takes them.
        models: catalogue names or wildcards, separated by commas; a handful that suits the images when not given.
        runs: finished run folders, separated by commas, that are judged beside them as they are.
        budget: training time of the whole race, such as 90s, 10m or 1h, or epochs of each network of the last round,
            such as 20epochs; 10m when not given.
        output: the race's folder; races/<data> when not given.
        image_size: side of the square input of all; that of the images, 64 at most, when not given.
        batch_size: images per step.
        optimizer: sgd, adamw or rmsprop.
        learning_rate: at its highest, in every round; what train chooses for each network when not given.
        flip: augmentation, mirror half of the images.
        seed: of everything random.
        threads: of one operation; measured for each network when not given.
        resume: go on with the race in the output folder.
        overwrite: replace the race in the output folder.

    Raises:
        UsageError: an unknown network, fewer than two, a budget too small, a folder that holds something else.
        DataError: data that cannot be used, or too little of it to choose by.
        Interrupted: Ctrl-C, after a checkpoint.
    """
    given = dict(
        image_size=image_size, batch_size=batch_size, optimizer=optimizer, learning_rate=learning_rate, flip=flip,
        seed=seed, threads=threads,
    )  # fmt: skip
    if resume and overwrite:
        raise UsageError("--resume goes on with a race and --overwrite replaces it: give one of them")
    check_options(given)
    data = str(data)
    folder = Path(output) if output else Path("races") / Path(data).name.replace(":", "-")
    asked = parse_budget(budget or BUDGET)
    entrants = [path.strip() for path in runs.split(",")] if runs else []
    try:
        if resume:
            plan = read_plan(folder)
            names = None if models is None else matching(name.strip() for name in models.split(","))
            asked_again = {"models": names, "runs": entrants or None, "budget": budget and asked.text}
            check_same(plan, {**given, **asked_again}, folder)
            dataset = open_dataset(data, plan.seed)
            if dataset.fingerprint != plan.data_hash:
                raise UsageError(f"{data} is not what the race in {folder} began with: race anew with --overwrite")
        else:
            check_folder(folder, data=None if is_embedded(data) else Path(data), overwrite=overwrite)
            dataset = open_dataset(data, seed or 0)
            for note in dataset.notes:
                stderr().print(note)
            check_data(dataset)
            check_entrants(entrants, dataset, seed or 0)
            plan = replace(make_plan(dataset, data, models, asked, given), runs=entrants)
            clear_output(folder, first=PLAN)
            write_plan(folder, plan)
        return _run(plan, dataset, folder)
    except (Interrupted, KeyboardInterrupt) as stop:
        kind = type(stop) if isinstance(stop, Interrupted) else Interrupted
        command = shlex.join(["convarium", "race", data, "--output", str(folder), "--resume"])
        begun = (folder / PLAN).is_file()
        raise kind(f"stopped; to go on: {command}" if begun else "stopped before the first round") from None


def make_plan(dataset: Dataset, data: str, models: str | None, budget: Budget, given: dict[str, Any]) -> Plan:
    """Settle who runs, on what images, for how long.

    Raises:
        UsageError: networks or a size that do not go together, or a budget that does not give each an epoch.
    """
    names, seen = choose(models, dataset, given["image_size"])
    options = {key: value for key, value in given.items() if value is not None}
    options |= {"image_size": seen.side, "in_chans": seen.channels, "seed": given["seed"] or 0}
    notes: list[str] = []
    pace: dict[str, Pace] = {}
    if budget.epochs:
        epochs_by_round(budget.epochs, len(field_sizes(len(names))))
    else:
        pace = {name: _measure(dataset, data, name, options, f"{i} of {len(names)}") for i, name in enumerate(names, 1)}
        if models is None:
            names, notes = leave_out_slow(names, pace, budget)
        check_budget(names, pace, budget)
    stderr().print(f"racing {', '.join(names)}: {seen.side} pixels, {_colour(seen.channels)}")
    kept = {name: pace[name] for name in names if name in pace}
    return Plan(data, dataset.fingerprint, names, budget.text, options, kept, notes)


def _colour(channels: int) -> str:
    return "grey" if channels == 1 else "colour"


def _measure(dataset: Dataset, data: str, name: str, options: dict[str, Any], place: str) -> Pace:
    images = len(dataset.splits["train"])
    default = default_recipe(name, data, images, options["image_size"], True, options.get("optimizer", "sgd"))
    recipe: Recipe = resolve(default, options)
    pace = measure_pace(dataset, recipe)
    threads = "1 thread" if pace.threads == 1 else f"{pace.threads} threads"
    stderr().print(f"network {place}: {name}, {pace.epoch_s:.2g} s an epoch on {threads}")
    return pace


def first_share_s(budget: Budget, candidates: int) -> float:
    """Seconds for each network of the first round."""
    return share_s(budget.seconds, field_sizes(candidates))


def leave_out_slow(names: list[str], pace: dict[str, Pace], budget: Budget) -> tuple[list[str], list[str]]:
    """Of networks that nobody named, those that the budget gives an epoch, two at least; and a line on the others."""
    left = sorted(names, key=lambda name: pace[name].epoch_s)
    while len(left) > 2 and pace[left[-1]].epoch_s > first_share_s(budget, len(left)):
        left.pop()
    out = [name for name in names if name not in left]
    if not out:
        return names, []
    note = f"Left out, as a larger --budget would be needed for an epoch of each: {', '.join(out)}."
    stderr().print(note)
    return [name for name in names if name in left], [note]


def check_budget(names: list[str], pace: dict[str, Pace], budget: Budget) -> None:
    """Refuse a time in which not every network gets an epoch of the first round.

    Raises:
        UsageError: names the slowest, and the budget that is needed.
    """
    slowest = max(names, key=lambda name: pace[name].epoch_s)
    share, epoch = first_share_s(budget, len(names)), pace[slowest].epoch_s
    if epoch > share:
        needed = 1.2 * epoch * budget.seconds / share
        raise UsageError(
            f"--budget {budget.text} is too small: the first round gives each of {len(names)} networks {share:.1f} s, "
            f"and an epoch of {slowest} takes about {epoch:.1f} s here; give --budget {needed:.0f}s or more"
            + (f", or leave {slowest} out" if len(names) > 2 else "")
        )


def _run(plan: Plan, dataset: Dataset, folder: Path) -> Race:
    from convarium.race.judge import judge
    from convarium.race.page import write_page
    from convarium.race.rounds import run_rounds

    rounds, fallen = run_rounds(plan, folder)
    stderr().print("\njudging, and measuring latency")
    result = judge(plan, dataset, folder, rounds, fallen)
    write_page(result.page, result)
    write_text(folder / RESULT, json.dumps(result.as_dict(), indent=2, default=str) + "\n")
    return result
