"""The training run: step after step, with checkpoints it goes on from as if it had never stopped."""

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from autograder.reference.trainer import checkpoint, images, parallel, schedule, start, stream
from autograder.reference.trainer.evaluate import accuracy
from autograder.reference.trainer.log import Log
from autograder.reference.trainer.recipe import Recipe

PRECISIONS = {"bf16": torch.float32, "float32": torch.float32, "float64": torch.float64}  # of the parameters


@dataclass(frozen=True)
class Options:
    """How to run a recipe here. Nothing of it changes what is computed, but for rounding and dropout.

    `passes` forward passes a step and process make up the batch. With `resume` the run goes on from the
    newest checkpoint in `out`, if any. `precision` is "bf16" (autocast), "float32" or "float64"; "auto" is
    bf16 on a GPU. `develop` holds out the recipe's `development_share`.
    """

    data: str | None
    out: Path
    validation: str | None = None
    weights: Path | None = None
    resume: bool = False
    develop: bool = False
    fsdp: bool = False
    compile: bool = False
    precision: str = "auto"
    passes: int = 1
    workers: int = 0
    log_every: int = 50
    checkpoint_every: int = 1000
    evaluate_every: int = 0

    def __post_init__(self) -> None:
        for name, least in (("passes", 1), ("workers", 0), ("log_every", 1), ("checkpoint_every", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")


def train(recipe: Recipe, options: Options, after_step: Callable[[int], None] = lambda step: None) -> None:
    """Run the recipe to its end. `after_step` is called with the number of updates made so far."""
    with parallel.joined() as processes:
        Run(recipe, options, processes).go(after_step)


class Run:
    """A run of a recipe, at its start or at the newest checkpoint.

    Raises ValueError when data, weights, recipe and what `out` holds do not fit together.
    """

    def __init__(self, recipe: Recipe, options: Options, processes: parallel.Processes) -> None:
        self.recipe, self.options, self.processes = recipe, options, processes
        recipe.single_rate()
        newest = next(iter(checkpoint.find(options.out)), None)
        if newest and not options.resume:
            out = str(options.out)
            raise ValueError(f"out={out!r} holds a run already; add --resume to go on, or choose another")
        chosen = images.choose(recipe, options.data, options.validation)
        self.training, self.held_out = (
            stream.develop(chosen[0], recipe) if options.develop else chosen
        )  # with --develop the validation images wait for the final run
        classes = recipe.num_classes or self.training.classes
        self.steps, self.step = recipe.total_steps(len(self.training)), 0
        self._build(classes)
        # What must agree for a checkpoint to fit: the recipe and the line of images.
        identity = dataclasses.asdict(recipe) | {"images": len(self.training), "classes": classes}
        self.state = checkpoint.State(self.model, self.average, self.optimizer, identity)
        if newest:
            self.step = self.state.restore(newest)
        processes.agree(self.step)
        self.replica = parallel.replicate(self.model, processes)
        self.log = Log(options.out, self.step, self.steps, quiet=processes.rank > 0)

    def _build(self, classes: int) -> None:
        options, device = self.options, self.processes.device
        on_gpu = device.type == "cuda"
        automatic = "bf16" if on_gpu else "float32"
        self.precision = automatic if options.precision == "auto" else options.precision
        torch.set_float32_matmul_precision("high")
        model = start.build(self.recipe, classes, options.weights)
        self.model: nn.Module = model.to(device, PRECISIONS[self.precision])
        self.average = copy.deepcopy(self.model).requires_grad_(False) if self.recipe.averaging else None
        if options.compile:
            for block in model.blocks:
                block.compile()
        if options.fsdp and self.processes.world > 1:
            for each in filter(None, (self.model, self.average)):
                parallel.shard(each, self.processes, half=self.precision == "bf16")
        self.optimizer = schedule.make_optimizer(self.model, self.recipe, fused=on_gpu)

    def go(self, after_step: Callable[[int], None]) -> None:
        """Make all updates that are left, then evaluate."""
        options, processes, left = self.options, self.processes, range(self.step, self.steps)
        line = stream.Line(len(self.training), self.recipe.seed)
        shares = (processes.rank, processes.world, options.passes)
        passes = stream.Passes(line, self.recipe.batch_size, left, *shares)
        views = stream.Views(self.training, self.recipe)
        batches = stream.batches(views, passes, options.workers, processes.device.type == "cuda")
        for step in left:
            loss, norm, rate = self._update(step, batches)
            self.step = step + 1
            last = self.step == self.steps
            keep = self.step % options.checkpoint_every == 0 or last
            if keep or self.step % options.log_every == 0:  # what is kept was seen to have a finite loss
                self._log(loss, norm, rate)
            if keep:
                self.state.save(options.out, self.step, processes)
            if last or (options.evaluate_every and self.step % options.evaluate_every == 0):
                self._evaluate()
            after_step(self.step)

    def _update(self, step: int, batches: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, float]:
        """Make one update; return this process's mean loss, the length of the gradient and the rate."""
        recipe, passes = self.recipe, self.options.passes
        rate = schedule.learning_rate(recipe, step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        total = torch.zeros((), device=self.processes.device, dtype=torch.float64)
        for part in range(passes):
            pixels, labels = next(batches)
            # Loading may have moved the generator on; dropout depends on the place in the run alone.
            torch.manual_seed(stream.random_seed(recipe.seed, "step", step, part, self.processes.rank))
            with parallel.gradients_wait(self.replica, last=part == passes - 1):
                logits = self.logits(self.replica, pixels)
                loss = F.cross_entropy(logits, labels.to(logits.device, non_blocking=True)) / passes
                loss.backward()
            total += loss.detach()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_norm or math.inf)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            with torch.no_grad():
                for mean, new in zip(self.average.parameters(), self.model.parameters(), strict=True):
                    mean.lerp_(new, 1 - recipe.averaging)
        return total, norm, rate

    def logits(self, model: nn.Module, pixels: Tensor) -> Tensor:
        """Return the model's answer to images as bytes: those travel to the device, a quarter of floats."""
        device, kind = self.processes.device, PRECISIONS[self.precision]
        x = pixels.to(device, non_blocking=True).to(kind).sub_(127.5).div_(127.5)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return model(x)

    def _log(self, loss: Tensor, norm: Tensor, rate: float) -> None:
        mean = self.processes.sum(loss).item() / self.processes.world
        length = norm.full_tensor() if isinstance(norm, DTensor) else norm
        values = {"loss": mean, "learning_rate": rate, "gradient_norm": length.item()}
        self.log.write(self.step, self.recipe.batch_size, **values)
        if not math.isfinite(mean):
            fix = f"start again with a lower rate, such as --set lr={self.recipe.single_rate() / 3:.1g}"
            raise ValueError(f"the loss is {mean} at step {self.step}; {fix}")

    def _evaluate(self) -> None:
        """Log the accuracy on held-out images, of the average where there is one."""
        if self.held_out is not None:
            model = self.average or self.model
            views = stream.Views(self.held_out, self.recipe, training=False)
            batch = max(1, self.recipe.batch_size // (self.processes.world * self.options.passes))
            loading = (batch, self.options.workers)
            share = accuracy(model, lambda x: self.logits(model, x), views, self.processes, *loading)
            self.log.write(self.step, accuracy=share, images=len(self.held_out))
