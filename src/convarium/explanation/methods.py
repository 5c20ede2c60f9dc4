"""What ``explain --method`` can show: one row per method, resolved on use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module

from convarium.explanation.subject import Finding, Subject


@dataclass(frozen=True)
class Method:
    """``find`` is "module:function" of this folder, a generator of findings; ``needs`` is what it works on:
    ``"images"`` (files, or some of a data set), ``"data"`` (a labelled data set) or ``"run"`` (its folder alone)."""

    find: str
    needs: str
    help: str

    def __call__(self, subject: Subject) -> Iterator[Finding]:
        module, name = self.find.split(":")
        function: Callable[[Subject], Iterator[Finding]] = getattr(
            import_module(f"convarium.explanation.{module}"), name
        )
        return function(subject)


METHODS: dict[str, Method] = {
    "gradcam": Method("gradcam:find", "images", "where the evidence for a class lies, by the gradients at a stage"),
}
