"""``explain``: pictures of what a trained run looks at, and a page of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from convarium.errors import UsageError, check_choice, nearest

if TYPE_CHECKING:
    import numpy as np
    from rich.console import RenderableType

    from convarium.explanation.beside import Moved
    from convarium.explanation.methods import Method
    from convarium.explanation.page import Row
    from convarium.explanation.subject import Finding, Picture, Subject
    from convarium.runs import Run

PAGE = "index.html"
Format = Literal["png", "svg"]


@dataclass(frozen=True)
class Explanation:
    """One figure: of which run and method, in which file, a sentence to read it by, and its numbers."""

    run: str
    method: str
    name: str
    picture: str
    says: str
    numbers: dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """An image that was explained, and what the network said of it."""

    image: str
    label: str
    probability: float


@dataclass(frozen=True)
class Explanations:
    """What ``explain`` wrote; ``left_out`` says which methods had nothing to show, and why.

    With a second run ``beside`` the first, ``images`` are what the first said, ``beside_images`` what the second did,
    and ``moved`` says how far the explanations are apart.
    """

    run: str
    images: list[Seen]
    rows: list[Explanation]
    page: str
    left_out: dict[str, str] = field(default_factory=dict)
    beside: str | None = None
    beside_images: list[Seen] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def render(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        from convarium.explanation.beside import moved_table

        lines = [f"{seen.image}: {seen.label} ({100 * seen.probability:.1f} %)" for seen in self.images]
        lines += [f"{row.method}: {row.says} -> {row.picture}" for row in self.rows]
        lines += [f"{method}: left out, {why}" for method, why in self.left_out.items()]
        last = f"all on one page: {self.page}"
        if self.beside is None:
            return Text("\n".join([*lines, last]))
        return Group("\n".join(lines), "", moved_table(self.moved, self.run, self.beside), "", last)


@dataclass(frozen=True)
class Shown:
    """A finding that was written: its row, its figure as inline SVG, and its heat where it has one."""

    row: Explanation
    svg: str
    heat: np.ndarray | None


def explain(
    run: Path,
    images: list[Path] | None = None,
    /,
    *,
    data: str | None = None,
    split: str = "held-out",
    count: int = 10,
    limit: int = 1000,
    method: str = "gradcam",
    class_name: str | None = None,
    stage: str | None = None,
    channel: int | None = None,
    beside: Path | None = None,
    map_by_name: bool = False,
    output: Path | None = None,
    format: Format = "png",
) -> Explanations:
    """Draw what a trained run looks at, one figure per image or question, and a page of all.

    Args:
        run: a run folder.
        images: image files.
        data: "digits", "glyphs", or a folder: its images in place of files, and statistics over it.
        split: of the data: held-out (test or val), train, val, test or all.
        count: how many images of the data are looked at one by one, the classes in turn.
        limit: at most how many images of the data statistics are taken over.
        method: one of METHODS, several with commas between, or "all".
        class_name: the class to explain; the predicted one when not given.
        stage: the stage to look at; what suits the method when not given.
        channel: the channel of that stage, from 0; what suits the method when not given.
        beside: another run folder, explained beside the first for the classes that the first predicts.
        map_by_name: accept another run with other classes, and look at those that both know.
        output: folder for the figures and the page; RUN/explanations when not given.
        format: png, or svg.

    Raises:
        UsageError: a method, class, stage or channel that does not exist, or one that has nothing to show here.
        DataError: a run, image or data set that cannot be read; two runs with different classes.
    """
    from convarium.explanation.beside import for_same_classes, shared_classes, side_by_side
    from convarium.explanation.methods import METHODS
    from convarium.explanation.page import write_page
    from convarium.explanation.subject import DoesNotApply
    from convarium.runs import load_run

    check_choice("--format", format, get_args(Format))
    chosen = _chosen(method, METHODS)
    runs = [load_run(path) for path in (run, beside) if path is not None]
    for loaded in runs:
        _check(loaded, class_name, stage, channel)
    shared = shared_classes(runs, map_by_name=map_by_name)
    subjects = for_same_classes(_subjects(runs, images or [], data, split, count, limit), shared)
    subjects = [replace(each, class_name=class_name, stage=stage, channel=channel) for each in subjects]
    folder = _make_folder(Path(output) if output else runs[0].path / "explanations")
    rows: list[Explanation] = []
    moved: list[Moved] = []
    drawn: dict[str, list[Row]] = {}
    left_out: dict[str, str] = {}
    for name in chosen:
        try:
            sides = [
                _show(folder, name, METHODS[name], each, format, suffix)
                for each, suffix in zip(subjects, ("", "-beside"), strict=False)
            ]
        except DoesNotApply as why:
            if len(chosen) == 1:
                raise
            left_out[name] = str(why)
            continue
        rows += [shown.row for side in sides for shown in side.values()]
        drawn[name], far = side_by_side(sides)
        moved += far
    seen = [[_seen(each.run, picture) for picture in each.pictures] for each in subjects]
    titles = [f"{loaded.path}: {loaded.model.name}" for loaded in runs]
    write_page(folder / PAGE, titles, seen, drawn, left_out)
    first, *others = (str(loaded.path) for loaded in runs)
    other, other_seen = (others[0], seen[1]) if others else (None, [])
    return Explanations(first, seen[0], rows, str(folder / PAGE), left_out, other, other_seen, moved)


def _make_folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {path}: {error.strerror}") from None
    return path


def _chosen(asked: str, methods: dict[str, Method]) -> list[str]:
    names = list(methods) if asked == "all" else [name.strip() for name in asked.split(",")]
    for name in names:
        if name not in methods:
            raise UsageError(f"no method {name!r}; {nearest(name, [*methods, 'all'])}; there are: {', '.join(methods)}")
    return list(dict.fromkeys(names))


def _check(run: Run, class_name: str | None, stage: str | None, channel: int | None) -> None:
    if class_name is not None and class_name not in run.class_names:
        raise UsageError(f"no class {class_name!r}; {nearest(class_name, run.class_names)}")
    if stage is not None and stage not in run.model.stages:
        raise UsageError(f"{run.model.name} has no stage {stage!r}; stages: {', '.join(run.model.stages)}")
    if channel is not None:
        if stage is None:
            raise UsageError(f"channel {channel} of which stage? add --stage; stages: {', '.join(run.model.stages)}")
        size = (run.preprocessing.channels, run.preprocessing.size, run.preprocessing.size)
        channels = run.model.stage_shapes(size)[stage][0]
        if not 0 <= channel < channels:
            raise UsageError(f"stage {stage} has channels 0 to {channels - 1}; got {channel}")


def _subjects(
    runs: Sequence[Run], images: Sequence[Path], data: str | None, split: str, count: int, limit: int
) -> list[Subject]:
    """For each run the same image files, or images of a data set and positions to take statistics over."""
    from convarium.data.datasets import check_classes, open_dataset
    from convarium.explanation.subject import Subject, data_pictures, file_pictures, spread

    if min(count, limit) < 1:
        raise UsageError(f"--count and --limit must be 1 or more; got {min(count, limit)}")
    if images and data is not None:
        raise UsageError("image files or --data, not both")
    if data is None:
        return [Subject(run, file_pictures(run, [Path(path) for path in images])) for run in runs]
    dataset = open_dataset(data, runs[0].own["data"]["seed"])
    positions = dataset.positions(split)
    chosen = spread(dataset.labels, positions, limit)
    subjects = []
    for run in runs:
        labels = check_classes(dataset, run.class_names, map_by_name=True)
        # Chosen by the data set's own order of classes, so that all runs see the same images.
        pictures = data_pictures(run, dataset, dataset.labels, positions, count)
        place: dict[int | None, int] = {
            int(own): int(theirs) for own, theirs in zip(dataset.labels, labels, strict=True)
        }
        known = [replace(picture, label=place[picture.label]) for picture in pictures]
        subjects.append(Subject(run, known, dataset, chosen, labels))
    return subjects


def _check_needs(name: str, method: Method, subject: Subject) -> None:
    from convarium.explanation.subject import DoesNotApply

    if method.needs == "images" and not subject.pictures:
        raise DoesNotApply(f"{name} needs images: convarium explain RUN IMAGE..., or --data DATA")
    if method.needs == "data" and subject.dataset is None:
        raise DoesNotApply(f"{name} needs a data set: add --data DATA")


def _show(folder: Path, name: str, method: Method, subject: Subject, format: Format, suffix: str) -> dict[str, Shown]:
    """Write every finding of a method; by the finding's name."""
    import torch

    from convarium.evaluation.latency import on_threads
    from convarium.report.figures import to_svg

    _check_needs(name, method, subject)
    shown = {}
    with on_threads(subject.run.own.get("threads") or torch.get_num_threads()):  # as measured in training
        for finding in method(subject):
            path = folder / f"{finding.name}-{name}{suffix}.{format}"
            _write(path, finding, format)
            row = Explanation(str(subject.run.path), name, finding.name, str(path), finding.says, finding.numbers)
            shown[finding.name] = Shown(row, to_svg(finding.figure), finding.heat)
    return shown


def _write(path: Path, finding: Finding, format: Format) -> None:
    from convarium.atomic import write_bytes, write_text
    from convarium.report.figures import to_png, to_svg_file

    if format == "svg":
        write_text(path, to_svg_file(finding.figure, finding.says))
    else:
        write_bytes(path, to_png(finding.figure))


def _seen(run: Run, picture: Picture) -> Seen:
    probabilities = picture.logits.softmax(0)
    best = int(probabilities.argmax())
    return Seen(picture.source, run.class_names[best], float(probabilities[best]))
