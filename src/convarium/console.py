"""What a person sees in the terminal: tables and progress. Everything here goes through rich."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, JustifyMethod
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    pass


NARROWEST = 120  # columns that every table's names and numbers fit into


class _Remarks(Console):
    def on_broken_pipe(self) -> None:
        """Whoever read the remarks has gone; the work goes on in silence."""
        self.quiet = True
        self.file = open(os.devnull, "w")  # noqa: SIM115


class _Results(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def stderr() -> Console:
    """Where progress and remarks go: plain when it is not a terminal or ``NO_COLOR`` is set. Text is not markup."""
    return _Remarks(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)


def stdout() -> Console:
    """Where results go: never so narrow that a number is cut. Text is not markup."""
    console = _Results(highlight=False, soft_wrap=True, markup=False, emoji=False)
    console.width = max(console.width, NARROWEST) if console.is_terminal else 200
    return console


def short(count: float) -> str:
    """A count with three digits and a letter: ``3.86 G``, ``25.6 M``."""
    for letter, unit in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(count) >= unit:
            return f"{count / unit:.3g} {letter}"
    return f"{count:.3g}"


def table(*columns: str, title: str | None = None) -> Table:
    """A plain table; columns whose heading begins with ``>`` are set to the right."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="bold", pad_edge=False)
    for column in columns:
        justify: JustifyMethod = "right" if column.startswith(">") else "left"
        made.add_column(column.lstrip(">"), justify=justify, overflow="fold")  # what is too long goes on below, uncut
    return made


@contextmanager
def counting(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr that appears after two seconds; yields a function to call with how many are done.

    ``total`` is ``None`` where nobody knows it yet.
    """
    began = time.monotonic()
    bar = Progress(
        TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=stderr(), transient=True
    )
    task = bar.add_task(what, total=total)

    def tick(done: int) -> None:
        bar.update(task, completed=done)
        if bar.console.is_terminal and not bar.live.is_started and time.monotonic() - began > 2:
            bar.start()

    try:
        yield tick
    finally:
        if bar.live.is_started:
            bar.stop()


def percent(value: float) -> str:
    """With one decimal at least, as papers print errors: ``20.0 %``, ``23.62 %``."""
    return f"{value:.1f} %" if value == round(value, 1) else f"{value:g} %"
