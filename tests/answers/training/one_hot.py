"""Targets as a matrix of probabilities, numpy for the schedule, a walk over modules, a closure for the step."""

import numpy as np
import torch
import torch.nn.functional as F


def smoothed_cross_entropy(logits, labels, smoothing):
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing is {smoothing}, expected 0 to 1")
    if logits.size(0) != labels.size(0):
        raise RuntimeError("one label for each image, please")
    K = logits.size(1)
    targets = (1 - smoothing) * F.one_hot(labels, K) + smoothing / K
    logp = logits.log_softmax(1)
    return -torch.einsum("bk,bk->", targets.to(logp.dtype), logp) / logits.size(0)


def warmup_cosine(step, total_steps, warmup_steps, peak_lr, final_lr=0.0):
    if step < 0 or step > total_steps:
        raise ValueError(f"step {step} is outside 0..{total_steps}")
    up = peak_lr * step / max(warmup_steps, 1)
    where = np.clip((step - warmup_steps) / max(total_steps - warmup_steps, 1), 0, 1)
    down = final_lr + 0.5 * (peak_lr - final_lr) * (1 + np.cos(np.pi * where))
    return up if step < warmup_steps else down


def weight_decay_groups(model, weight_decay):
    seen, first, second = set(), [], []
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            if id(p) in seen or not p.requires_grad:
                continue
            seen.add(id(p))
            if name == "weight" and not type(module).__name__.endswith("Norm"):
                first.append(p)
            else:
                second.append(p)
    return [
        {"params": first, "weight_decay": weight_decay, "name": "decay"},
        {"params": second, "weight_decay": 0, "name": "no decay"},
    ]


def train_step(model, images, labels, optimizer, max_grad_norm=1.0, autocast_dtype=None):
    model.train()

    def closure():
        optimizer.zero_grad()
        device = images.device.type
        with torch.autocast(device, dtype=autocast_dtype or torch.bfloat16, enabled=bool(autocast_dtype)):
            logits = model(images)
            targets = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
            loss = F.cross_entropy(logits, targets)
        loss.backward()
        limit = float("inf") if max_grad_norm is None else max_grad_norm
        torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
        return loss

    return optimizer.step(closure).item()
