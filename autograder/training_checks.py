"""Checks that train: a small Vision Transformer, probes that let the answer train it, judges that count.

An answer trains the model in place and returns {"loss": [...]}. What counts is the state that the model has
afterwards: the judge loads it into a model of its own and measures there, with labels under `_kept`, which
never enter the sandbox. This file needs torch only: it is bound into the sandbox and copied into `checks.py`.
"""

import math
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from autograder.judge import error_name
from autograder.probes import Inputs, Outputs, arguments, mapped

SAME, OTHER = 1e-4, 1e-3  # parameters closer than this are the same, further apart than that are not
PULL = 1e3  # the constant gradient of a watched bias: so large that clipping scales it always alike


class SmallBlock(nn.Module):
    """One encoder block, with timm's names."""

    def __init__(self, dim: int, num_heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, mlp_dim), "fc2": nn.Linear(mlp_dim, dim)})

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return the tokens after the block: (B, N+1, D)."""
        parts = self.attn["qkv"](self.norm1(z)).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(*parts)
        z = z + self.attn["proj"](heads.transpose(1, 2).flatten(2))
        return z + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(z))))


class SmallViT(nn.Module):
    """The Vision Transformer of the course, with the names, shapes and outputs of `VisionTransformer`."""

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        in_channels: int,
        num_classes: int,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_dim: int,
    ) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(in_channels, dim, patch_size, patch_size)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + (image_size // patch_size) ** 2, dim))
        self.blocks = nn.ModuleList(SmallBlock(dim, num_heads, mlp_dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits: (B, C, H, W) to (B, K)."""
        z = self.patch_embed["proj"](images).flatten(2).transpose(1, 2)
        z = torch.cat([self.cls_token.expand(len(z), -1, -1), z], dim=1) + self.pos_embed
        for block in self.blocks:
            z = block(z)
        logits: torch.Tensor = self.head(self.norm(z)[:, 0])
        return logits


class WatchedViT(SmallViT):
    """Notes at each forward pass of training: the mode, the batch, and a bias whose gradient is constant.

    Adding the same number to all logits changes no probability, so the bias disturbs nothing. How far it
    moves in a step shows the learning rate. Parameters in `still` get a gradient of zero: only weight decay
    moves them.
    """

    still = (
        "cls_token",
        "pos_embed",
        "patch_embed.proj.bias",
        "blocks.0.norm1.weight",
        "blocks.0.mlp.fc1.weight",
    )

    def watch(self) -> None:
        """Start to watch."""
        self.training_mode: list[bool] = []
        self.batches: list[float] = []
        self.bias: list[float] = []
        self.images = self.fresh = self.backwards = 0
        self.last = torch.zeros(())
        for name in self.still:
            parameter = self.get_parameter(name)
            parameter.data += 0.5  # so that decay shows
            parameter.register_hook(torch.zeros_like)
        self.head.bias.register_hook(lambda gradient: torch.full_like(gradient, PULL))
        self.head.weight.register_hook(self._arrives)
        self.head.weight.register_post_accumulate_grad_hook(self._accumulated)

    def _arrives(self, gradient: torch.Tensor) -> None:
        self.last = gradient.detach().clone()

    def _accumulated(self, parameter: torch.Tensor) -> None:
        self.backwards += 1
        self.fresh += int(parameter.grad is not None and torch.equal(parameter.grad, self.last))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits; note what can be seen of a training step."""
        if torch.is_grad_enabled():
            self.training_mode.append(self.training)
            self.images += len(images)
            self.batches.append(images.double().sum().item())
            self.bias.append(self.head.bias[0].item())
        return super().forward(images)


# Probes. `_model` holds the arguments of SmallViT, `_state` its state before training.


def trained(answer: Callable[..., Any], inputs: Inputs, make: Callable[..., SmallViT] = SmallViT) -> Outputs:
    """What the answer returns, the state of the model after training, and its logits for `_test_images`."""
    model = make(**inputs["_model"])
    model.load_state_dict(mapped(torch.clone, inputs["_state"]))
    history = answer(model, **arguments(inputs))
    after = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    model.eval()
    with torch.no_grad():
        images = inputs["_test_images"].to(next(model.parameters()).device)
        logits = torch.cat([model(part) for part in images.split(256)])
    return {"history": history, "state": after, "logits": logits.float().cpu()}


def watched(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """What can be seen from inside the model while the answer trains it."""
    model = WatchedViT(**inputs["_model"])
    model.load_state_dict(mapped(torch.clone, inputs["_state"]))
    model.watch()
    before = {name: model.get_parameter(name).detach().norm().item() for name in model.still}
    answer(model, **arguments(inputs))
    bias = [*model.bias, float(model.head.bias.detach()[0])]
    steps = [abs(new - old) for old, new in pairwise(bias) if new != old]
    return {
        "training": model.training_mode,
        "batches": model.batches,
        "images": model.images,
        "fresh": model.fresh,
        "backwards": model.backwards,
        "steps": steps,
        "shrunk": {n: model.get_parameter(n).detach().norm().item() / before[n] for n in model.still},
    }


def repeated(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """The states after two runs with one seed and one run with another, from different random states."""
    seed = inputs["seed"]
    states = []
    for number, each in enumerate((seed, seed, seed + 1)):
        torch.manual_seed(number)
        states.append(trained(answer, {**inputs, "seed": each})["state"])
    return {"states": states}


class WatchedOnGpu(SmallViT):
    """Notes whether forward passes of training compute in bfloat16."""

    low: tuple[bool, ...] = ()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        logits = super().forward(images)
        if torch.is_grad_enabled():
            self.low = (*self.low, logits.dtype == torch.bfloat16)
        return logits


def pixels(images: torch.Tensor) -> torch.Tensor:
    """Return images from 0 to 255 as floating point from -1 to 1."""
    return images.float() / 127.5 - 1


def trained_on_gpu(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """As `trained`, for images from 0 to 255; and how many passes ran in bfloat16, how many calls waited."""
    given = dict(inputs)
    for name in ("images", "_test_images"):
        given[name] = pixels(given[name])
    models: list[WatchedOnGpu] = []

    def make(**sizes: int) -> WatchedOnGpu:
        models.append(WatchedOnGpu(**sizes))
        return models[-1]

    with warnings.catch_warnings(record=True) as waits:
        warnings.simplefilter("always")
        watching = torch.cuda.is_available()
        if watching:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            outputs = trained(answer, given, make)
        finally:
            if watching:
                torch.cuda.set_sync_debug_mode("default")
    called = [each for each in waits if "synchronizing" in str(each.message)]
    return {**outputs, "low": list(models[0].low), "waits": len(called)}


# Judges. They compare with nothing that the reference did: `expected` is empty.


def starts_at_chance(yours: Outputs, expected: Outputs, inputs: Inputs) -> str | None:
    """Judge the form of what comes back, and the loss of a model that has not learnt yet: ln K."""
    losses = _losses(yours, inputs)
    if isinstance(losses, str):
        return losses
    chance = math.log(inputs["_model"]["num_classes"])
    if abs(losses[0] - chance) > 0.15:
        return (
            f"the first loss is too {'large' if losses[0] > chance else 'small'}: a model whose head is zero "
            f"has ln K = {chance:.3g}. Is yours the mean over the images, before the update?"
        )
    return None


def falls(yours: Outputs, expected: Outputs, inputs: Inputs) -> str | None:
    """Judge whether the losses that come back go down."""
    losses = _losses(yours, inputs)
    if isinstance(losses, str):
        return losses
    third = max(1, len(losses) // 3)
    first, last = sum(losses[:third]) / third, sum(losses[-third:]) / third
    if last > inputs["_kept"]["share"] * first:
        return "the losses of the last epochs are hardly smaller than those of the first"
    return None


def fits_one_batch(yours: Outputs, expected: Outputs, inputs: Inputs) -> str | None:
    """Judge whether a model that saw one batch over and over knows its labels."""
    share = accuracy(yours, inputs, inputs["images"], inputs["labels"])
    if isinstance(share, str) or share >= inputs["_kept"]["floor"]:
        return share if isinstance(share, str) else None
    return (
        f"after many steps on one batch of {len(inputs['labels'])} images the model knows "
        f"{share:.0%} of their labels. A loop that cannot learn one batch by heart has an error"
    )


def moves_everything(yours: Outputs, expected: Outputs, inputs: Inputs) -> str | None:
    """Judge whether every parameter changed; without weight decay only a gradient moves it."""
    if problem := _stopped(yours):
        return problem
    before = inputs["_state"]
    still = [name for name in before if torch.equal(before[name], yours["state"][name])]
    if len(still) == len(before):
        return (
            "no parameter of the model changed. It is trained in place: not a copy, and with optimizer steps"
        )
    if still:
        return f"{len(still)} of {len(before)} parameters never changed, {still[0]} among them"
    return None


def steps_well(yours: Outputs, expected: Outputs, inputs: Inputs) -> str | None:
    """Judge the mode of the model, the batches, and whether old gradients count."""
    if problem := _stopped(yours):
        return problem
    count = len(inputs["images"])
    epochs = inputs["epochs"] if "epochs" in inputs else inputs["steps"] * inputs["batch_size"] // count
    batches, modes = yours["batches"], yours["training"]
    if sum(modes) <= len(modes) / 2:  # passes that only measure may be in evaluation mode
        return "the model is not in training mode while it is trained"
    if yours["images"] < 0.8 * epochs * count:
        return f"{epochs} times {count} images are due, and the model sees fewer"
    half = len(batches) // epochs
    if half and sorted(batches[:half]) == sorted(batches[half : 2 * half]):
        return "every pass over the images has the same batches: shuffle them anew"
    if yours["backwards"] >= epochs and yours["fresh"] < yours["backwards"] / 4:
        return "gradients of earlier steps are still there in later ones"
    return None


def schedules(yours: Outputs, expected: Outputs, inputs: Inputs) -> str | None:
    """Judge the course of the learning rate, from the steps of a parameter with a constant gradient."""
    if problem := _stopped(yours):
        return problem
    steps = yours["steps"]
    if len(steps) < 3 or not all(map(math.isfinite, steps)):
        return "the optimizer moves nothing"
    largest = max(steps)
    if steps[0] > 0.8 * largest:
        return "the first step is as large as any: the learning rate does not warm up"
    if steps[-1] > 0.5 * largest:
        return "the last step is not much smaller than the largest: the learning rate does not decay"
    return None


def decays(yours: Outputs, expected: Outputs, inputs: Inputs) -> str | None:
    """Judge which parameters weight decay makes smaller, from parameters whose gradient is zero."""
    if problem := _stopped(yours):
        return problem
    shrunk = yours["shrunk"]
    if not all(map(math.isfinite, shrunk.values())):
        return "parameters are no longer finite"
    weight = "blocks.0.mlp.fc1.weight"
    wrong = [name for name in WatchedViT.still if name != weight and abs(shrunk[name] - 1) > SAME]
    if wrong:
        return f"weight decay changes {wrong[0]}; biases, norms, cls_token and pos_embed are to be left out"
    if shrunk[weight] > 0.98:
        return "weight decay does not make the weights of a layer smaller"
    return None


def coasts(yours: Outputs, expected: Outputs, inputs: Inputs) -> str | None:
    """Judge momentum and a falling rate of SGD, from the steps of a parameter with a constant gradient."""
    if problem := _stopped(yours):
        return problem
    steps = yours["steps"]
    if len(steps) < 3 or not all(map(math.isfinite, steps)):
        return "the optimizer moves nothing"
    if max(steps) < 1.5 * steps[0]:
        return "equal gradients do not add up from step to step: the momentum is missing"
    if steps[-1] > 0.5 * max(steps):
        return "the last step is not much smaller than the largest: the learning rate does not decay"
    return None


def clips_and_keeps(yours: Outputs, expected: Outputs, inputs: Inputs) -> str | None:
    """Judge the first step of SGD, which clipping bounds, and that no parameter decays."""
    if problem := _stopped(yours):
        return problem
    if yours["steps"] and yours["steps"][0] > 2 * inputs["lr"]:
        return "a huge gradient makes a huge step: clip the gradients at norm 1"
    decayed = [name for name in WatchedViT.still if not abs(yours["shrunk"][name] - 1) < SAME]
    if decayed:
        return f"{decayed[0]} changes though its gradient is zero: there is no weight decay in fine-tuning"
    return None


def repeats(yours: Outputs, expected: Outputs, inputs: Inputs) -> str | None:
    """Judge that one seed gives one result, and another seed another."""
    if problem := _stopped(yours):
        return problem
    one, again, other = yours["states"]
    if _distance(one, again) > SAME:
        return "two runs with the same seed, model and data end in different states"
    if _distance(one, other) < OTHER:
        return "a run with another seed ends in the same state: the seed is not used"
    return None


def reproduces(yours: Outputs, expected: Outputs, inputs: Inputs) -> str | None:
    """Judge whether the state gives the logits that came back, in a model that the answer never saw."""
    if problem := _stopped(yours):
        return problem
    logits = _logits(yours["state"], inputs, inputs["_test_images"])
    if isinstance(logits, str):
        return logits
    size = float(logits.abs().max().clamp(min=1))
    if yours["logits"].shape != logits.shape or not (yours["logits"] - logits).abs().max() <= 0.01 * size:
        return "the trained state gives other predictions in a new model: was the model itself changed?"
    return None


def generalises(yours: Outputs, expected: Outputs, inputs: Inputs) -> str | None:
    """Judge the share of right answers on images that the training did not see."""
    kept = inputs["_kept"]
    share = accuracy(yours, inputs, inputs["_test_images"], kept["labels"])
    if isinstance(share, str) or share >= kept["floor"]:
        return share if isinstance(share, str) else None
    return (
        f"{share:.1%} of {len(kept['labels'])} new images are classified right. The reference gets "
        f"{kept['reference']:.1%} with the same budget, and {kept['floor']:.1%} are enough"
    )


def learns_photographs(yours: Outputs, expected: Outputs, inputs: Inputs) -> str | None:
    """Judge the accuracy of a model that was trained on a GPU."""
    return generalises(yours, expected, {**inputs, "_test_images": pixels(inputs["_test_images"])})


def autocasts(yours: Outputs, expected: Outputs, inputs: Inputs) -> str | None:
    """Judge whether training passes compute in bfloat16."""
    if problem := _stopped(yours):
        return problem
    low = yours["low"]
    return (
        None if sum(low) > len(low) / 2 else "the model's output is not bfloat16: autocast is not in effect"
    )


def never_waits(yours: Outputs, expected: Outputs, inputs: Inputs) -> str | None:
    """Judge whether the processor waits for the GPU less than once in four steps."""
    if problem := _stopped(yours):
        return problem
    steps = inputs["epochs"] * math.ceil(len(inputs["images"]) / inputs["batch_size"])
    if yours["waits"] <= steps / 4:
        return None
    return (
        "the loop waits for the GPU again and again; `.item()`, `float(loss)` and `.to(device)` inside it do"
    )


def keeps_up(yours: Outputs, expected: Outputs, inputs: Inputs) -> str | None:
    """Judge time and memory that the grader measured, for the answer and for the reference."""
    if problem := _stopped(yours):
        return problem
    if yours["seconds"] > 2 * expected["seconds"]:
        return f"training takes {yours['seconds'] / expected['seconds']:.1f} times as long as the reference's"
    if yours["bytes"] > 1.5 * expected["bytes"]:
        return f"training takes {yours['bytes'] / expected['bytes']:.1f} times the memory of the reference's"
    return None


def _stopped(yours: Outputs) -> str | None:
    return f"your code stopped with {error_name(yours['raised'])}" if "raised" in yours else None


def _losses(yours: Outputs, inputs: Inputs) -> list[float] | str:
    """Return the losses that came back, or what is wrong with them."""
    if problem := _stopped(yours):
        return problem
    history = yours["history"]
    losses = history.get("loss") if isinstance(history, dict) else None
    if isinstance(losses, torch.Tensor):
        losses = losses.flatten().tolist()
    if not isinstance(losses, list | tuple) or not losses:
        return 'a dict with the key "loss" expected, whose value is a list of numbers'
    if not all(_number(loss) for loss in losses):
        return 'the list under "loss" holds something that is not a number'
    numbers = [float(loss) for loss in losses]
    if not all(map(math.isfinite, numbers)):
        return "a loss is infinite or not a number (NaN)"
    if "epochs" in inputs and len(numbers) != inputs["epochs"]:
        return f"one loss for each of {inputs['epochs']} epochs expected, {len(numbers)} came back"
    return numbers


def _number(value: Any) -> bool:
    return type(value) in (int, float) or (isinstance(value, torch.Tensor) and value.numel() == 1)


def _logits(state: Outputs, inputs: Inputs, images: torch.Tensor) -> torch.Tensor | str:
    """Return what a new model with this state says about images, or why it cannot hold the state."""
    model = SmallViT(**inputs["_model"])
    try:
        model.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError):
        return "the model's parameters have other names or shapes after training"
    with torch.no_grad():
        return torch.cat([model(part) for part in images.split(256)])


def accuracy(yours: Outputs, inputs: Inputs, images: torch.Tensor, labels: torch.Tensor) -> float | str:
    """Return the share of images that the trained state classifies right, or what is wrong with it."""
    if problem := _stopped(yours):
        return problem
    logits = _logits(yours["state"], inputs, images)
    return logits if isinstance(logits, str) else float((logits.argmax(dim=1) == labels).double().mean())


def _distance(one: Outputs, other: Outputs) -> float:
    """Return the largest difference between two states; infinite where they have other parameters."""
    if one.keys() != other.keys():
        return math.inf
    gaps = [float((one[name].double() - other[name].double()).abs().max()) for name in one]
    return max(gap if math.isfinite(gap) else math.inf for gap in gaps)
