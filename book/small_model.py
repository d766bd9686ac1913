"""One small Vision Transformer that several chapters look into, trained on scikit-learn's handwritten digits.

    model, images, labels, accuracy = trained()

The 1797 digits have 8 x 8 pixels. They are enlarged to 32 x 32, so that patches of 4 x 4 make a grid of
8 x 8. Training takes about 25 s on one core; the weights are kept below _build until this code changes.
"""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor

from autograder.reference import initial_values, vit, vit_blocks
from autograder.reference import position_embedding as tables

SIZE, PATCH, GRID = 32, 4, (8, 8)
DIM, DEPTH, HEADS, MLP = 32, 4, 4, 64
TEST, EPOCHS, BATCH, RATE, DECAY = 360, 12, 32, 4e-3, 0.05
POSITIONS = ("learned", "none", "1-D sines", "2-D sines")

KEPT = Path(__file__).resolve().parent.parent / "_build" / "small_model"
SOURCES = (__file__, vit.__file__, vit_blocks.__file__, initial_values.__file__, tables.__file__)


class Trained(NamedTuple):
    """A trained model in evaluation mode, digits it has not seen, and its share of right answers there."""

    model: vit.VisionTransformer
    images: Tensor  # (360, 1, 32, 32), values -1 (paper) to 1 (ink)
    labels: Tensor  # (360,)
    accuracy: float


def digits(size: int = SIZE) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return images and labels for training (1437), then for testing (360); images are size x size pixels."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    pixels = torch.tensor(data.images, dtype=torch.float32)[order, None] / 8 - 1
    images = F.interpolate(pixels, (size, size), mode="bilinear", align_corners=False)
    labels = torch.tensor(data.target)[order]
    return images[TEST:], labels[TEST:], images[:TEST], labels[:TEST]


def trained(pool: str = "cls", positions: str = "learned", seed: int = 0) -> Trained:
    """Return the model for a choice of pool, of positions and of the seed for initial values and batches.

    `pool` is "cls" or "gap". `positions` is "learned" or one that stays fixed: "none" (all zero), "1-D sines"
    or "2-D sines" (chapter 3). Raises ValueError for another name.
    """
    if positions not in POSITIONS:
        raise ValueError(f"positions={positions!r} is unknown; choose one of {', '.join(POSITIONS)}")
    train_images, train_labels, images, labels = digits()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = untrained(pool, positions)
        kept = KEPT / f"{code_hash()}-{pool}-{positions}-{seed}.pt".replace(" ", "-")
        if not kept.exists():
            train(model, train_images, train_labels)
            kept.parent.mkdir(parents=True, exist_ok=True)
            half_written = kept.with_suffix(f".{os.getpid()}")
            torch.save(model.state_dict(), half_written)
            half_written.rename(kept)  # at once, so that no other page reads half a file
    model.load_state_dict(torch.load(kept, weights_only=True))
    return Trained(model.eval(), images, labels, accuracy(model, images, labels))


def code_hash() -> str:
    """Return a hash of the code that the weights depend on."""
    text = b"".join(Path(source).read_bytes() for source in SOURCES if source)
    return hashlib.sha256(text + torch.__version__.encode()).hexdigest()[:12]


def untrained(pool: str = "cls", positions: str = "learned") -> vit.VisionTransformer:
    """Return the model as it starts, with values from torch's global random generator."""
    model = vit.VisionTransformer(SIZE, PATCH, 1, 10, DIM, DEPTH, HEADS, MLP, pool=pool)
    fixed = {
        "none": torch.zeros(GRID[0] * GRID[1], DIM),
        "1-D sines": tables.sinusoidal_1d(GRID[0] * GRID[1], DIM),
        "2-D sines": tables.sinusoidal_2d(*GRID, DIM),
    }
    if positions in fixed:
        model.pos_embed.requires_grad_(False)[:, 1:] = fixed[positions]
        model.pos_embed[:, 0] = 0
    return model


def train(model: vit.VisionTransformer, images: Tensor, labels: Tensor) -> None:
    """Train in place: AdamW, learning rate up and down again in one cycle, gradients clipped at norm 1."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=DECAY)
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.15)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order: equal seeds give equal weights
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(BATCH)[: len(images) // BATCH]:
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
    torch.set_num_threads(threads)


@torch.no_grad()
def accuracy(model: torch.nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of images that the model classifies right."""
    return (model(images).argmax(dim=1) == labels).float().mean().item()
