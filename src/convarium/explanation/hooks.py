"""Looking on while a network works."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

Look = Callable[[Tensor, Tensor], None]  # what a module was given, and what it made of it


@contextmanager
def looking(looks: Mapping[nn.Module, Look]) -> Iterator[None]:
    """Inside the block, each module calls its ``look`` after every forward. Outside nothing is left, whatever
    happened inside."""
    with ExitStack() as stack:
        for module, look in looks.items():
            handle = module.register_forward_hook(lambda _module, given, made, look=look: look(given[0], made))
            stack.callback(handle.remove)
        yield
