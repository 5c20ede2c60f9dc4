"""One self-contained HTML page about one run or several: no script, no outside address, light and dark."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convarium.atomic import write_text
from convarium.console import short
from convarium.data.datasets import Dataset, open_dataset
from convarium.errors import DataError
from convarium.recipe import Recipe, read_recipe
from convarium.report.figures import accuracy_figure, confusion_figure, curves_figure, to_svg
from convarium.report.template import render_page
from convarium.runs import EVALUATION, METRICS, RECIPE, load_run

THUMBNAIL = 96  # pixels
CARDS = 10


@dataclass(frozen=True)
class RunFacts:
    """What the page shows of one run."""

    folder: Path
    recipe: Recipe
    history: list[dict[str, Any]]
    evaluation: dict[str, Any]
    params: int
    macs: int
    latency_ms: float

    @property
    def error(self) -> float:
        return self.evaluation["top1_error_percent"]

    @property
    def seconds(self) -> float:
        return sum(row["seconds"] for row in self.history)


def write_report(
    path: Path, folders: Sequence[Path], *, title: str, explanation: str = "", notes: Sequence[str] = ()
) -> list[RunFacts]:
    """Write the page and return what it shows, best run first.

    Args:
        path: the HTML file.
        folders: finished runs on the same data.
        title: of the page.
        explanation: inline SVG of an explained image.
        notes: sentences under the title.
    """
    runs = sorted(_gather(folders), key=lambda run: (run.error, run.macs))
    best = runs[0]
    points = [(run.recipe.model, float(run.macs), run.error, float(run.params)) for run in runs]
    curves = curves_figure({run.recipe.model: run.history for run in runs})
    html = render_page(
        __package__,
        title=title,
        notes=notes,
        runs=runs,
        best=best,
        short=short,
        chart=to_svg(accuracy_figure(points)) if len(runs) > 1 else "",
        curves=to_svg(curves),
        confusion=to_svg(confusion_figure(best.evaluation["confusion"], best.evaluation["class_names"])),
        mistakes=_cards(best),
        explanation=explanation,
    )
    write_text(path, html)
    return runs


def _gather(folders: Sequence[Path]) -> list[RunFacts]:
    from convarium.anatomy.describe import describe
    from convarium.evaluation.latency import latency_ms

    loaded = {folder: load_run(folder) for folder in folders}
    timings = latency_ms({folder: (run.model, run.preprocessing) for folder, run in loaded.items()})
    gathered = []
    for folder, run in loaded.items():
        size = (run.preprocessing.channels, run.preprocessing.size, run.preprocessing.size)
        described = describe(run.model, input_size=size)
        lines = (folder / METRICS).read_text(encoding="utf-8").splitlines()
        gathered.append(
            RunFacts(
                folder=folder,
                recipe=read_recipe(folder / RECIPE)[0],
                history=[json.loads(line) for line in lines],
                evaluation=json.loads((folder / EVALUATION).read_text(encoding="utf-8")),
                params=described.params,
                macs=described.macs,
                latency_ms=timings[folder],
            )
        )
    return gathered


def _cards(run: RunFacts) -> list[dict[str, Any]]:
    """The most confident mistakes, with their pictures where the data is still there."""
    mistakes = run.evaluation["mistakes"][:CARDS]
    try:
        dataset = open_dataset(run.recipe.data, run.recipe.seed)
    except DataError:
        return mistakes
    return [dict(mistake, picture=_thumbnail(dataset, mistake["image"])) for mistake in mistakes]


def _thumbnail(dataset: Dataset, image: str) -> str:
    """A data address of a small PNG, or nothing when the image is gone."""
    from PIL import Image

    if image not in dataset.ids:
        return ""
    picture = Image.fromarray(np.asarray(dataset.read(dataset.ids.index(image), 3)))
    scale = THUMBNAIL / max(picture.size)
    kind = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.BICUBIC
    picture = picture.resize([max(1, round(side * scale)) for side in picture.size], kind)
    held = io.BytesIO()
    picture.save(held, format="PNG")
    return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode()
