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
    "occlusion": Method("occlusion:find", "images", "what a class loses when a grey square hides a part of the image"),
    "gradient": Method(
        "gradients:find_gradient", "images", "how much each pixel's smallest change would change a class"
    ),
    "guided": Method("gradients:find_guided", "images", "what each pixel does for a class by positive ways alone"),
    "integrated": Method("gradients:find_integrated", "images", "what each pixel adds to a class, on a way from grey"),
    "faithfulness": Method("faithfulness:find", "images", "which maps name the pixels that matter"),
    "deconvnet": Method("reconstructions:find", "images", "what in images made units strong, sent down to the pixels"),
    "filters": Method("filters:find", "run", "the filters of the first layer"),
    "activations": Method("activations:find", "images", "the maps of a stage that are strongest"),
    "receptive-field": Method("receptive_field:find", "images", "which pixels a unit sees, and which of them count"),
    "invariance": Method("invariance:find", "images", "how far features move when the image is moved"),
    "correspondence": Method("correspondence:find", "data", "whether hiding one place changes a class's images alike"),
    "probe": Method("probe:find", "data", "what a linear classifier makes of each stage's features"),
    "gates": Method("gates:find", "data", "what gates multiply by, by class and depth"),
    "masks": Method("masks:find", "images", "the soft masks that attention lays over the image"),
    "evolution": Method("evolution:find", "images", "how features came to be, at the snapshots of a training"),
    "gradient-flow": Method(
        "gradient_flow:find", "data", "how much of the gradient reaches each layer, over a training"
    ),
    "activation-scale": Method("activation_scale:find", "data", "how large the last map is, over a training"),
}
