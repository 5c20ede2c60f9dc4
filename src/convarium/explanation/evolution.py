"""How features come to be: the strongest image of a channel, sent down to the pixels, at every snapshot of a training
(M. Zeiler, R. Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, Section 4.1, Fig. 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from convarium.console import counting
from convarium.explanation.deconvnet import reconstruct
from convarium.explanation.fields import ReceptiveFields
from convarium.explanation.figures import montage, show_tiles, stretched
from convarium.explanation.strongest import strongest
from convarium.explanation.subject import DoesNotApply, Finding, Subject
from convarium.network import Network
from convarium.report.figures import new_figure
from convarium.snapshots import kept, snapshots

CHANNELS = 6  # of a stage, spread over all of them

Images = Callable[[np.ndarray | None], Iterator[tuple[np.ndarray, Tensor]]]


@dataclass(frozen=True)
class Feature:
    """The strongest unit of one channel at one epoch.

    Attributes:
        channel: of the stage's map.
        epoch: after which; 0 is before training.
        image: the position of the image that has it.
        row, column: on the map.
        value: of the unit.
        signal: its reconstruction ``(C, H, W)`` in the scale of the preprocessed images; all zeros where it is silent.
    """

    channel: int
    epoch: int
    image: int
    row: int
    column: int
    value: float
    signal: Tensor


def evolution(
    moments: Iterable[tuple[int, Network]],
    images: Images,
    channels: Mapping[str, Sequence[int]],
    tick: Callable[[int], None] = lambda done: None,
) -> dict[str, list[Feature]]:
    """The strongest unit of every channel at every epoch, and what made it strong, over all images each time: where
    another image becomes the strongest, the picture jumps.

    Args:
        moments: epochs and networks in evaluation mode, such as :func:`convarium.snapshots.snapshots`.
        images: gives ``(positions, (N, C, H, W))`` in batches: of all images, or of the positions it is called with.
        channels: by stage.
        tick: called with how many epochs are done.

    Returns:
        By stage, epoch after epoch, and within each the channels as they were asked for.
    """
    found: dict[str, list[Feature]] = {stage: [] for stage in channels}
    for done, (epoch, network) in enumerate(moments, start=1):
        best = strongest(network, images(None), list(channels), count=1)
        for stage, chosen in channels.items():
            positions = best[stage].positions[chosen, 0].numpy()
            places = torch.cat([best[stage].places(channel) for channel in chosen])
            unique, where = np.unique(positions, return_inverse=True)
            pixels = torch.cat([batch for _, batch in images(unique)])[torch.from_numpy(where)]
            signals, units = reconstruct(network, pixels, stage, torch.tensor(chosen), places)
            found[stage] += [
                Feature(channel, epoch, int(position), int(row), int(column), float(value), signal)
                for channel, position, row, column, value, signal in zip(
                    chosen, positions, units.row, units.column, units.value, signals, strict=True
                )
            ]
        tick(done)
    return found


def find(subject: Subject) -> Iterator[Finding]:
    """A figure per stage: channels down, epochs across."""
    run = subject.run
    count = len(kept(run))
    if not count:
        raise DoesNotApply(
            f"{run.path} kept no snapshots: train with --snapshots, such as convarium train "
            f"{run.own['data']['name']} --model {run.model.name} --snapshots all --output RUN"
        )
    size = (run.preprocessing.channels, run.preprocessing.size, run.preprocessing.size)
    shapes, fields = run.model.stage_shapes(size), ReceptiveFields(run.model, size)
    chosen = {
        stage: [subject.channel] if subject.channel is not None else spread_channels(shapes[stage][0])
        for stage in subject.stages()
    }
    with counting("epochs", count) as tick:
        features = evolution(snapshots(run), partial(_images, subject), chosen, tick)
    for stage, rows in features.items():
        yield _finding(subject, stage, rows, fields)


def spread_channels(count: int) -> list[int]:
    """:data:`CHANNELS` of ``count``, from the first to the last."""
    return np.unique(np.linspace(0, count - 1, CHANNELS).round().astype(int)).tolist()


def _images(subject: Subject, positions: np.ndarray | None) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Of the data set where there is one, else the pictures."""
    if subject.dataset is not None:
        return subject.batches(subject.positions if positions is None else positions)
    chosen = np.arange(len(subject.pictures)) if positions is None else positions
    return iter([(chosen, torch.cat([subject.pictures[i].x for i in chosen.tolist()]))])


def _finding(subject: Subject, stage: str, features: Sequence[Feature], fields: ReceptiveFields) -> Finding:
    names = subject.dataset.ids if subject.dataset else [picture.source for picture in subject.pictures]
    channels = list(dict.fromkeys(feature.channel for feature in features))
    epochs = list(dict.fromkeys(feature.epoch for feature in features))
    at = {(feature.channel, feature.epoch): feature for feature in features}
    tiles = [[_tile(at[channel, epoch], stage, fields) for epoch in epochs] for channel in channels]
    numbers = {
        "stage": stage,
        "features": [
            {"channel": f.channel, "epoch": f.epoch, "image": names[f.image], "value": round(f.value, 4)}
            for f in features
        ],
    }
    says = (
        f"{stage}: what made a channel strongest after the epochs above it; where another image becomes the strongest "
        "one, the picture jumps; clear is what lies outside the image, or the whole where the channel is silent on all"
    )
    return Finding(stage, _figure(tiles, channels, epochs), says, numbers)


def _tile(feature: Feature, stage: str, fields: ReceptiveFields) -> np.ndarray:
    """What the unit sees of its reconstruction; clear where there is none."""
    signal = fields.of(stage, feature.row, feature.column).cut(feature.signal.permute(1, 2, 0).numpy())
    return stretched(signal) if feature.signal.any() else np.full_like(signal, np.nan)


def _figure(tiles: Sequence[Sequence[np.ndarray]], channels: Sequence[int], epochs: Sequence[int]) -> Figure:
    """Rows of tiles, each under its epoch and beside its channel."""
    made = montage([tile for row in tiles for tile in row], len(epochs))
    figure, axes = new_figure(1.2 + 0.75 * len(epochs), 0.6 + 0.75 * len(channels))
    show_tiles(axes, made)
    axes.set_axis_on()
    axes.spines[:].set_visible(False)
    height, width = made.shape[:2]
    axes.set_xticks(_middles(width, len(epochs)), [f"{epoch}" for epoch in epochs])
    axes.set_yticks(_middles(height, len(channels)), [f"channel {channel}" for channel in channels])
    axes.tick_params(length=0, top=True, bottom=False, labeltop=True, labelbottom=False)
    axes.set_xlabel("after epoch")
    axes.xaxis.set_label_position("top")
    return figure


def _middles(length: int, count: int) -> list[float]:
    return [(i + 0.5) * length / count for i in range(count)]
