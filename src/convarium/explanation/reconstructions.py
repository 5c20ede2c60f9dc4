"""What the deconvnet shows of a run: an image's strongest unit, and sheets of the strongest patches of a data set as in
Figure 2 of Zeiler and Fergus, ECCV 2014."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from convarium.console import counting
from convarium.explanation.deconvnet import reconstruct
from convarium.explanation.features import counted_batches
from convarium.explanation.fields import ReceptiveFields, Region, reach_of
from convarium.explanation.figures import frame, montage, show, show_tiles, stretched
from convarium.explanation.strongest import Strongest, strongest
from convarium.explanation.subject import DoesNotApply, Finding, Picture, Subject, visible
from convarium.report.figures import COLOURS, new_figure

CHANNELS = 9  # on a sheet
SHARE = 0.95  # of the signal, that lies in what a sheet shows, on as many of its patches


def find(subject: Subject) -> Iterator[Finding]:
    """A sheet per stage where there is a data set, then a figure per picture."""
    run = subject.run
    fields = ReceptiveFields(run.model, (run.preprocessing.channels, run.preprocessing.size, run.preprocessing.size))
    if subject.dataset is not None:
        yield from _sheets(subject, fields)
    for picture in subject.pictures:
        yield _of_picture(subject, picture, fields)


# -- one image ----------------------------------------------------------------------------------------------------


def _of_picture(subject: Subject, picture: Picture, fields: ReceptiveFields) -> Finding:
    stage = subject.stage or fields.telling()
    down, units = reconstruct(subject.run.model, picture.x, stage, subject.channel)
    channel, row, column = (int(part) for part in units[:3])
    value = float(units.value)
    signal = down[0].permute(1, 2, 0).numpy() * (value > 0)
    figure = _picture_figure(picture.seen, signal, fields.of(stage, row, column))
    if value > 0:
        says = f"what made channel {channel} of {stage} strongest, at row {row} and column {column} of its map"
    else:
        says = f"channel {channel} of {stage} is silent on this image: nothing to reconstruct"
    numbers = {"stage": stage, "channel": channel, "row": row, "column": column, "value": value}
    heat = np.abs(signal).mean(2)
    return Finding(picture.name, figure, says, numbers, heat / (heat.max() or 1))


def _picture_figure(seen: np.ndarray, signal: np.ndarray, field: Region) -> Figure:
    """The image and the reconstruction, what the unit sees in a frame; and of both the part that holds the signal."""
    shown = stretched(signal)
    part = field.shrunk(reach_of(abs(signal).mean(2), field, SHARE)).inside(seen.shape)
    if not signal.any() or part.sides == seen.shape[:2]:
        figure, axes = new_figure(5, 2.7, columns=2)
    else:
        figure, axes = new_figure(9.6, 2.7, columns=4)
        show(axes[2], part.cut(seen), "the patch")
        show(axes[3], part.cut(shown), "what made the unit strong")
    show(axes[0], seen, "what the unit sees")
    show(axes[1], shown, "reconstruction")
    for each in axes[:2]:
        frame(each, field.inside(seen.shape), COLOURS[1])
    return figure


# -- a data set ---------------------------------------------------------------------------------------------------


def _sheets(subject: Subject, fields: ReceptiveFields) -> Iterator[Finding]:
    stages = subject.stages()
    batches = counted_batches(subject, subject.positions, "looking for the strongest patches")
    found = strongest(subject.run.model, batches, stages)
    for stage in stages:
        channels = _channels(found[stage].alive(), subject.channel)
        if channels:
            yield _sheet(subject, found[stage], stage, channels, fields)
        elif subject.stage is not None:
            which = "all channels" if subject.channel is None else f"channel {subject.channel}"
            raise DoesNotApply(f"{which} of {stage}: silent on {len(subject.positions)} images, nothing to reconstruct")


def _channels(alive: Sequence[int], asked: int | None) -> list[int]:
    """The channel asked for, or nine from the first to the last that are not silent."""
    if asked is not None:
        return [asked] if asked in alive else []
    return [alive[i] for i in np.unique(np.linspace(0, len(alive) - 1, CHANNELS).round().astype(int))] if alive else []


def _sheet(subject: Subject, found: Strongest, stage: str, channels: Sequence[int], fields: ReceptiveFields) -> Finding:
    assert subject.dataset is not None
    blocks, rows = [], []
    with counting(f"reconstructing {stage}", len(channels)) as tick:
        for done, channel in enumerate(channels):
            kept = found.values[channel] > 0
            positions, places = found.positions[channel][kept], found.places(channel)[kept]
            blocks.append(_patches(subject, stage, channel, positions.numpy(), places, fields))
            values = [round(value, 4) for value in found.values[channel][kept].tolist()]
            rows.append({"channel": channel, "values": values, "images": [subject.dataset.ids[p] for p in positions]})
            tick(done + 1)
    reaches = [reach_of(abs(patch.signal).mean(2), patch.field, SHARE) for block in blocks for patch in block]
    reach = float(np.quantile(reaches, SHARE))
    side = max(max(patch.field.shrunk(reach).sides) for block in blocks for patch in block)
    sees = "" if side == fields.side(stage) else f" of the {fields.side(stage)} that a unit sees"
    says = (
        f"{stage}: left what made a channel strong, right the patches it was in; for each channel its "
        f"{found.values.shape[1]} strongest of {len(subject.positions)} images, {side} pixels a side{sees}"
    )
    figure = _sheet_figure(blocks, reach, [f"channel {channel}" for channel in channels])
    return Finding(f"sheet-{stage}", figure, says, {"stage": stage, "side_px": side, "channels": rows})


class Patch(NamedTuple):
    """What made a unit strong ``(H, W, C)``, the image it was in ``(H, W, C)``, and what the unit sees of it."""

    signal: np.ndarray
    seen: np.ndarray
    field: Region


def _patches(
    subject: Subject, stage: str, channel: int, positions: np.ndarray, places: Tensor, fields: ReceptiveFields
) -> list[Patch]:
    images = torch.cat([batch for _, batch in subject.batches(positions)])
    down, _ = reconstruct(subject.run.model, images, stage, channel, places)
    return [
        Patch(signal, seen, fields.of(stage, row, column))
        for signal, seen, (row, column) in zip(
            down.permute(0, 2, 3, 1).numpy(), visible(subject.run, images), places.tolist(), strict=True
        )
    ]


def _sheet_figure(blocks: Sequence[Sequence[Patch]], reach: float, titles: Sequence[str]) -> Figure:
    """Blocks three in a row: reconstructions on the left, the patches they are of on the right, all to ``reach`` pixels
    from the middle of what the unit sees."""
    columns = min(3, len(blocks))
    rows = -(-len(blocks) // columns)
    tiles = -(-max(map(len, blocks)) // 3)  # a block's rows
    figure, axes = new_figure(3.4 * columns, (0.3 + 0.52 * tiles) * rows, columns=columns, rows=rows, squeeze=False)
    for each in axes.flat:
        each.set_axis_off()
    for each, block, title in zip(axes.flat, blocks, titles, strict=False):
        parts = [patch.field.shrunk(reach) for patch in block]
        left = montage([stretched(part.cut(patch.signal)) for part, patch in zip(parts, block, strict=True)], 3)
        right = montage([part.cut(patch.seen) for part, patch in zip(parts, block, strict=True)], 3)
        show_tiles(each, np.concatenate([left, np.zeros((len(left), 12, 4)), right], 1), title)
    return figure
