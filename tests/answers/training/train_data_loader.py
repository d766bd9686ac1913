import math

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def train(model, images, labels, *, epochs, batch_size, peak_lr, weight_decay, seed, device):
    generator = torch.Generator().manual_seed(seed)
    loader = DataLoader(
        TensorDataset(images, labels), batch_size, shuffle=True, generator=generator, drop_last=True
    )
    plain = {"cls_token", "pos_embed"}
    for path, module in model.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            if name == "bias" or isinstance(module, nn.LayerNorm):
                plain.add(f"{path}.{name}")
    groups = [
        {"params": [p for n, p in model.named_parameters() if n not in plain], "weight_decay": weight_decay},
        {"params": [p for n, p in model.named_parameters() if n in plain], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=peak_lr)
    total = epochs * len(loader)
    warmup = max(1, total // 20)

    def factor(step):
        step += 1
        if step <= warmup:
            return step / warmup
        return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(1, total - warmup))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    criterion = nn.CrossEntropyLoss()
    model.to(device)
    history = {"loss": []}
    for _ in range(epochs):
        model.train()
        losses = []
        for x, y in loader:
            loss = criterion(model(x.to(device)), y.to(device))
            optimizer.zero_grad(set_to_none=False)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            losses.append(loss.detach())
        history["loss"].append(torch.stack(losses).mean().item())
    model.eval()
    return history
