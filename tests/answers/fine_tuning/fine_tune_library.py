"""torch.optim.SGD with a schedule of torch, a DataLoader that starts again when it is empty."""

from itertools import chain, repeat

import torch
from torch.utils.data import DataLoader, TensorDataset


def fine_tune(model, images, labels, *, steps, batch_size, lr, seed, device):
    model.to(device)
    generator = torch.Generator().manual_seed(seed)
    loader = DataLoader(TensorDataset(images, labels), batch_size, shuffle=True, generator=generator)
    batches = chain.from_iterable(repeat(loader))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    criterion = torch.nn.CrossEntropyLoss()
    losses = []
    for _ in range(steps):
        x, y = next(batches)
        model.train()
        optimizer.zero_grad()
        loss = criterion(model(x.to(device)), y.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    model.eval()
    return {"loss": losses}
