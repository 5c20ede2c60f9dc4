"""Progress of a training: a live bar on a terminal, one line per epoch elsewhere, curves where TensorBoard is there."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from convarium.console import stderr
from convarium.training.loop import Totals


class TrainingProgress:
    """Shows loss, error, images per second and the time left. Use it as a context.

    Where TensorBoard is installed, ``train/loss``, ``val/loss`` and ``val/top1`` go to ``folder/tensorboard``.
    """

    def __init__(self, epochs: int, folder: Path) -> None:
        self.epochs = epochs
        self.folder = folder
        self.board: Any = None
        self.console = stderr()
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:3.0f}%  loss {task.fields[loss]:.3f}  error {task.fields[error]:5.2f}%"),
            TextColumn("{task.fields[speed]:.0f} images/s  left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self.task: TaskID | None = None

    def __enter__(self) -> TrainingProgress:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.bar.stop()
        if self.board:
            self.board.close()

    def on_step(self, epoch: int, step: int, steps: int, totals: Totals) -> None:
        shown: dict[str, Any] = {
            "epoch": f"{epoch + 1}/{self.epochs}",
            "loss": totals.mean_loss,
            "error": totals.error_percent,
            "speed": totals.images / max(totals.seconds, 1e-9),
        }
        if self.task is None:
            self.task = self.bar.add_task("", total=self.epochs * steps, **shown)
        self.bar.update(self.task, completed=epoch * steps + step, **shown)

    def on_epoch(self, row: dict[str, Any]) -> None:
        self._draw(row)
        self.console.print(
            f"epoch {row['epoch']:>3}/{self.epochs}  loss {row['train_loss']:.3f}  train error "
            f"{row['train_top1_error_percent']:5.2f}%  held-out error {row['val_top1_error_percent']:5.2f}%  "
            f"{row['images_per_second']:,.0f} images/s"
        )

    def _draw(self, row: dict[str, Any]) -> None:
        if find_spec("tensorboard") is None:
            return
        if self.board is None:
            from torch.utils.tensorboard import SummaryWriter

            # A resumed run takes back what an interrupted one drew of the epochs to come.
            self.board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=row["epoch"])
        self.board.add_scalar("train/loss", row["train_loss"], row["epoch"])
        self.board.add_scalar("val/loss", row["val_loss"], row["epoch"])
        self.board.add_scalar("val/top1", 100 - row["val_top1_error_percent"], row["epoch"])
        self.board.flush()

    def say(self, line: str) -> None:
        self.console.print(line)
