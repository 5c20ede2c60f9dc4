"""Auxiliary heads in training: their losses count beside the main one, and they are left behind at the end."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from convarium.network import Network


class WithAuxiliary(nn.Module):
    """A network with the auxiliary heads of its paper, if it has any, on the stages that they name.

    A head with nothing but frozen stages before it would teach nobody, and is left out.

    Maps ``(N, C, H, W)`` to a list of ``(N, num_classes)`` logits, the network's own first (GoogLeNet, Section 5).
    """

    def __init__(self, network: Network, image_size: int) -> None:
        super().__init__()
        self.network = network
        self.heads, self.weight = nn.ModuleDict(), 0.0
        if network.auxiliary is not None:
            maps = network.stage_shapes((network.input_size[0], image_size, image_size))
            heads = network.auxiliary.heads(network.num_classes, maps)
            self.heads.update({name: head for name, head in heads.items() if _learns_up_to(network, name)})
            self.weight = network.auxiliary.weight

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.map_and_logits(x)[1]

    def map_and_logits(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The network's last map too, before its head."""
        last, maps = self.network.forward_intermediates(x, list(self.heads))
        inner = [head(map_) for head, map_ in zip(self.heads.values(), maps, strict=True)]
        return last, [self.network.forward_head(last), *inner]

    def loss(self, logits: list[Tensor], criterion: Callable[[Tensor], Tensor]) -> Tensor:
        """The main loss, and ``weight`` times each of the others."""
        main, *others = map(criterion, logits)
        return main + self.weight * sum(others)


def _learns_up_to(network: Network, last: str) -> bool:
    names = list(network.stages)
    before = names[: names.index(last) + 1]
    return any(parameter.requires_grad for name in before for parameter in network.stages[name].parameters())
