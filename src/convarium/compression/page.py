"""A search as one self-contained HTML page: no script, no outside address, light and dark."""

from __future__ import annotations

from pathlib import Path

from convarium.atomic import write_text
from convarium.compression.chart import compression_figure
from convarium.compression.choice import LEAST, NOUNS, RUNTIMES, points_of
from convarium.compression.result import Compression
from convarium.console import short
from convarium.report.figures import to_svg
from convarium.report.template import render_page


def write_page(path: Path, result: Compression) -> None:
    """Write the page.

    Raises:
        ConvariumError: the file cannot be written.
    """
    html = render_page(
        __package__,
        result=result,
        name=Path(result.run).name,
        least=LEAST[result.target],
        target=NOUNS[result.target],
        runtime=RUNTIMES[result.runtime],
        points=points_of(result.max_drop),
        chart=to_svg(compression_figure(result)),
        short=short,
    )
    write_text(path, html)
