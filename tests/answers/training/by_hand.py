"""Everything spelled out: loops over images, the norm computed by hand, names looked at with a pattern."""

import math
import re

import torch


def smoothed_cross_entropy(logits, labels, smoothing):
    if smoothing < 0 or smoothing > 1:
        raise ValueError(f"smoothing = {smoothing} is not between 0 and 1")
    if len(logits) != len(labels):
        raise ValueError(f"{len(logits)} images and {len(labels)} labels")
    classes = logits.shape[1]
    total = 0.0
    for scores, label in zip(logits, labels, strict=True):
        top = scores.max()
        shifted = scores - top
        log_sum = shifted.exp().sum().log()
        for k in range(classes):
            target = smoothing / classes + torch.where(label == k, 1 - smoothing, 0.0).to(logits.dtype)
            total = total - target * (shifted[k] - log_sum)
    return total / len(logits)


def warmup_cosine(step, total_steps, warmup_steps, peak_lr, final_lr=0.0):
    if step < 0:
        raise ValueError(f"step must not be negative: {step}")
    if step > total_steps:
        raise ValueError(f"step {step} is after the last step {total_steps}")
    if step <= warmup_steps:
        return peak_lr * (step / warmup_steps) if warmup_steps else peak_lr
    left = (total_steps - step) / (total_steps - warmup_steps)  # 1 at the peak, 0 at the end
    return final_lr + (peak_lr - final_lr) * math.sin(math.pi / 2 * left) ** 2


def weight_decay_groups(model, weight_decay):
    groups = [dict(params=[], weight_decay=weight_decay), dict(params=[], weight_decay=0.0)]
    for name, p in model.named_parameters():
        if p.requires_grad:
            no_decay = re.search(r"(^|\.)(cls_token|pos_embed|bias)$", name) or p.dim() == 1
            groups[1 if no_decay else 0]["params"].append(p)
    return groups


def train_step(model, images, labels, optimizer, max_grad_norm=1.0, autocast_dtype=None):
    for p in model.parameters():
        p.grad = None
    model.train(True)
    if autocast_dtype is None:
        logits = model(images)
    else:
        with torch.autocast(device_type=images.device.type, dtype=autocast_dtype):
            logits = model(images)
    log_probabilities = torch.log_softmax(logits.float(), dim=1)
    loss = -log_probabilities[torch.arange(len(labels)), labels].mean()
    loss.backward()
    if max_grad_norm is not None:
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        norm = math.sqrt(sum(g.square().sum().item() for g in grads))
        if norm > max_grad_norm:
            for g in grads:
                g.mul_(max_grad_norm / norm)
    optimizer.step()
    return float(loss.detach())
