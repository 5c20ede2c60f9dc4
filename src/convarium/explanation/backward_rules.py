"""Other rules for the way down: what ReLUs, squashing functions, response normalisation and gates do to the signal.

Pictures of what a network reacts to come from its gradient with other rules at a few operations. A function mode sees
these as they are called, as modules, functions, methods and in place alike, and gives their results another backward.
Hooks on modules do not see a ReLU that is called as a function: there they leave the plain gradient, without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# From the signal that comes down to an operation, and what the operation's own gradient makes of it, to what goes on.
Rule = Callable[[Tensor, Tensor], Tensor]


def plain(signal: Tensor, own: Tensor) -> Tensor:
    """The gradient: a ReLU is open where it was positive on the way up (Simonyan et al., ICLR Workshop 2014)."""
    return own


def deconvnet(signal: Tensor, own: Tensor) -> Tensor:
    """The signal is rectified, whatever was positive on the way up (Zeiler and Fergus, ECCV 2014, Section 2.1)."""
    return signal.clamp(min=0)


def guided(signal: Tensor, own: Tensor) -> Tensor:
    """Both: rectified, and only where it was positive on the way up (Springenberg et al., ICLR Workshop 2015)."""
    return own.clamp(min=0)


def unchanged(signal: Tensor, own: Tensor) -> Tensor:
    """As if the operation were not there."""
    return signal


def variable(gate: Tensor) -> Tensor:
    """Of a gate: the signal goes through it as through the map that it multiplies."""
    return gate


def constant(gate: Tensor) -> Tensor:
    """Of a gate: it scales the signal, and none goes down its own branch."""
    return gate.detach()


@contextmanager
def backward_rules(
    *,
    relu: Rule = plain,
    squash: Rule = plain,
    response_norm: Rule = plain,
    gate: Callable[[Tensor], Tensor] = variable,
) -> Iterator[None]:
    """What is computed in this block has other rules for the way down; the values are the same.

    The rules belong to the results: the gradient may be taken inside the block or after it. They are for the gradient
    of images and maps; parameters of an operation that has a rule (PReLU's slope) get none.

    Args:
        relu: of rectifiers: ReLU, ReLU6, a clamp at 0, and their soft relatives (leaky ReLU, ELU, GELU, SiLU).
        squash: of sigmoid, tanh and a clamp on both sides.
        response_norm: of local response normalisation.
        gate: applied to the gate of a product of two maps that come from the image: the smaller of the two (SENet's
            scale per channel, a mask over places), or the one that a sigmoid, a softmax or a norm has just bounded
            (the soft masks of residual attention); and to what a map is divided by.
    """
    with _Rules({"rectifier": relu, "squash": squash, "response norm": response_norm}, gate):
        yield


RECTIFIERS = {
    *("relu", "relu6", "threshold", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu"),
    *("gelu", "silu", "mish", "hardswish", "softplus"),
}
SQUASHES = {"sigmoid", "tanh", "hardsigmoid", "softsign"}
CLAMPS = {"hardtanh", "clamp", "clamp_min", "clip"}  # rectifiers where the floor is 0
BOUNDED = {"sigmoid", "hardsigmoid", "softmax", "normalize"}  # what makes a gate
# A gate that these have worked on, with nothing else from the image, is still one.
STILL_A_GATE = {
    *("add", "sub", "rsub", "mul", "div", "rdiv", "neg", "clone", "contiguous", "to", "type"),
    *("getitem", "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "expand", "expand_as", "permute"),
    *("interpolate", "where"),
}
PRODUCTS = {"mul", "multiply"}
QUOTIENTS = {"div", "divide", "true_divide"}


class _Rules(TorchFunctionMode):
    def __init__(self, rules: dict[str, Rule], gate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.rules, self.gate = rules, gate
        self.gates: dict[int, Tensor] = {}  # by id, and held, so that no id is used twice

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")  # relu_ works in place
        if not torch.is_grad_enabled():
            return func(*args, **kwargs)
        rule = self.rules.get(_kind(name, args, kwargs) or "")
        if name in PRODUCTS | QUOTIENTS and len(args) == 2:
            args = self._with_gate(args, name in QUOTIENTS)
        out = _ruled(func, rule, args, kwargs) if rule not in (None, plain) else func(*args, **kwargs)
        if isinstance(out, Tensor) and self._is_gate(name, args):
            self.gates[id(out)] = out
        return out

    def _with_gate(self, args: Any, quotient: bool) -> Any:
        """The two operands, the gate of them as the rule has it."""
        first, second = args
        if first is second or not all(isinstance(x, Tensor) and x.requires_grad for x in args):
            return args
        if quotient:
            return first, self.gate(second)
        bounded = [id(x) in self.gates for x in args]
        if first.numel() < second.numel() or (first.numel() == second.numel() and bounded == [True, False]):
            return self.gate(first), second
        if second.numel() < first.numel() or bounded == [False, True]:
            return first, self.gate(second)
        return args

    def _is_gate(self, name: str, args: Any) -> bool:
        if name in BOUNDED:
            return True
        operands = [x for x in args if isinstance(x, Tensor) and x.requires_grad] if name in STILL_A_GATE else []
        return bool(operands) and all(id(x) in self.gates for x in operands)


def _kind(name: str, args: Any, kwargs: Any) -> str | None:
    """Which rule an operation is under."""
    if name in RECTIFIERS:
        return "rectifier"
    if name in SQUASHES:
        return "squash"
    if name in CLAMPS:
        default = -1.0 if name == "hardtanh" else None
        floor = args[1] if len(args) > 1 else kwargs.get("min", kwargs.get("min_val", default))
        return "rectifier" if floor == 0 else "squash" if name == "hardtanh" else None
    return "response norm" if name == "local_response_norm" else None


def _ruled(func: Any, rule: Rule | None, args: Any, kwargs: Any) -> Any:
    x, *others = args if args else (kwargs.pop("input"),)
    if not x.requires_grad:
        return func(x, *others, **kwargs)
    in_place = False

    def on_a_copy(x: Tensor) -> Tensor:
        nonlocal in_place
        copy = x.clone()
        out = func(copy, *others, **kwargs)
        in_place = out is copy
        return out

    out = _Ruled.apply(x, on_a_copy, rule)
    return x.copy_(out) if in_place else out


class _Ruled(torch.autograd.Function):
    """A function on the way up, a rule on the way down."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor], rule: Rule) -> Tensor:
        with torch.enable_grad():
            ctx.into = x.detach().requires_grad_()
            ctx.out = function(ctx.into)
        ctx.rule = rule
        return ctx.out.detach()

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> Any:
        (own,) = torch.autograd.grad(ctx.out, ctx.into, signal, retain_graph=True)
        return ctx.rule(signal, own), None, None
