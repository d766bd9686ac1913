import math
import random

import torch
import torch.nn.functional as F


def train(model, images, labels, *, epochs, batch_size, peak_lr, weight_decay, seed, device):
    # Random shifts by a pixel, each batch in two halves whose gradients add up, a schedule set once an epoch.
    rng = random.Random(seed)
    model.to(device)
    size = images.shape[-1]
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    fixed = ("cls_token", "pos_embed", "bias")
    groups = [{"params": [], "weight_decay": weight_decay}, {"params": [], "weight_decay": 0.0}]
    for name, parameter in model.named_parameters():
        groups[name.endswith(fixed) or "norm" in name]["params"].append(parameter)
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95))
    warm, losses = max(1, epochs // 5), []
    for epoch in range(epochs):
        if epochs == 1:
            rate = peak_lr
        elif epoch < warm:
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
                    down, right = rng.randint(0, 2), rng.randint(0, 2)
                    part = padded[half, :, down : down + size, right : right + size].to(device)
                    loss = F.cross_entropy(model(part), labels[half].to(device), reduction="sum") / len(rows)
                    loss.backward()
                    running += loss.item() * len(rows)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        losses.append(running / len(images))
    return {"loss": losses}
