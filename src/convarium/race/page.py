"""A race as one self-contained HTML page: no script, no outside address, light and dark."""

from __future__ import annotations

from pathlib import Path

from convarium.atomic import write_text
from convarium.console import short
from convarium.race.chart import race_figure
from convarium.race.result import Race
from convarium.report.figures import curves_figure, to_svg
from convarium.report.template import render_page


def write_page(path: Path, race: Race) -> None:
    """Write the page.

    Raises:
        ConvariumError: the file cannot be written.
    """
    rounds = [[leg for leg in race.legs if leg.round == number] for number in sorted({leg.round for leg in race.legs})]
    html = render_page(
        __package__,
        race=race,
        name=Path(race.data).name,
        rounds=rounds,
        raced=[each for each in race.candidates if each.rounds],
        chart=to_svg(race_figure(race.candidates)),
        curves=to_svg(curves_figure(race.histories)),
        short=short,
    )
    write_text(path, html)
