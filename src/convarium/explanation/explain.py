"""``explain``: pictures of what a trained run looks at, and a page of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from convarium.errors import UsageError, check_choice, nearest

if TYPE_CHECKING:
    from rich.console import RenderableType

    from convarium.explanation.methods import Method
    from convarium.explanation.subject import Finding, Picture, Subject
    from convarium.runs import Run

PAGE = "index.html"
Format = Literal["png", "svg"]


@dataclass(frozen=True)
class Explanation:
    """One figure: of which method, in which file, a sentence to read it by, and its numbers."""

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
    """What ``explain`` wrote; ``left_out`` says which methods had nothing to show, and why."""

    run: str
    images: list[Seen]
    rows: list[Explanation]
    page: str
    left_out: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def render(self) -> RenderableType:
        from rich.text import Text

        lines = [f"{seen.image}: {seen.label} ({100 * seen.probability:.1f} %)" for seen in self.images]
        lines += [f"{row.method}: {row.says} -> {row.picture}" for row in self.rows]
        lines += [f"{method}: left out, {why}" for method, why in self.left_out.items()]
        return Text("\n".join([*lines, f"all on one page: {self.page}"]))


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
        output: folder for the figures and the page; RUN/explanations when not given.
        format: png, or svg.

    Raises:
        UsageError: a method, class, stage or channel that does not exist, or one that has nothing to show here.
        DataError: a run, image or data set that cannot be read.
    """
    from convarium.explanation.methods import METHODS
    from convarium.explanation.page import write_page
    from convarium.explanation.subject import DoesNotApply
    from convarium.report.figures import to_svg
    from convarium.runs import load_run

    check_choice("--format", format, get_args(Format))
    chosen = _chosen(method, METHODS)
    loaded = load_run(run)
    _check(loaded, class_name, stage, channel)
    subject = _subject(loaded, [Path(path) for path in images or []], data, split, count, limit)
    subject = replace(subject, class_name=class_name, stage=stage, channel=channel)
    folder = Path(output) if output else loaded.path / "explanations"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {folder}: {error.strerror}") from None
    rows: list[Explanation] = []
    drawn: dict[str, list[tuple[str, str]]] = {}  # method -> its figures as inline SVG, and what they say
    left_out: dict[str, str] = {}
    for name in chosen:
        try:
            _check_needs(name, METHODS[name], subject)
            for finding in METHODS[name](subject):
                rows.append(_write(folder, name, finding, format))
                drawn.setdefault(name, []).append((to_svg(finding.figure), finding.says))
        except DoesNotApply as why:
            if len(chosen) == 1:
                raise
            left_out[name] = str(why)
    seen = [_seen(loaded, picture) for picture in subject.pictures]
    write_page(folder / PAGE, f"{loaded.path}: {loaded.model.name}", seen, drawn, left_out)
    return Explanations(str(loaded.path), seen, rows, str(folder / PAGE), left_out)


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


def _subject(run: Run, images: Sequence[Path], data: str | None, split: str, count: int, limit: int) -> Subject:
    """Image files, or images of a data set and positions to take statistics over."""
    from convarium.data.datasets import check_classes, open_dataset
    from convarium.explanation.subject import Subject, data_pictures, file_pictures, spread

    if min(count, limit) < 1:
        raise UsageError(f"--count and --limit must be 1 or more; got {min(count, limit)}")
    if images and data is not None:
        raise UsageError("image files or --data, not both")
    if data is None:
        return Subject(run, file_pictures(run, images))
    dataset = open_dataset(data, run.own["data"]["seed"])
    labels = check_classes(dataset, run.class_names, map_by_name=True)
    positions = dataset.positions(split)
    return Subject(
        run, data_pictures(run, dataset, labels, positions, count), dataset, spread(labels, positions, limit), labels
    )


def _check_needs(name: str, method: Method, subject: Subject) -> None:
    from convarium.explanation.subject import DoesNotApply

    if method.needs == "images" and not subject.pictures:
        raise DoesNotApply(f"{name} needs images: convarium explain RUN IMAGE..., or --data DATA")
    if method.needs == "data" and subject.dataset is None:
        raise DoesNotApply(f"{name} needs a data set: add --data DATA")


def _write(folder: Path, method: str, finding: Finding, format: Format) -> Explanation:
    from convarium.atomic import write_bytes, write_text
    from convarium.report.figures import to_png, to_svg_file

    path = folder / f"{finding.name}-{method}.{format}"
    if format == "svg":
        write_text(path, to_svg_file(finding.figure, finding.says))
    else:
        write_bytes(path, to_png(finding.figure))
    return Explanation(method, finding.name, str(path), finding.says, finding.numbers)


def _seen(run: Run, picture: Picture) -> Seen:
    probabilities = picture.logits.softmax(0)
    best = int(probabilities.argmax())
    return Seen(picture.source, run.class_names[best], float(probabilities[best]))
