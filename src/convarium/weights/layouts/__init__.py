"""Layouts of other libraries, one file each: tables of rename rules (:mod:`convarium.weights.layout`)."""

from importlib import import_module

from convarium.weights.layout import Layout

LIBRARIES = ("torchvision", "timm", "cadene", "keras", "pytorchcv", "caffe")


def layouts(library: str) -> tuple[Layout, ...]:
    """The layouts of a library: one for every kind of network it has."""
    found: tuple[Layout, ...] = import_module(f"{__name__}.{library}").LAYOUTS
    return found


def find_layout(library: str, network: str) -> Layout | None:
    """How ``library`` writes ``network``; ``None`` where it does not have it."""
    return next((layout for layout in layouts(library) if layout.fits(network)), None)
