"""`make bench-model`: our paper model against timm's, torchvision's and Hugging Face's, same sizes, same run.

Rounds are interleaved: each one times every library once, in changing order, so that a machine that slows
down slows all of them. Printed are medians over rounds, and the median and quartiles of our rate divided by
theirs within a round. On a GPU bf16 autocast is used, with and without torch.compile. Rates are also given as
a share of what large matrix products reach in the same run.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from autograder.reference.variants import VARIANTS, Variant
from autograder.reference.vision_transformer import macs_per_image
from autograder.reference.vit import vit

IMAGE_SIZE, CLASSES = 224, 1000
console = Console()


def ours(name: str) -> nn.Module:
    """The paper model of this course."""
    return vit(name, image_size=IMAGE_SIZE, num_classes=CLASSES)


def timm(name: str) -> nn.Module:
    """timm's, of the same sizes."""
    from timm.models.vision_transformer import VisionTransformer

    v = VARIANTS[name]
    ratio = v.mlp_dim / v.dim
    return VisionTransformer(
        IMAGE_SIZE, v.patch_size, 3, CLASSES, "token", v.dim, v.depth, v.num_heads, ratio
    )


def torchvision(name: str) -> nn.Module:
    """torchvision's, of the same sizes."""
    from torchvision.models.vision_transformer import VisionTransformer

    v = VARIANTS[name]
    return VisionTransformer(
        IMAGE_SIZE, v.patch_size, v.depth, v.num_heads, v.dim, v.mlp_dim, num_classes=CLASSES
    )


class HuggingFace(nn.Module):
    """Hugging Face's, of the same sizes, with fused attention; returns logits like the others."""

    def __init__(self, name: str) -> None:
        super().__init__()
        from transformers import ViTConfig, ViTForImageClassification

        v = VARIANTS[name]
        sizes = {"hidden_size": v.dim, "num_hidden_layers": v.depth, "num_attention_heads": v.num_heads}
        sizes |= {"intermediate_size": v.mlp_dim, "patch_size": v.patch_size, "image_size": IMAGE_SIZE}
        config = ViTConfig(**sizes, num_labels=CLASSES, attn_implementation="sdpa")
        self.model = ViTForImageClassification(config)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.model(images).logits


LIBRARIES: dict[str, Callable[[str], nn.Module]] = {
    "ours": ours,
    "timm": timm,
    "torchvision": torchvision,
    "Hugging Face": HuggingFace,
}


class Contestant:
    """One library's model, ready for passes over the same images."""

    def __init__(self, model: nn.Module, batch: int, device: torch.device, compiled: bool) -> None:
        self.device = device
        self.model = model.to(device)
        self.run = torch.compile(self.model) if compiled else self.model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5, fused=True)
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(batch, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator).to(device)
        self.labels = torch.randint(CLASSES, (batch,), generator=generator).to(device)

    def logits(self) -> Tensor:
        """Return the model's answer, in bf16 autocast on a GPU."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            return self.run(self.images)

    def inference(self) -> None:
        """Make one forward pass."""
        self.model.eval()
        with torch.no_grad():
            self.logits()

    def training(self) -> None:
        """Make one update: forward, backward, AdamW."""
        self.model.train()
        F.cross_entropy(self.logits(), self.labels).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def images_per_second(self, work: Callable[[], None], passes: int) -> float:
        """Time `passes` calls of `work`."""
        wait(self.device)
        start = time.perf_counter()
        for _ in range(passes):
            work()
        wait(self.device)
        return passes * len(self.images) / (time.perf_counter() - start)


def wait(device: torch.device) -> None:
    """Return when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_peak(device: torch.device) -> float:
    """Return the FLOP/s of the fastest of several large matrix products (bf16 on a GPU, float32 on a CPU)."""
    size, kind = (8192, torch.bfloat16) if device.type == "cuda" else (2048, torch.float32)
    a, b = torch.randn(2, size, size, device=device).to(kind)
    best = 0.0
    for _ in range(10):
        wait(device)
        start = time.perf_counter()
        for _ in range(5):
            a @ b
        wait(device)
        best = max(best, 5 * 2 * size**3 / (time.perf_counter() - start))
    return best


def flops(variant: Variant, work: str) -> int:
    """Return the FLOP an image: two for a multiply-accumulate, and backward takes twice forward."""
    sizes = (variant.patch_size, 3, CLASSES, variant.dim, variant.depth, variant.mlp_dim)
    return 2 * macs_per_image(IMAGE_SIZE, *sizes) * (3 if work == "training" else 1)


def measure(
    contestants: dict[str, Contestant], work: str, rounds: int, passes: int
) -> dict[str, list[float]]:
    """Return images a second, round by round, after two passes to warm up."""
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for contestant in contestants.values():
        contestant.images_per_second(getattr(contestant, work), 2)
    for number in range(rounds):
        turn = number % len(contestants)
        order = [*contestants][turn:] + [*contestants][:turn]
        for name in order if number % 2 else reversed(order):
            contestant = contestants[name]
            rates[name].append(contestant.images_per_second(getattr(contestant, work), passes))
    return rates


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Return the lower quartile, the median and the upper quartile."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and print rates, ratios and shares of the peak."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(prog="python -m autograder.bench_model", description=__doc__)
    add = parser.add_argument
    add("--model", choices=VARIANTS, default="B/16" if gpu else "S/16")
    add("--batch", type=int, default=256 if gpu else 4, help="images a pass (default: %(default)s)")
    add("--rounds", type=int, default=11, help="timed rounds, at least 2 (default: %(default)s)")
    add("--passes", type=int, default=10 if gpu else 1, help="passes a round (default: %(default)s)")
    add("--compile", action="store_true", help="time torch.compile on a CPU too (minutes)")
    arguments = parser.parse_args(argv)
    device = torch.device("cuda" if gpu else "cpu")
    torch.set_float32_matmul_precision("high")
    machine = torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads"
    peak = matrix_peak(device)
    title = f"{arguments.model}, batch {arguments.batch}, {'bf16' if gpu else 'float32'}, {machine}"
    console.print(f"{title}: large matrix products reach {peak / 1e9:,.0f} GFLOP/s")
    for compiled in (False, True) if gpu or arguments.compile else (False,):
        contestants = {
            library: Contestant(build(arguments.model), arguments.batch, device, compiled)
            for library, build in LIBRARIES.items()
        }
        counts = {name: sum(p.numel() for p in each.model.parameters()) for name, each in contestants.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"the models differ in size: {counts}; compare the same configuration")
        for work in ("inference", "training"):
            rates = measure(contestants, work, arguments.rounds, arguments.passes)
            columns = ("", "images a second", "ours / theirs (quartiles)", "of the matrix peak")
            table = Table(*columns, title=f"{work}{', compiled' if compiled else ''}")
            for name, own in rates.items():
                rate = statistics.median(own)
                low, ratio, high = quartiles([a / b for a, b in zip(rates["ours"], own, strict=True)])
                share = rate * flops(VARIANTS[arguments.model], work) / peak
                table.add_row(
                    name, f"{rate:.4g}", f"{ratio:.3f} ({low:.2f} to {high:.2f})", f"{100 * share:.0f} %"
                )
            console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
