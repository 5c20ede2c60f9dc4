"""The optimiser, its learning rate over time, and the moving average of the weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from convarium.network import Network
from convarium.recipe import Recipe
from convarium.training.transfer import stage_rates


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, AdamW or RMSProp.

    Norms, biases and other vectors are spared the weight decay; what is frozen is left out. A group's ``"rate"`` is its
    part of the learning rate.
    """
    rates = next((stage_rates(m, recipe.stage_lr_decay) for m in model.modules() if isinstance(m, Network)), {})
    members: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            members.setdefault((rates.get(parameter, 1.0), parameter.ndim > 1), []).append(parameter)
    groups = [
        {"params": members[key], "weight_decay": recipe.weight_decay if key[1] else 0.0, "rate": key[0]}
        for key in sorted(members, reverse=True)
    ]
    rate, momentum = recipe.learning_rate, recipe.momentum
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=(momentum, 0.999))
    if recipe.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=rate, momentum=momentum)
    return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=momentum > 0)


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """The rate at a moment, in epochs: a linear warm-up, then half a cosine, or tenths at 1/2 and 3/4 of the epochs."""
    if epoch < recipe.warmup_epochs:
        return recipe.learning_rate * (epoch + 0.01) / (recipe.warmup_epochs + 0.01)
    if recipe.schedule == "step":
        return recipe.learning_rate * 0.1 ** (int(epoch >= recipe.epochs / 2) + int(epoch >= recipe.epochs * 3 / 4))
    done = (epoch - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
    return recipe.learning_rate * (1 + math.cos(math.pi * done)) / 2


def make_average(model: nn.Module, recipe: Recipe) -> AveragedModel | None:
    """The exponential moving average of weights and running statistics, where the recipe asks for one."""
    if not recipe.ema:
        return None

    @torch.no_grad()
    def average(averaged: Tensor, current: Tensor, _count: Tensor | int) -> Tensor:
        # Counters and index buffers are copied: an average of integers would round them down.
        return averaged.lerp(current, 1 - recipe.ema) if averaged.is_floating_point() else current.clone()

    return AveragedModel(model, avg_fn=average, use_buffers=True)
