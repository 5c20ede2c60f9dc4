"""The rounds of a race: every candidate trains its share, the better half goes on.

A round is a finished training from the weights of the round before, under the same recipe: the same warm-up, the same
learning rate at its highest, down to nothing at the end; only longer each time (warm restarts: I. Loshchilov, F.
Hutter, "SGDR", ICLR 2017). Halving inside one long schedule would compare networks in the middle of it, at a high
learning rate, where errors are large and jump about; a constant rate would never show what a network can do. The price:
a network that begins slowly may be out before it would have caught up.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from convarium.console import stderr
from convarium.errors import Diverged
from convarium.race.budget import Budget, epochs_by_round, epochs_in, field_sizes, parse_budget, share_s
from convarium.race.plan import Plan, run_folder
from convarium.recipe import read_recipe
from convarium.runs import METRICS, RECIPE, REPORT
from convarium.training.train import train


@dataclass(frozen=True)
class Leg:
    """One candidate's training in one round.

    ``seconds`` are those of the arithmetic of training, batches and augmentation included; ``error_percent`` and
    ``loss`` those of the held-out images after its last epoch, which choose who goes on; ``goes_on`` says so.
    """

    round: int
    model: str
    run: Path
    epochs: int
    seconds: float
    error_percent: float
    loss: float
    goes_on: bool = False


def run_rounds(plan: Plan, folder: Path) -> tuple[list[list[Leg]], list[str]]:
    """Train what is not trained yet.

    Returns:
        The legs of every round, best first, and a line for each candidate whose training diverged.

    Raises:
        Diverged: no candidate is left.
        Interrupted: stopped, after a checkpoint.
    """
    budget, sizes = parse_budget(plan.budget), field_sizes(len(plan.models))
    running = plan.models
    rounds: list[list[Leg]] = []
    fallen: list[str] = []
    for round_ in range(1, len(sizes) + 1):
        epochs = _epochs(plan, budget, sizes, running, rounds)
        legs, diverged = _run_round(plan, folder, round_, len(sizes), running, epochs)
        fallen += diverged
        if not legs:
            break
        legs.sort(key=lambda leg: (leg.error_percent, leg.loss))
        kept = sizes[round_] if round_ < len(sizes) else 1
        rounds.append([replace(leg, goes_on=place < kept) for place, leg in enumerate(legs)])
        running = [leg.model for leg in rounds[-1] if leg.goes_on]
    if not rounds:
        raise Diverged(f"every candidate diverged: {fallen[0]}; begin again with a lower --learning-rate")
    return rounds, fallen


def _epochs(
    plan: Plan, budget: Budget, sizes: list[int], running: Sequence[str], rounds: list[list[Leg]]
) -> dict[str, int]:
    """How many each candidate of the next round trains: the same number, or what its share of the time allows."""
    if budget.epochs:
        return dict.fromkeys(running, epochs_by_round(budget.epochs, len(sizes))[len(rounds)])
    spent = sum(leg.seconds for legs in rounds for leg in legs)
    share = share_s(max(0.0, budget.seconds - spent), [len(running), *sizes[len(rounds) + 1 :]])
    pace = {leg.model: leg.seconds / leg.epochs for leg in rounds[-1]} if rounds else {}
    return {model: epochs_in(share, pace.get(model) or plan.pace[model].epoch_s) for model in running}


def _run_round(
    plan: Plan, folder: Path, round_: int, rounds: int, running: Sequence[str], epochs: dict[str, int]
) -> tuple[list[Leg], list[str]]:
    legs, diverged = [], []
    for place, model in enumerate(running, start=1):
        run = run_folder(folder, round_, model)
        if not (run / REPORT).is_file():  # the last that a training writes
            stderr().print(
                f"\nround {round_} of {rounds}, network {place} of {len(running)}: {model}, {_many(epochs[model])}"
            )
            try:
                _train(plan, folder, round_, model, epochs[model])
            except Diverged as error:
                said = f"{model} diverged in round {round_}: {str(error).split(':')[0]}"
                stderr().print(said)
                diverged.append(said)
                continue
        legs.append(read_leg(round_, model, run))
    return legs, diverged


def _many(epochs: int) -> str:
    return f"{epochs} epoch" + "s" * (epochs != 1)


def _train(plan: Plan, folder: Path, round_: int, model: str, epochs: int) -> None:
    run = run_folder(folder, round_, model)
    if (run / RECIPE).is_file():
        train(plan.data, model=model, output=run, resume=True)
        return
    recipe = dict(plan.recipe)
    if round_ > 1:
        before = run_folder(folder, round_ - 1, model)
        begun = read_recipe(before / RECIPE)[0]
        recipe |= {"weights": str(before), "threads": begun.threads, "learning_rate": begun.learning_rate}
    elif model in plan.pace:
        recipe["threads"] = plan.pace[model].threads
    train(plan.data, model=model, output=run, epochs=epochs, **recipe)


def read_leg(round_: int, model: str, run: Path) -> Leg:
    """What a finished run says of itself."""
    history = read_history(run)
    last = history[-1]
    seconds = sum(row["seconds"] for row in history)
    return Leg(round_, model, run, len(history), seconds, last["val_top1_error_percent"], last["val_loss"])


def read_history(run: Path) -> list[dict[str, Any]]:
    """What a run logged of its epochs."""
    return [json.loads(line) for line in (run / METRICS).read_text(encoding="utf-8").splitlines()]
