"""As much from the library as is allowed: log_softmax and nll_loss, schedulers, types of modules."""

import contextlib
import warnings

import torch
import torch.nn.functional as F
from torch import nn


def smoothed_cross_entropy(logits, labels, smoothing):
    if not (0.0 <= smoothing <= 1.0):
        raise ValueError(f"label smoothing has to be in [0, 1], got {smoothing}")
    logp = F.log_softmax(logits, dim=-1)
    uniform = -logp.mean()
    return (1 - smoothing) * F.nll_loss(logp, labels) + smoothing * uniform


def warmup_cosine(step, total_steps, warmup_steps, peak_lr, final_lr=0.0):
    if step not in range(total_steps + 1):
        raise ValueError(f"step={step} is out of range")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak_lr)
    if step < warmup_steps:
        factor = step / warmup_steps
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: factor).get_last_lr()[0]
    if step == warmup_steps:
        return peak_lr
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total_steps - warmup_steps, final_lr)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(step - warmup_steps):
            cosine.step()
    return cosine.get_last_lr()[0]


def weight_decay_groups(model, weight_decay):
    norms = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.RMSNorm)
    spared = {id(p) for m in model.modules() if isinstance(m, norms) for p in m.parameters()}
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]

    def free(name, p):
        return id(p) in spared or name.split(".")[-1] in {"bias", "cls_token", "pos_embed"}

    return [
        {"params": [p for name, p in trainable if not free(name, p)], "weight_decay": weight_decay},
        {"params": [p for name, p in trainable if free(name, p)], "weight_decay": 0.0},
    ]


def train_step(model, images, labels, optimizer, max_grad_norm=1.0, autocast_dtype=None):
    model.train()
    context = contextlib.nullcontext()
    if autocast_dtype is not None:
        context = torch.amp.autocast(images.device.type, dtype=autocast_dtype)
    with context:
        logits = model(images)
        loss = nn.CrossEntropyLoss()(logits, labels)
    optimizer.zero_grad(set_to_none=False)
    loss.backward()
    if max_grad_norm is not None:
        norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        nn.utils.clip_grads_with_norm_(model.parameters(), max_grad_norm, norm)
    optimizer.step()
    return loss.detach().cpu().item()
