"""Pre-train a small Vision Transformer to tell fractals apart, and keep its weights.

python book/pretrain_fractals.py    # about five minutes on one core; writes fractal_vit.safetensors
"""

import torch
import torch.nn.functional as F
from fractals import pictures
from safetensors.torch import save_file
from small_model import accuracy
from torch import Tensor

from autograder.reference.fractal_vit import SIZES, WEIGHTS
from autograder.reference.vit import VisionTransformer

INSTANCES, EPOCHS, BATCH = 80, 20, 128
RATE, DECAY, SMOOTHING = 2e-3, 0.05, 0.1
TRAIN_SEED, TEST_SEED = 0, 1


def fractals(instances: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return images and labels for the classes and the image size of the model."""
    return pictures(range(SIZES["num_classes"]), instances, SIZES["image_size"], seed)


def main() -> None:
    """Train, print the share of new instances that are told apart, and write the weights in float16."""
    torch.set_num_threads(1)  # sums in one order: the same weights every time on one machine
    torch.manual_seed(0)
    images, labels = fractals(INSTANCES, TRAIN_SEED)
    model = VisionTransformer(**SIZES)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    batches = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=EPOCHS * batches, pct_start=0.1
    )
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(BATCH)[:batches]:
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch], label_smoothing=SMOOTHING).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    print(f"new instances told apart: {accuracy(model.eval(), *fractals(4, TEST_SEED)):.1%}")
    save_file({name: tensor.half() for name, tensor in model.state_dict().items()}, WEIGHTS)


if __name__ == "__main__":
    main()
