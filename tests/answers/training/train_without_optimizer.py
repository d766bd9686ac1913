"""AdamW written out, gradients asked for rather than left in .grad, a straight line down."""

import numpy as np
import torch


def train(model, images, labels, *, epochs, batch_size, peak_lr, weight_decay, seed, device):
    chance = np.random.default_rng(seed)
    model.to(device)
    model.train()
    names, weights = zip(*model.named_parameters(), strict=True)
    mean = [torch.zeros_like(w) for w in weights]
    square = [torch.zeros_like(w) for w in weights]
    total = epochs * -(-len(images) // batch_size)
    warm = max(1, round(0.15 * total))
    t = 0
    history = []
    for _ in range(epochs):
        order = chance.permutation(len(images))
        losses = []
        for start in range(0, len(order), batch_size):
            rows = torch.from_numpy(order[start : start + batch_size])
            t += 1
            lr = peak_lr * min(t / warm, max(0.02, (total - t) / max(1, total - warm)))
            logits = model(images[rows].to(device)).log_softmax(dim=1)
            loss = -logits[torch.arange(len(rows)), labels[rows].to(device)].mean()
            grads = torch.autograd.grad(loss, weights)
            norm = torch.sqrt(sum((g * g).sum() for g in grads))
            scale = torch.clamp(1 / (norm + 1e-6), max=1)
            with torch.no_grad():
                for name, w, g, m, v in zip(names, weights, grads, mean, square, strict=True):
                    m.mul_(0.9).add_(scale * g, alpha=0.1)
                    v.mul_(0.999).addcmul_(scale * g, scale * g, value=0.001)
                    if w.ndim > 1 and "token" not in name and "pos" not in name:
                        w.mul_(1 - lr * weight_decay)
                    w.sub_(lr * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8))
            losses.append(loss.item())
        history.append(float(np.mean(losses)))
    return {"loss": history}
