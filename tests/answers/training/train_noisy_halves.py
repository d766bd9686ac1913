"""Noise and brightness as augmentation, each batch in two halves whose gradients add up, a rate set by epoch."""

import math
import random

import torch
import torch.nn.functional as F


def train(model, images, labels, *, epochs, batch_size, peak_lr, weight_decay, seed, device):
    rng = random.Random(seed)
    noise = torch.Generator().manual_seed(seed)
    model.to(device)
    fixed = ("cls_token", "pos_embed", "bias")
    groups = [{"params": [], "weight_decay": weight_decay}, {"params": [], "weight_decay": 0.0}]
    for name, parameter in model.named_parameters():
        groups[name.endswith(fixed) or "norm" in name]["params"].append(parameter)
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95))
    warm, losses = max(1, epochs // 5), []
    for epoch in range(epochs):
        if epoch < warm:
            rate = peak_lr * (epoch + 1) / (warm + 1)
        else:
            rate = peak_lr * max(0.05, math.cos(math.pi / 2 * (epoch - warm) / (epochs - warm)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        order = list(range(len(images)))
        rng.shuffle(order)
        model.train()
        running = 0.0
        while order:
            rows, order = order[:batch_size], order[batch_size:]
            optimizer.zero_grad()
            for half in (rows[::2], rows[1::2]):
                if half:
                    part = images[half] * rng.uniform(0.8, 1.2)
                    part = part + 0.1 * torch.randn(part.shape, generator=noise)
                    logits = model(part.to(device))
                    loss = F.cross_entropy(logits, labels[half].to(device), reduction="sum") / len(rows)
                    loss.backward()
                    running += loss.item() * len(rows)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        losses.append(running / len(images))
    return {"loss": losses}
