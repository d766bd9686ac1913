"""The learning rate of every step, and the optimiser (appendix B.1 of the paper)."""

import math

import torch
from torch import nn

from autograder.reference.trainer.recipe import Recipe
from autograder.reference.training import weight_decay_groups


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Return the rate of update `step`, 0 the first: up in a line, then down to zero in a line or a cosine.

    The authors' code goes down from the start and multiplies the warm-up on top; here the decay begins when
    the warm-up has ended, and the recipe's rate is reached.
    """
    highest = recipe.single_rate()
    if step < recipe.warmup_steps:
        return highest * (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / (steps - recipe.warmup_steps)
    if recipe.decay == "linear":
        return highest * (1 - progress)
    return highest * (1 + math.cos(math.pi * progress)) / 2


def make_optimizer(model: nn.Module, recipe: Recipe, fused: bool) -> torch.optim.Optimizer:
    """Return Adam with decoupled weight decay, or SGD with momentum.

    As in the authors' code, decay shrinks the matrices of dense layers and the convolution only, not biases,
    layer norms, the class token or position embeddings.
    """
    groups, rate = weight_decay_groups(model, recipe.weight_decay), recipe.single_rate()
    if recipe.optimizer == "adam":
        return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.999), fused=fused)
    return torch.optim.SGD(groups, lr=rate, momentum=recipe.momentum, fused=fused)
