"""``compress``: as small and as quick as an accuracy budget allows, measured on this machine."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any, get_args

from convarium.atomic import make_folder, replacing, write_text
from convarium.compression.choice import cautions, choose, mark_front, tell
from convarium.compression.result import BudgetNotMet, Compression
from convarium.compression.search_plan import (
    CHOSEN,
    PAGE,
    PLAN,
    RESULT,
    Importance,
    Runtime,
    Scheme,
    SearchPlan,
    Target,
    check_folder,
    check_same,
    read_plan,
    read_steps,
    write_plan,
)
from convarium.compression.search_setup import make_plan
from convarium.console import stderr, stdout
from convarium.data.datasets import Dataset, is_embedded, open_dataset
from convarium.errors import DataError, Interrupted, UsageError, check_choice
from convarium.recipe import check_options
from convarium.runs import Run, clear_output, load_run


def compress(
    run: Path,
    /,
    *,
    data: str,
    max_drop: float | None = None,
    target: Target | None = None,
    output: Path | None = None,
    steps: str | None = None,
    epochs: int | None = None,
    importance: Importance | None = None,
    scheme: Scheme | None = None,
    without_gates: str | None = None,
    low_rank: float | None = None,
    runtime: Runtime | None = None,
    samples: int | None = None,
    batch: int | None = None,
    threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Compression:
    """Make a trained run as small and as quick as a budget of errors allows: prune, train again, and int8.

    Step by step channels are cut and what is left is trained again, until the error exceeds the budget; the smallest
    networks within it are quantised, as a last resort after a training for int8. All are measured beside the dense run,
    and the best is put into OUTPUT/chosen; no file is there where none keeps to the budget (exit code 4). The
    validation images choose, and the test images must agree; compress.html and compress.json tell the rest. Every step
    is a run folder, step-<n>.

    Args:
        run: a run folder.
        data: what it was trained on, or other images of its classes.
        max_drop: points of top-1 error that it may cost; 0.5 when not given.
        target: what is to be least: latency (of one image), macs, params or size (of the file); latency when not given.
        output: the search's folder; compressed/<run> when not given.
        steps: the part of the multiply-adds (of the parameters, for params and size) that is left after each step, such
            as "0.6,0.35,0.2"; when not given, 0.6 times those of the step before, and after one that is over the budget
            one half-way to it.
        epochs: of training after each step; half of the run's own when not given.
        importance: which channels go first: those of the smallest l1 or l2 norm of the weights, nearest to the others
            (median), of the smallest gain of batch norm (norm), that change the loss least (taylor), or that gates let
            through least of (gates); l1 when not given.
        scheme: uniform takes from all layers alike, global what matters least anywhere; uniform when not given.
        without_gates: stages whose gates are taken out before the first step, such as "conv5_x", or "all".
        low_rank: before the first step every dense layer of the head becomes two, which keep this part of its energy,
            such as 0.9, where that makes it smaller.
        runtime: openvino or onnxruntime; the first of them that is installed when not given.
        samples: training images that int8 takes its ranges from; 300 when not given.
        batch: images at once for the throughput; 32 when not given.
        threads: of one operation in training; the run's own when not given.
        resume: go on with the search in the output folder.
        overwrite: replace the search in the output folder.

    Raises:
        UsageError: an option, a step or a folder that cannot be used, or a package that is missing.
        DataError: a run or data that cannot be used, or data of other classes.
        BudgetNotMet: nothing that was tried keeps to the budget and gains something.
        Interrupted: Ctrl-C, after a checkpoint.
    """
    if resume and overwrite:
        raise UsageError("--resume goes on with a search and --overwrite replaces it: give one of them")
    given = dict(
        max_drop=max_drop, target=target, steps=steps and read_steps(steps), epochs=epochs, importance=importance,
        scheme=scheme, without_gates=without_gates, low_rank=low_rank, runtime=runtime, samples=samples, batch=batch,
        threads=threads,
    )  # fmt: skip
    _check(given)
    run, data = Path(run), str(data)
    folder = Path(output) if output else Path("compressed") / run.resolve().name
    try:
        dense = load_run(run)
        if resume:
            plan = read_plan(folder)
            check_same(plan, given, folder)
            dataset = _open_data(data, dense)
            _check_same_inputs(plan, dense, dataset, folder)
        else:
            embedded = is_embedded(data)
            check_folder(folder, data=None if embedded else Path(data), run=run, overwrite=overwrite)
            dataset = _open_data(data, dense)
            plan = make_plan(dense, dataset, data, given)
            clear_output(folder, first=PLAN)
            write_plan(folder, plan)
        return _run(plan, dense, dataset, folder)
    except (Interrupted, KeyboardInterrupt) as stop:
        kind = type(stop) if isinstance(stop, Interrupted) else Interrupted
        command = shlex.join(["convarium", "compress", str(run), "--data", data, "--output", str(folder), "--resume"])
        begun = (folder / PLAN).is_file()
        raise kind(f"stopped; to go on: {command}" if begun else "stopped before the first step") from None


def _check(given: dict[str, Any]) -> None:
    for name, choices in (("target", Target), ("importance", Importance), ("scheme", Scheme), ("runtime", Runtime)):
        if given[name] is not None:
            check_choice(f"--{name}", given[name], get_args(choices))
    limits = (("max_drop", 0, 100), ("samples", 1, 10**6), ("batch", 1, 10**4), ("low_rank", 0.01, 1))
    for name, least, most in limits:
        if given[name] is not None and not least <= given[name] <= most:
            raise UsageError(f"--{name.replace('_', '-')} must be {least} to {most}; got {given[name]}")
    check_options({name: given[name] for name in ("epochs", "threads")})


def _open_data(data: str, run: Run) -> Dataset:
    """The images, with the split that the run was trained under.

    Raises:
        DataError: data that cannot be used, without training images, or of other classes.
    """
    from convarium.data.datasets import check_classes

    dataset = open_dataset(data, run.own["data"]["seed"])
    for note in dataset.notes:
        stderr().print(note)
    check_classes(dataset, run.class_names)
    if dataset.class_names != run.class_names:
        raise DataError(f"{data} has the classes of {run.path} in another order or by other names: train a run on it")
    for split in ("train", "val"):
        dataset.positions(split)
    return dataset


def _check_same_inputs(plan: SearchPlan, run: Run, dataset: Dataset, folder: Path) -> None:
    for what, is_same in (
        (str(run.path), run.own["weights_sha256"] == plan.run_hash),
        (dataset.name, dataset.fingerprint == plan.data_hash),
    ):
        if not is_same:
            raise UsageError(f"{what} is not what the search in {folder} began with: begin anew with --overwrite")


def _run(plan: SearchPlan, run: Run, dataset: Dataset, folder: Path) -> Compression:
    import torch

    from convarium.compression.measure import measure, open_run, wrong_images
    from convarium.compression.page import write_page
    from convarium.compression.search import walk, write_files
    from convarium.evaluation.machine import this_machine

    _clear_chosen(folder)
    wrong = wrong_images(open_run(run.path), dataset, "val", run.preprocessing.channels, "dense")
    steps = walk(plan, dataset, folder, 100 * float(wrong.mean()))
    files, remarks = write_files(plan, dataset, folder, steps)
    points = mark_front(measure(plan, dataset, steps[0], files), plan.target)
    chosen = choose(points, plan.target, plan.max_drop)
    result = Compression(
        run=plan.run,
        data=plan.data,
        split="held-out" if dataset.held_out == "val" else dataset.held_out,
        images=len(dataset.positions("held-out")),
        max_drop=plan.max_drop,
        target=plan.target,
        runtime=plan.runtime,
        machine=this_machine(torch.device("cpu")).device,
        threads=torch.get_num_threads(),
        batch=plan.batch,
        epochs=plan.epochs,
        points=points,
        chosen=chosen.label if chosen else None,
        file=str(_place(Path(chosen.file), folder)) if chosen else None,
        sentence=tell(points, chosen, plan.target, plan.max_drop, plan.runtime),
        notes=[*cautions(points, chosen, dataset.held_out, plan.max_drop), *remarks],
        output=folder,
        page=folder / PAGE,
    )
    write_page(result.page, result)
    write_text(folder / RESULT, json.dumps(result.as_dict(), indent=2, default=str) + "\n")
    if chosen is None:
        wide = stderr()
        wide.width = stdout().width  # no number is to be cut
        wide.print(result.render())
        raise BudgetNotMet(result)
    return result


def _clear_chosen(folder: Path) -> None:
    """What was chosen before is no result of what follows."""
    for path in (folder / RESULT, folder / PAGE):
        path.unlink(missing_ok=True)
    if (folder / CHOSEN).is_dir():
        shutil.rmtree(folder / CHOSEN)


def _place(file: Path, folder: Path) -> Path:
    """Copy a file, and what belongs to it, into ``chosen`` as ``model``."""
    from convarium.compression.trials import parts

    make_folder(folder / CHOSEN)
    for part in parts(file):
        with replacing(folder / CHOSEN / f"model{part.suffix}") as temporary:
            shutil.copyfile(part, temporary)
    return folder / CHOSEN / f"model{file.suffix}"
