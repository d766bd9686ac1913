import torch
import torch.nn.functional as F


def train(model, images, labels, *, epochs, batch_size, peak_lr, weight_decay, seed, device):
    torch.manual_seed(seed)
    model = model.to(device).train()
    images, labels = images.to(device), labels.to(device)
    decayed = [p for p in model.parameters() if p.dim() in (2, 4)]
    others = [p for p in model.parameters() if p.dim() not in (2, 4)]
    optimizer = torch.optim.NAdam(
        [{"params": decayed}, {"params": others, "weight_decay": 0}],
        lr=peak_lr,
        weight_decay=weight_decay,
        decoupled_weight_decay=True,
    )
    batches = (len(images) + batch_size - 1) // batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peak_lr, total_steps=epochs * batches, pct_start=0.2, cycle_momentum=False
    )
    history = []
    for _ in range(epochs):
        order = torch.randperm(len(images), device=device)
        seen = 0.0
        for k in range(batches):
            rows = order[k * batch_size : (k + 1) * batch_size]
            loss = F.cross_entropy(model(images[rows]), labels[rows], label_smoothing=0.1)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            seen += float(loss.detach()) * len(rows)
        history.append(seen / len(images))
    return {"loss": history, "state_dict": model.state_dict()}
