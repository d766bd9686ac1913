"""Lower layers learn more slowly, a straight line down, Nesterov, batches drawn at random by numpy."""

import numpy as np
import torch
import torch.nn.functional as F


def fine_tune(model, images, labels, *, steps, batch_size, lr, seed, device):
    chance = np.random.RandomState(seed)
    model = model.to(device)
    depth = len(model.blocks)

    def below(name):
        if name.startswith(("head", "norm")):
            return 0
        return depth - int(name.split(".")[1]) if name.startswith("blocks.") else depth + 1

    groups = [{"params": [p], "scale": 0.9 ** below(n)} for n, p in model.named_parameters()]
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True)
    history = {"loss": [], "lr": []}
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * group["scale"] * (1 - step / steps)
        rows = torch.from_numpy(chance.choice(len(images), min(batch_size, len(images)), replace=False))
        model.train(True)
        loss = F.cross_entropy(model(images[rows].to(device)), labels[rows].to(device))
        for parameter in model.parameters():
            parameter.grad = None
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        history["loss"].append(loss.item())
        history["lr"].append(lr * (1 - step / steps))
    return history
