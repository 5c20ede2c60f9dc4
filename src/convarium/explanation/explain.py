"""``explain``: pictures of what a trained run looks at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from convarium.errors import UsageError, check_choice, nearest

if TYPE_CHECKING:
    from rich.console import RenderableType

    from convarium.runs import Run


@dataclass(frozen=True)
class Explanation:
    """One image's picture, and what the network said of it."""

    image: str
    picture: str
    label: str
    probability: float
    explained_class: str
    stage: str


@dataclass(frozen=True)
class Explanations:
    """What ``explain`` wrote, in the order of the images."""

    rows: list[Explanation]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def render(self) -> RenderableType:
        lines = [
            f"{row.image}: {row.label} ({100 * row.probability:.1f} %), evidence for {row.explained_class} at "
            f"{row.stage} -> {row.picture}"
            for row in self.rows
        ]
        return "\n".join(lines)


def explain(
    run: Path,
    images: list[Path],
    /,
    *,
    method: Literal["gradcam"] = "gradcam",
    class_name: str | None = None,
    stage: str | None = None,
    output: Path | None = None,
) -> Explanations:
    """Draw where the evidence for a class lies in each image.

    Args:
        run: a run folder.
        images: image files.
        method: gradcam.
        class_name: the class to explain; the predicted one when not given.
        stage: the stage to look at; the last one with a map of at least 4x4 when not given.
        output: folder for the pictures; RUN/explanations when not given.

    Raises:
        UsageError: a class or stage that does not exist.
        DataError: a run or image that cannot be read.
    """
    from convarium.atomic import replacing
    from convarium.console import counting
    from convarium.data.images import read_image
    from convarium.runs import load_run

    check_choice("--method", method, ["gradcam"])
    if not images:
        raise UsageError("no image to explain: convarium explain RUN IMAGE...")
    images = [Path(path) for path in images]
    loaded = load_run(run)
    if class_name is not None and class_name not in loaded.class_names:
        raise UsageError(f"no class {class_name!r}; {nearest(class_name, loaded.class_names)}")
    pixels = [read_image(path, loaded.preprocessing.channels) for path in images]
    folder = Path(output) if output else loaded.path / "explanations"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {folder}: {error.strerror}") from None
    rows = []
    with counting("explaining", len(images)) as tick:
        for name, path, image in zip(_names(images), images, pixels, strict=True):
            figure, row = explain_image(loaded, image, class_name=class_name, stage=stage)
            picture = folder / f"{name}-{method}.png"
            with replacing(picture) as temporary:
                figure.savefig(temporary, format="png", dpi=120)
            rows.append(Explanation(str(path), str(picture), *row))
            tick(len(rows))
    return Explanations(rows)


def _names(images: list[Path]) -> list[str]:
    """A name per picture: the image's, its folder's before it where two are alike, a number where those are too."""
    names = [path.stem for path in images]
    if len(set(names)) < len(names):
        names = ["-".join([*path.parent.parts[-1:], path.stem]) for path in images]
    return [f"{name}-{names[:i].count(name)}" if name in names[:i] else name for i, name in enumerate(names)]


def explain_image(
    run: Run, image: np.ndarray, *, class_name: str | None = None, stage: str | None = None
) -> tuple[Any, tuple[str, float, str, str]]:
    """A matplotlib figure of one ``(H, W, C)`` uint8 image, and (label, its probability, class explained, stage)."""
    import torch

    from convarium.data.resize import Preprocess
    from convarium.explanation.gradcam import coarsest_stage, grad_cam
    from convarium.report.figures import explanation_figure

    x = Preprocess(run.preprocessing)(torch.from_numpy(image)[None])
    with torch.no_grad():
        probabilities = run.model(x)[0].softmax(0)
    best = int(probabilities.argmax())
    target = best if class_name is None else run.class_names.index(class_name)
    stage = stage or coarsest_stage(run.model, x)
    heat = grad_cam(run.model, x, torch.tensor([target]), stage)[0].numpy()
    mean = torch.tensor(run.preprocessing.mean).view(-1, 1, 1)
    std = torch.tensor(run.preprocessing.std).view(-1, 1, 1)
    seen = (x[0].detach() * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()
    figure = explanation_figure(seen, heat, run.class_names, probabilities.numpy(), run.class_names[target], stage)
    return figure, (run.class_names[best], float(probabilities[best]), run.class_names[target], stage)
