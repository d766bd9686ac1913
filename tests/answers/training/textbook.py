"""Short formulas: the gathered logit against logsumexp, one expression each, generators in the groups."""

from math import cos, pi

import torch
from torch.nn.functional import cross_entropy


def smoothed_cross_entropy(logits, labels, smoothing):
    if not 0 <= smoothing <= 1:
        raise ValueError(f"bad smoothing {smoothing!r}")
    assert labels.shape == logits.shape[:-1], "labels and logits do not belong together"
    mine = torch.take_along_dim(logits, labels.unsqueeze(1), dim=1)
    mix = torch.lerp(mine, logits.mean(1, keepdim=True), smoothing)  # what the targets weight the logits with
    return (torch.logsumexp(logits, 1, keepdim=True) - mix).mean()


def warmup_cosine(step, total_steps, warmup_steps, peak_lr, final_lr=0.0):
    if not 0 <= step <= total_steps:
        raise ValueError(f"step: {step}")
    if step < warmup_steps:
        return step / warmup_steps * peak_lr
    share = (1 + cos(pi * (step - warmup_steps) / ((total_steps - warmup_steps) or 1))) / 2
    return share * peak_lr + (1 - share) * final_lr


def weight_decay_groups(model, weight_decay):
    tokens = ("cls_token", "pos_embed")
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    plain = {n for n, p in parameters.items() if p.ndim < 2 or n.endswith(tokens)}
    return [
        {"params": (p for n, p in parameters.items() if n not in plain), "weight_decay": weight_decay},
        {"params": (p for n, p in parameters.items() if n in plain), "weight_decay": 0.0},
    ]


def train_step(model, images, labels, optimizer, max_grad_norm=1.0, autocast_dtype=None):
    model.zero_grad()
    on = autocast_dtype is not None
    with torch.autocast(images.device.type, autocast_dtype if on else None, enabled=on):
        loss = cross_entropy(model.train()(images), labels)
    grads = torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True)
    trainable = [p for p in model.parameters() if p.requires_grad]
    found = [(p, g) for p, g in zip(trainable, grads, strict=True) if g is not None]
    factor = 1.0
    if max_grad_norm is not None:
        norm = torch.linalg.vector_norm(torch.cat([g.ravel() for _, g in found]))
        factor = torch.clamp(max_grad_norm / norm, max=1.0)
    for p, g in found:
        p.grad = g * factor
    optimizer.step()
    return loss.tolist()
