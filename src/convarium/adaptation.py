"""Weights made to fit a network with another number of classes or of input channels than theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

    from convarium.network import Network

CLASSIFIER = "head.classifier."


def adapt(
    tensors: dict[str, Tensor], network: Network, *, classes: bool = True, channels: bool = True
) -> tuple[dict[str, Tensor], list[str]]:
    """Weights that fit ``network`` where they differ from it in these two numbers alone, and what was done, in words.

    What differs in anything else stays as it is, for strict loading to refuse.

    Args:
        tensors: weights under this project's keys; they are not changed.
        network: whose they are to be; it is not changed.
        classes: the number of classes may differ: the classifier is then the network's own, as freshly made.
        channels: the number of input channels may differ: the first convolution is then adapted (:func:`adapt_kernel`).
    """
    wanted, adapted, notes = network.state_dict(), dict(tensors), []
    if classes:
        notes += _adapt_classifier(adapted, wanted)
    if channels:
        notes += _adapt_first_convolution(adapted, wanted, first_kernel(network))
    return adapted, notes


def _adapt_classifier(tensors: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[str]:
    fresh = {key: tensor for key, tensor in wanted.items() if key.startswith(CLASSIFIER)}
    theirs = {key: tensor for key, tensor in tensors.items() if key.startswith(CLASSIFIER)}
    if not fresh:  # num_classes=0
        for key in theirs:
            del tensors[key]
        return []
    alike = fresh.keys() == theirs.keys() and all(fresh[key].shape[1:] == theirs[key].shape[1:] for key in fresh)
    other = [key for key in fresh if alike and fresh[key].shape != theirs[key].shape]
    if not other:
        return []
    tensors.update(fresh)
    key = other[0]
    return [f"a fresh classifier for {len(fresh[key])} classes: the weights' own is for {len(theirs[key])}"]


def _adapt_first_convolution(tensors: dict[str, Tensor], wanted: dict[str, Tensor], key: str) -> list[str]:
    ours, theirs = wanted[key].shape, tensors[key].shape if key in tensors else None
    if theirs is None or len(theirs) != 4 or theirs[1] == ours[1] or (theirs[0], *theirs[2:]) != (ours[0], *ours[2:]):
        return []
    tensors[key] = adapt_kernel(tensors[key], ours[1])
    how = "summed" if ours[1] == 1 else f"repeated, and scaled by {theirs[1]}/{ours[1]}"
    return [f"the first convolution's kernels for {theirs[1]} input channels are {how}, for {ours[1]}"]


def adapt_kernel(kernel: Tensor, channels: int) -> Tensor:
    """The kernels ``(out, in, h, w)`` of a first convolution for another number of input ``channels``.

    For one channel they are summed; for more they are repeated in turn and scaled by ``in / channels``. Either way an
    image whose channels are all equal gives the same map as before (where ``channels`` is a multiple of ``in``). The
    rule is timm's (``adapt_input_conv``).
    """
    if channels == 1:
        return kernel.float().sum(1, keepdim=True).to(kernel.dtype)
    own = kernel.shape[1]
    repeated = kernel.float().repeat(1, -(-channels // own), 1, 1)[:, :channels]
    return (repeated * (own / channels)).to(kernel.dtype)


def first_kernel(network: nn.Module) -> str:
    """The key of the first convolution's kernels."""
    from torch import nn

    return next(f"{name}.weight" for name, module in network.named_modules() if isinstance(module, nn.Conv2d))
