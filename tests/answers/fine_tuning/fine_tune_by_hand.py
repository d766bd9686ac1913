"""No optimizer, no backward: gradients asked for, one global norm, a short warm-up before the cosine."""

import math
import random

import torch


def fine_tune(model, images, labels, *, steps, batch_size, lr, seed, device):
    rng = random.Random(seed)
    model.to(device)
    model.train()
    weights = list(model.parameters())
    speed = [torch.zeros_like(w) for w in weights]
    waiting, losses = [], []
    warm = max(1, steps // 20)
    for k in range(steps):
        if len(waiting) < min(batch_size, len(images)):
            waiting = list(range(len(images)))
            rng.shuffle(waiting)
        rows = [waiting.pop() for _ in range(min(batch_size, len(waiting)))]
        log_p = torch.log_softmax(model(images[rows].to(device)), dim=-1)
        loss = -log_p.gather(1, labels[rows].to(device)[:, None]).mean()
        grads = torch.autograd.grad(loss, weights)
        norm = math.sqrt(sum(float(g.pow(2).sum()) for g in grads))
        rate = lr * min(1.0, (k + 1) / warm) * 0.5 * (1 + math.cos(math.pi * k / steps))
        with torch.no_grad():
            for w, g, v in zip(weights, grads, speed, strict=True):
                v.mul_(0.9).add_(g, alpha=min(1.0, 1.0 / (norm + 1e-12)))
                w.sub_(rate * v)
        losses.append(loss.detach())
    return {"loss": [round(float(loss), 6) for loss in losses]}
