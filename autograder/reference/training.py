"""The pieces of a training recipe: loss, learning rate, weight decay and one step.

Shapes: B images, K classes. Sources: Szegedy et al. 2016 (label smoothing), Loshchilov & Hutter 2017 and 2019
(cosine, decoupled weight decay), Dosovitskiy et al. 2021, appendix B.1 (warm-up, clipping at global norm 1).
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


def smoothed_cross_entropy(
    logits: Float[Tensor, "B K"], labels: Int[Tensor, " B"], smoothing: float
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy against (1 - smoothing) · one-hot + smoothing / K on every class.

    Finite for any finite logits. Raises ValueError when smoothing is not from 0 to 1, or when there is not
    one label an image.
    """
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing must be from 0 to 1, got {smoothing}")
    if labels.shape != logits.shape[:1]:
        raise ValueError(f"labels has shape {tuple(labels.shape)}, logits has {tuple(logits.shape)}")
    log_probabilities = logits - logits.logsumexp(dim=-1, keepdim=True)
    of_label = log_probabilities.gather(-1, labels[:, None]).squeeze(-1)
    of_all = log_probabilities.mean(dim=-1)  # the uniform part has weight 1 / K on every class
    return -((1 - smoothing) * of_label + smoothing * of_all).mean()


def warmup_cosine(
    step: int, total_steps: int, warmup_steps: int, peak_lr: float, final_lr: float = 0.0
) -> float:
    """Return the learning rate of a step: a straight line from 0 to peak_lr, then half a cosine to final_lr.

    Raises ValueError when step or warmup_steps is not from 0 to total_steps.
    """
    if not 0 <= step <= total_steps:
        raise ValueError(f"step must be from 0 to total_steps = {total_steps}, got {step}")
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(f"warmup_steps must be from 0 to total_steps = {total_steps}, got {warmup_steps}")
    if step < warmup_steps:
        return peak_lr * step / warmup_steps
    if warmup_steps == total_steps:
        return peak_lr
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return final_lr + (peak_lr - final_lr) * (1 + math.cos(math.pi * progress)) / 2


def weight_decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return two groups for an optimizer: weights that decay, and those that do not.

    Biases, norms, cls_token and pos_embed do not decay, frozen parameters are left out, and a shared
    parameter appears once.
    """
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        token = name.rpartition(".")[2] in ("cls_token", "pos_embed")
        vector = parameter.ndim <= 1  # biases, and what norms scale and shift by
        (kept if token or vector else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]


def train_step(
    model: nn.Module,
    images: Float[Tensor, "B C H W"],
    labels: Int[Tensor, " B"],
    optimizer: torch.optim.Optimizer,
    max_grad_norm: float | None = 1.0,
    autocast_dtype: torch.dtype | None = None,
) -> float:
    """Update the model once, in training mode; return the mean cross-entropy before the update.

    The global norm of the model's gradients is clipped at max_grad_norm, unless that is None. With an
    autocast_dtype (bfloat16) the forward pass runs under autocast.
    """
    model.train()
    optimizer.zero_grad()
    with torch.autocast(images.device.type, dtype=autocast_dtype, enabled=autocast_dtype is not None):
        loss = F.cross_entropy(model(images), labels)
    loss.backward()
    if max_grad_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    optimizer.step()
    return loss.item()


def train(
    model: nn.Module,
    images: Float[Tensor, "n C H W"],
    labels: Int[Tensor, " n"],
    *,
    epochs: int,
    batch_size: int,
    peak_lr: float,
    weight_decay: float,
    seed: int,
    device: str,
) -> dict[str, list[float]]:
    """Train the model in place with AdamW; return {"loss": mean loss of each epoch}.

    Every epoch shuffles the images anew. The learning rate warms up over a tenth of all steps, then follows
    a cosine to zero. Gradients are clipped at norm 1. On a GPU the forward pass runs in bfloat16 (autocast).
    Equal seeds give equal results (Dosovitskiy et al. 2021, appendix B.1).
    """
    torch.manual_seed(seed)
    model.to(device).train()
    images, labels = images.to(device), labels.to(device)
    optimizer = torch.optim.AdamW(weight_decay_groups(model, weight_decay), lr=peak_lr)
    total_steps = epochs * math.ceil(len(images) / batch_size)
    step, history = 0, []
    for _ in range(epochs):
        total = torch.zeros((), device=device)
        for batch in torch.randperm(len(images)).to(device).split(batch_size):
            step += 1
            for group in optimizer.param_groups:
                group["lr"] = warmup_cosine(step, total_steps, total_steps // 10, peak_lr)
            optimizer.zero_grad()
            with torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda):
                loss = F.cross_entropy(model(images[batch]), labels[batch])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total += loss.detach() * len(batch)  # stays on the device: asking for a number would wait for it
        history.append(total.item() / len(images))
    return {"loss": history}
