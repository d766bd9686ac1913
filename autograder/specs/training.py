"""Chapter 8: the loss, the learning rate, which weights decay, and one training step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from autograder.judge import describe, differ, error_name
from autograder.probes import Inputs, Outputs, arguments, gradients, manners, mapped
from autograder.reference.training import (
    smoothed_cross_entropy,
    train,
    train_step,
    warmup_cosine,
    weight_decay_groups,
)
from autograder.spec import Assignment, Draw, Exercise, Group, Mistake, edited
from autograder.specs.encoder import F32, F64, bad, but
from autograder.training_cases import enough, on_gpu, training
from autograder.training_checks import (
    autocasts,
    decays,
    falls,
    fits_one_batch,
    generalises,
    keeps_up,
    learns_photographs,
    moves_everything,
    never_waits,
    repeated,
    repeats,
    reproduces,
    schedules,
    starts_at_chance,
    steps_well,
    trained,
    trained_on_gpu,
    watched,
)

LOSS, SCHEDULE, DECAY = "Label smoothing", "Warm-up and cosine", "Which weights decay"
STEP, CLIP, MIXED = "One step", "Clipping the gradient", "Mixed precision"
RUN = "One training run"
CONTRACT = "What every answer owes its caller"


# Inputs


def classified(
    batch: int, classes: int, smoothing: float, std: float = 2.0, dtype: torch.dtype = F32
) -> Callable[[Draw], Inputs]:
    """Draw logits and labels. In float64 take shares such as 1/4 of 4: targets in float32 are exact then too."""
    return lambda draw: {
        "logits": draw.normal(batch, classes, std=std, dtype=dtype),
        "labels": draw.integers(batch, high=classes),
        "smoothing": smoothing,
    }


def extreme(smoothing: float, sure: float = 1e4) -> Callable[[Draw], Inputs]:
    """Draw logits of ±1e4, right for some images and wrong for others."""

    def draw_extreme(draw: Draw) -> Inputs:
        inputs = classified(4, 5, smoothing)(draw)
        signs = 2 * draw.integers(4, 5, high=2) - 1
        signs[0], signs[1] = -1, 1  # rows where all are alike
        return {**inputs, "logits": signs * sure + inputs["logits"]}

    return draw_extreme


def schedule(
    *steps: int, total: int, warmup: int, ends: bool = False, by_position: bool = False
) -> Callable[[Draw], Inputs]:
    """Draw a schedule that is asked for some of its steps, in that order; `ends` draws a final_lr too."""

    def draw_schedule(draw: Draw) -> Inputs:
        peak = 1 + float(draw.normal(1).abs())
        given = {"total_steps": total, "warmup_steps": warmup, "peak_lr": peak}
        given |= {"final_lr": peak * draw.integer(2, 6) / 10} if ends else {}
        return {**given, "_steps": list(steps), "_by_position": by_position}

    return draw_schedule


def wrong_step(because: str, names: tuple[str, ...], step: int) -> Callable[[Draw], Inputs]:
    """Draw a schedule of 20 steps that is asked for a step outside of it."""
    return bad(schedule(step, total=20, warmup=5), because, names, (step,))


def to_decay(*made: str, blocks: int = 2) -> Callable[[Draw], Inputs]:
    """Draw the sizes of a model. `made` says what is special: "frozen", "tied", "odd names", "wrapped"."""
    return lambda draw: {
        "weight_decay": 0.01 * draw.integer(1, 40),
        "_dim": draw.integer(3, 6),
        "_blocks": blocks,
        "_made": list(made),
    }


def to_train(
    batch: int = 4,
    contrast: float = 1.0,
    surely: float = 1.0,
    lr: float = 1.0,
    steps: int = 1,
    made: tuple[str, ...] = (),
    sgd: dict[str, float] | None = None,
    **given: Any,
) -> Callable[[Draw], Inputs]:
    """Draw a model, a batch for each step, and an optimizer's settings.

    `made` says what is special: in "training" mode from the start, "stale" gradients from before, "spare"
    parameter without a gradient, "frozen" first layer, "tied" layers, "head only" in the optimizer. Large
    `contrast` and `surely`, the spread of the head, make large gradients.
    """

    def draw_training(draw: Draw) -> Inputs:
        dim, classes, pixels = 6, 3, 8
        return {
            "images": draw.normal(batch, 2, 2, 2, std=contrast),
            "labels": draw.integers(batch, high=classes),
            **given,
            "_others": [(draw.normal(batch, 2, 2, 2), draw.integers(batch, high=classes)) for _ in range(steps - 1)],
            "_sgd": {"lr": lr, **(sgd or {})},
            "_made": list(made),
            "_state": {
                "embed.weight": draw.normal(dim, pixels, std=0.5),
                "embed.bias": draw.normal(dim, std=0.5),
                "mix.weight": draw.normal(dim, dim, std=0.5),
                "mix.bias": draw.normal(dim, std=0.5),
                "again.weight": draw.normal(dim, dim, std=0.5),
                "again.bias": draw.normal(dim, std=0.5),
                "head.weight": draw.normal(classes, dim, std=surely),
                "head.bias": draw.normal(classes, std=surely),
                **({"spare": draw.normal(dim)} if "spare" in made else {}),
            },
        }  # fmt: skip

    return draw_training


# The models that probes hand to an answer


class NamedBlock(nn.Module):
    """The parameters of an encoder block, with timm's names or with odd ones."""

    def __init__(self, dim: int, odd: bool) -> None:
        super().__init__()
        norms = ("ln_1", "ln_2") if odd else ("norm1", "norm2")
        self.add_module(norms[0], nn.LayerNorm(dim))
        self.attn = nn.Module()
        self.attn.qkv, self.attn.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.add_module(norms[1], nn.LayerNorm(dim))
        self.mlp = nn.Module()
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        if odd:
            self.normal_path = nn.Linear(dim, dim)


class NamedModel(nn.Module):
    """The parameters of a Vision Transformer, to be sorted into groups."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        dim, made = inputs["_dim"], inputs["_made"]
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(1, dim, 2, 2)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, dim))
        self.blocks = nn.Sequential(*(NamedBlock(dim, "odd names" in made) for _ in range(inputs["_blocks"])))
        self.add_module("ln_post" if "odd names" in made else "norm", nn.LayerNorm(dim))
        self.head = nn.Linear(dim, 4)
        if "frozen" in made:
            self.patch_embed.requires_grad_(False)
            self.blocks[0].requires_grad_(False)
            self.cls_token.requires_grad_(False)
        if "tied" in made:
            self.blocks[1].attn.proj.weight = self.blocks[0].attn.proj.weight  # type: ignore[union-attr]


class Mode(nn.Module):
    """Halves its input in evaluation mode, so that the mode shows in every result."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input or half of it."""
        return x if self.training else x / 2


class Watched(nn.Module):
    """A small classifier that notes mode and autocast while it runs."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        state, made = inputs["_state"], inputs["_made"]
        (dim, pixels), classes = state["embed.weight"].shape, len(state["head.bias"])
        self.embed, self.mix, self.again = nn.Linear(pixels, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.mode, self.head = Mode(), nn.Linear(dim, classes)
        if "spare" in made:
            self.spare = nn.Parameter(torch.zeros(dim))
        self.notes: dict[str, str] = {}
        self.load_state_dict(mapped(torch.clone, state))
        if "frozen" in made:
            self.embed.requires_grad_(False)
        if "tied" in made:
            self.again.weight = self.mix.weight

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        device = images.device.type
        self.notes["the mode"] = "training" if self.training and self.mode.training else "evaluation"
        self.notes["autocast in the forward pass"] = autocast_state(device)
        hidden = self.mode(self.again(self.mix(self.embed(images.flatten(1)).tanh()).tanh()))
        if hidden.requires_grad:
            hidden.register_hook(
                lambda gradient: self.notes.update({"autocast in the backward pass": autocast_state(device)})
            )
        return self.head(hidden)


def autocast_state(device: str) -> str:
    """Return "off", or the dtype of autocast."""
    return str(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else "off"


SMOOTHING_NAMES = ("smoothing", "label_smoothing", "s", "epsilon", "eps", "alpha")
STEP_NAMES = ("step", "steps", "t")


# Probes


def rates(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """The learning rate of every step that is asked for; numpy's floats are floats."""
    given = arguments(inputs)
    found = {}
    for step in inputs["_steps"]:
        rate = answer(step, *given.values()) if inputs["_by_position"] else answer(step=step, **given)
        found[f"step {step}"] = float(rate) if isinstance(rate, float) else rate
    return {"the learning rate": found}


def grouped(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """The groups by the names of their parameters, and what became of the model."""
    named = NamedModel(inputs)
    model = nn.Sequential(named, nn.Linear(4, 4)) if "wrapped" in inputs["_made"] else named
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    before = mapped(torch.clone, dict(model.state_dict()))
    made = answer(model, inputs["weight_decay"])
    if isinstance(made, list | tuple):
        made = [content(group, names) for group in made]
    same = all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return {"groups": made, "names": [*names.values()], "trainable": trainable, "values kept": same}


def content(group: Any, names: dict[int, str]) -> Any:
    """Return the names of a group's parameters, and its weight decay. Any form that optimizers take is right."""
    if not isinstance(group, dict):
        return "no dict"
    params = group.get("params", [])
    listed = [params] if isinstance(params, torch.Tensor) else list(params)
    listed = [each[1] if isinstance(each, tuple) else each for each in listed]  # (name, parameter)
    kinds = ["another tensor" if isinstance(each, torch.Tensor) else "no tensor" for each in listed]
    found = sorted(names.get(id(each), kind) for each, kind in zip(listed, kinds, strict=True))
    return {"params": found, "weight_decay": group.get("weight_decay")}


def stepped(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """Losses, changes of the parameters, mode and autocast of one step or several.

    Under autocast results are kept in bfloat16, which is as precise as they are.
    """
    model = Watched(inputs).to(inputs["images"].device).train("training" in inputs["_made"])
    trained = model.head if "head only" in inputs["_made"] else model
    optimizer = torch.optim.SGD(
        [each for each in trained.parameters() if each.requires_grad], **inputs["_sgd"]
    )
    steps: list[int] = []
    optimizer.register_step_pre_hook(lambda *_: steps.append(1))
    for parameter in model.parameters() if "stale" in inputs["_made"] else ():
        parameter.grad = torch.full_like(parameter, 0.5)
    before = mapped(lambda tensor: tensor.detach().clone(), dict(model.named_parameters()))
    given = arguments(inputs)
    options = {name: given.pop(name) for name in ("max_grad_norm", "autocast_dtype") if name in given}
    losses = [loss_of(answer(model=model, **given, optimizer=optimizer, **options))]
    for images, labels in mapped(torch.clone, inputs["_others"]):
        losses.append(loss_of(answer(model, images, labels, optimizer, **options)))
    changes = {name: each.detach() - before[name] for name, each in model.named_parameters()}
    precision = torch.bfloat16 if "autocast_dtype" in inputs else torch.float32
    return {
        **model.notes,
        "steps of the optimizer": len(steps),
        "the loss": mapped(lambda tensor: tensor.to(precision), losses),
        "the change": mapped(lambda tensor: tensor.to(precision), changes),
        "images after the call": given["images"],
        "labels after the call": given["labels"],
    }


def loss_of(result: Any) -> Any:
    """Return a float as a tensor, which is compared with the precision of float32, and the kind of anything else."""
    if isinstance(result, float):
        return torch.tensor(result)
    return "a tensor" if isinstance(result, torch.Tensor) else "None" if result is None else "something else"


# Judges


def sorts_right(yours: dict[str, Any], expected: dict[str, Any], inputs: dict[str, Any]) -> str | None:
    """Judge which parameter is in which group; their order within a group does not matter."""
    if "raised" in yours:
        return f"your code stopped with {error_name(yours['raised'])}"
    groups, wanted = yours["groups"], expected["groups"]
    if not isinstance(groups, list):
        return f"a list of two groups expected, yours is {describe(groups)}"
    if len(groups) != 2:
        return f"2 groups expected, yours has {len(groups)}"
    if not all(isinstance(group, dict) for group in groups):
        return "each group is a dict with params and weight_decay"
    for stray in ("no tensor", "another tensor"):
        if any(stray in group["params"] for group in groups):
            return (
                f"the groups hold {stray.replace('no tensor', 'something')} that is no parameter of the model"
            )
    for name in expected["names"]:
        places = [place for place in (0, 1) for each in groups[place]["params"] if each == name]
        right = [place for place in (0, 1) if name in wanted[place]["params"]]
        if places and not right:
            return f"{name} is frozen, and yet in a group"
        if len(places) != len(right):
            return f"{name} is in no group" if not places else f"{name} is in the groups {len(places)} times"
        if places != right:
            return f"{name} is in the group {'with' if right == [1] else 'without'} weight decay"
    return None


def decays_right(yours: dict[str, Any], expected: dict[str, Any], inputs: dict[str, Any]) -> str | None:
    """Judge the groups, the weight decay of each, and that the model is as it was."""
    problem = sorts_right(yours, expected, inputs)
    if problem:
        return problem
    for number, (group, right) in enumerate(zip(yours["groups"], expected["groups"], strict=True)):
        if group["weight_decay"] is None:
            return f"group {number} does not say its weight_decay"
        problem = differ(group["weight_decay"], right["weight_decay"])
        if problem:
            return f"the weight_decay of group {number}: {problem}"
    if differ(yours["trainable"], expected["trainable"]) or yours["values kept"] is not True:
        return "the model is changed: its parameters are only to be sorted"
    return None


def steps_right(yours: dict[str, Any], expected: dict[str, Any], inputs: dict[str, Any]) -> str | None:
    """Judge a training step: mode and autocast, the loss, then what became of every parameter."""
    if "raised" in yours:
        return f"your code stopped with {error_name(yours['raised'])}"
    if yours.get("the mode") != expected["the mode"]:
        return "the model is not in training mode during the forward pass"
    for where in ("forward", "backward"):
        found, right = (made.get(f"autocast in the {where} pass") for made in (yours, expected))
        if found is None:
            return f"there is no {where} pass through the model"
        if found != right:
            state = "not off" if right == "off" else "off" if found == "off" else "on with another dtype"
            return f"autocast is {state} in the {where} pass"
    for loss, right in zip(yours["the loss"], expected["the loss"], strict=True):
        if not isinstance(loss, torch.Tensor):
            kind = loss if loss in ("a tensor", "None") else "something else"
            return f"the loss: a Python float expected, yours is {kind}"
        if differ(loss, right):
            return f"the loss is too {'large' if loss > right else 'small'}"
    taken, right = yours["steps of the optimizer"], expected["steps of the optimizer"]
    if taken != right:
        return f"the optimizer takes {'too many steps' if taken and taken > right else 'no step'}"
    for name, right in expected["the change"].items():
        change = yours["the change"].get(name)
        if isinstance(change, torch.Tensor) and right.any() and not change.any():
            return f"{name} is not updated"
        problem = differ(change, right)
        if problem:
            return f"the change of {name}: {problem}"
    for name in ("images", "labels"):
        if differ(yours[f"{name} after the call"], expected[f"{name} after the call"]):
            return f"the {name} are changed by the call"
    return None


SMOOTHED_CROSS_ENTROPY = Exercise(
    name="smoothed_cross_entropy",
    points=8,
    reference=smoothed_cross_entropy,
    minutes=25,
    difficulty=2,
    importance=4,
    forbid=frozenset({"torch.nn.functional.cross_entropy", "torch.nn.CrossEntropyLoss"}),
    operators=frozenset({"cross_entropy_loss"}),
    cases=(
        Group("is the mean cross-entropy of the labels where nothing is smoothed", 2, (classified(1, 3, 0.0), classified(4, 5, 0.0)), LOSS),
        Group("gives every class, the right one too, its share of the smoothing", 2, (classified(3, 4, 0.1), classified(5, 3, 0.3), classified(2, 10, 0.25)), LOSS),
        Group("works at the ends: two classes, one image, smoothing 1", 1, (classified(4, 2, 0.2), classified(1, 6, 0.5), classified(3, 4, 1.0), classified(3, 3, 1)), LOSS),
        Group("stays finite for logits of ±10,000", 1, (extreme(0.0), extreme(0.1), extreme(1.0)), LOSS),
        Group("lets gradients through to the logits", 1, (classified(3, 4, 0.25, dtype=F64), classified(2, 4, 0.5, dtype=F64)), CONTRACT, gradients),
        Group(
            "keeps dtype and device, leaves its inputs alone and remembers nothing, and refuses what does not fit",
            1,
            (
                classified(3, 4, 0.25, dtype=F64),
                classified(3, 4, 0.1),
                bad(classified(3, 4, 0.0), "a negative smoothing", SMOOTHING_NAMES, (-0.1,), smoothing=-0.1),
                bad(classified(3, 4, 0.0), "a smoothing above 1", SMOOTHING_NAMES, (1.5,), smoothing=1.5),
                but(classified(3, 4, 0.1), "too few labels", labels=lambda draw: draw.integers(2, high=4)),
                but(classified(3, 4, 0.1), "too many labels", labels=lambda draw: draw.integers(4, high=4)),
                but(classified(3, 4, 0.1), "one label for three images", labels=lambda draw: draw.integers(1, high=4)),
            ),
            CONTRACT,
            manners,
        ),
    ),
    mistakes=(
        Mistake("ignored the smoothing", edited(smoothed_cross_entropy, ("(1 - smoothing) * of_label + smoothing * of_all", "of_label")), "`smoothing` is not used: this is the plain cross-entropy."),
        Mistake("hard-coded a smoothing of 0.1", edited(smoothed_cross_entropy, ("(1 - smoothing) * of_label + smoothing * of_all", "0.9 * of_label + 0.1 * of_all")), "The share 0.1 is usual, but it is an argument here."),
        Mistake("swapped the two shares", edited(smoothed_cross_entropy, ("(1 - smoothing) * of_label + smoothing * of_all", "smoothing * of_label + (1 - smoothing) * of_all")), "The larger part, 1 - s, belongs to the label. Yours goes to the uniform part."),
        Mistake("spread the smoothing over the wrong classes only", edited(smoothed_cross_entropy, ("of_all = log_probabilities.mean(dim=-1)", "of_all = (log_probabilities.sum(dim=-1) - of_label) / (logits.shape[-1] - 1)")), "The uniform part covers all K classes, the right one included: s / K each, not s / (K - 1) for the others."),
        Mistake("forgot the label's share of the uniform part", edited(smoothed_cross_entropy, ("of_all = log_probabilities.mean(dim=-1)", "of_all = log_probabilities.mean(dim=-1) - of_label / logits.shape[-1]")), "The targets of one image have to sum to 1. The label gets 1 - s and also s / K."),
        Mistake("gave every class the whole smoothing", edited(smoothed_cross_entropy, ("log_probabilities.mean(dim=-1)", "log_probabilities.sum(dim=-1)")), "The share s is divided among the K classes: s / K each."),
        Mistake("summed over the batch", edited(smoothed_cross_entropy, ("smoothing * of_all).mean()", "smoothing * of_all).sum()")), "The loss is a mean over the images, so that it does not grow with the batch size."),
        Mistake("averaged over the classes too", edited(smoothed_cross_entropy, ("smoothing * of_all).mean()", "smoothing * of_all).mean() / logits.shape[-1]")), "Cross-entropy is a sum over classes and a mean over images. Yours is K times too small."),
        Mistake("returned one loss for each image", edited(smoothed_cross_entropy, ("smoothing * of_all).mean()", "smoothing * of_all)")), "The result is a single number: the mean over the batch."),
        Mistake("forgot the minus", edited(smoothed_cross_entropy, ("return -(", "return (")), "Logarithms of probabilities are negative, a loss is not: there is a minus in the formula."),
        Mistake("normalised over the batch", edited(smoothed_cross_entropy, ("logsumexp(dim=-1,", "logsumexp(dim=0,")), "The probabilities of one image sum to 1 over its classes, the last axis. Yours are normalised over the images."),
        Mistake("took probabilities for logits", edited(smoothed_cross_entropy, ("logits - logits.logsumexp(dim=-1, keepdim=True)", "logits.softmax(dim=-1) - logits.softmax(dim=-1).logsumexp(dim=-1, keepdim=True)")), "The softmax is applied twice: once to the logits, and once more to the result."),
        Mistake("left the softmax out", edited(smoothed_cross_entropy, ("logits - logits.logsumexp(dim=-1, keepdim=True)", "logits")), "Logits are no log-probabilities: subtract the logarithm of the sum of their exponentials first."),
        Mistake("took logarithms to base 2", edited(smoothed_cross_entropy, ("smoothing * of_all).mean()", "smoothing * of_all).mean() / math.log(2)")), "The loss is measured with the natural logarithm: guessing among K classes costs ln K."),
        Mistake("let the exponential overflow", edited(smoothed_cross_entropy, ("logits.logsumexp(dim=-1, keepdim=True)", "logits.exp().sum(dim=-1, keepdim=True).log()")), "exp(10,000) is infinite in floating point. Subtract the largest logit of each image first, or let log_softmax or logsumexp do so."),
        Mistake("took the logarithm of a softmax", edited(smoothed_cross_entropy, ("logits - logits.logsumexp(dim=-1, keepdim=True)", "logits.softmax(dim=-1).log()")), "A probability that rounds to 0 has the logarithm -inf, and 0 times that is NaN. Compute log-probabilities without going through probabilities."),
        Mistake("added a small number inside the logarithm", edited(smoothed_cross_entropy, ("logits - logits.logsumexp(dim=-1, keepdim=True)", "(logits.softmax(dim=-1) + 1e-8).log()")), "log(p + 1e-8) is finite but wrong: it never exceeds 18.4, and where p is 0 the gradient is gone. Compute log-probabilities directly."),
        Mistake("clamped the logits", edited(smoothed_cross_entropy, ("log_probabilities = logits - ", "logits = logits.clamp(-50, 50)\n    log_probabilities = logits - ")), "Clamped logits give another loss and no gradient where they are cut. Subtract the maximum: that changes nothing."),
        Mistake("cut the graph with detach", edited(smoothed_cross_entropy, ("smoothing * of_all).mean()", "smoothing * of_all).mean().detach()")), "No gradient reaches the logits, so nothing can be trained. Leave `detach`, `item` and `no_grad` out."),
        Mistake("detached the uniform part", edited(smoothed_cross_entropy, ("smoothing * of_all)", "smoothing * of_all.detach())")), "The value is right, but the smoothing has no effect on training: its gradient is cut off."),
        Mistake("returned a Python number", edited(smoothed_cross_entropy, ("smoothing * of_all).mean()", "smoothing * of_all).mean().item()")), "A number has no gradient. Return the tensor of shape ()."),
        Mistake("converted to float32", edited(smoothed_cross_entropy, ("smoothing * of_all).mean()", "smoothing * of_all).mean().float()")), "float64 logits give a float32 loss. Keep the dtype of the input."),
        Mistake("converted to float64", edited(smoothed_cross_entropy, ("smoothing * of_all).mean()", "smoothing * of_all).mean().double()")), "float32 logits give a float64 loss. Keep the dtype of the input."),
        Mistake("changed the logits in place", edited(smoothed_cross_entropy, ("log_probabilities = logits - ", "with torch.no_grad():\n        logits -= logits.max(dim=-1, keepdim=True).values\n    log_probabilities = logits - ")), "Your function writes into the logits it was given: `-=` changes the caller's tensor."),
        Mistake("accepted any smoothing", edited(smoothed_cross_entropy, ("if not 0 <= smoothing <= 1", "if False")), "Targets are probabilities only for 0 ≤ s ≤ 1. Refuse another smoothing with a ValueError that names it."),
        Mistake("refused the ends of the range", edited(smoothed_cross_entropy, ("if not 0 <= smoothing <= 1", "if not 0 < smoothing < 1")), "0 (no smoothing) and 1 (nothing but smoothing) are allowed."),
        Mistake("did not compare the number of labels", edited(smoothed_cross_entropy, ("if labels.shape != logits.shape[:1]", "if False")), "With one label for three images torch broadcasts silently. Compare the lengths yourself."),
        Mistake("wrote an error message without the value", edited(smoothed_cross_entropy, (", got {smoothing}", "")), "Your ValueError does not give the value that is wrong."),
    ),
)  # fmt: skip

WARMUP_COSINE = Exercise(
    name="warmup_cosine",
    points=7,
    reference=warmup_cosine,
    minutes=20,
    difficulty=2,
    importance=5,
    probe=rates,
    cases=(
        Group("rises in a straight line to peak_lr", 1.5, (schedule(0, 1, 2, 3, 4, 5, total=20, warmup=5), schedule(0, 30, 99, 100, total=1000, warmup=100)), SCHEDULE),
        Group("falls along half a cosine to zero", 2, (schedule(5, 6, 8, 11, 13, 17, 19, 20, total=20, warmup=5), schedule(100, 101, 137, 325, 550, 775, 999, 1000, total=1000, warmup=100)), SCHEDULE),
        Group("ends at final_lr where one is given", 1, (schedule(4, 5, 8, 12, 15, 16, total=16, warmup=4, ends=True), schedule(0, 1, 2, 3, 7, 8, total=8, warmup=3, ends=True)), SCHEDULE),
        Group("works without warm-up, and where warm-up is all there is", 1, (schedule(0, 1, 5, 10, total=10, warmup=0), schedule(0, 5, 9, 10, total=10, warmup=10), schedule(0, 1, total=1, warmup=1, ends=True), schedule(0, 1, total=1, warmup=0, ends=True)), SCHEDULE),
        Group("depends on nothing but its arguments, also by position", 0.5, (schedule(9, 3, 9, 0, 12, 3, total=12, warmup=4, ends=True, by_position=True), schedule(2, 7, 2, total=7, warmup=2, by_position=True)), CONTRACT),
        Group("refuses a step outside 0 to total_steps", 1, (wrong_step("a negative step", STEP_NAMES, -1), wrong_step("a step after the last", STEP_NAMES, 21)), CONTRACT),
    ),
    mistakes=(
        Mistake("left the warm-up out", edited(warmup_cosine, ("return peak_lr * step / warmup_steps", "return peak_lr")), "The learning rate starts at its peak. During warm-up it rises from 0, in proportion to the step."),
        Mistake("counted warm-up from step 1", edited(warmup_cosine, ("peak_lr * step / warmup_steps", "peak_lr * (step + 1) / warmup_steps")), "Step 0 has learning rate 0 here, and step warmup_steps the peak. Yours is one step ahead."),
        Mistake("counted warm-up one step short", edited(warmup_cosine, ("peak_lr * step / warmup_steps", "peak_lr * step / (warmup_steps + 1)")), "The line from 0 reaches the peak at step warmup_steps: divide by that."),
        Mistake("rose from final_lr", edited(warmup_cosine, ("return peak_lr * step / warmup_steps", "return final_lr + (peak_lr - final_lr) * step / warmup_steps")), "Warm-up starts at 0. final_lr is where the schedule ends."),
        Mistake("warmed up along a cosine", edited(warmup_cosine, ("peak_lr * step / warmup_steps", "peak_lr * (1 - math.cos(math.pi * step / warmup_steps)) / 2")), "Warm-up is a straight line; only the fall is a cosine."),
        Mistake("warmed up and fell at once", edited(warmup_cosine, ("peak_lr * step / warmup_steps", "peak_lr * step / warmup_steps * (1 + math.cos(math.pi * step / total_steps)) / 2")), "Before warmup_steps there is only the line, after it only the cosine. Yours multiplies the two."),
        Mistake("let the cosine begin at step 0", edited(warmup_cosine, ("(step - warmup_steps) / (total_steps - warmup_steps)", "step / total_steps")), "The cosine starts where the warm-up ends: its progress is 0 at warmup_steps and 1 at total_steps."),
        Mistake("measured progress against all steps", edited(warmup_cosine, ("(step - warmup_steps) / (total_steps - warmup_steps)", "(step - warmup_steps) / total_steps")), "After warm-up total_steps - warmup_steps steps remain. Divided by total_steps the progress never reaches 1."),
        Mistake("stopped one step early", edited(warmup_cosine, ("(total_steps - warmup_steps)\n", "max(1, total_steps - 1 - warmup_steps)\n"), ("1 + math.cos(math.pi * progress)", "1 + math.cos(math.pi * min(1, progress))")), "final_lr is reached at step == total_steps, not at the step before."),
        Mistake("took a whole cosine", edited(warmup_cosine, ("math.pi * progress", "2 * math.pi * progress")), "A whole period comes back up to the peak. Half a period goes from cos 0 = 1 to cos π = -1."),
        Mistake("took a quarter of a cosine", edited(warmup_cosine, ("(1 + math.cos(math.pi * progress)) / 2", "math.cos(math.pi * progress / 2)")), "A quarter of a period falls fastest at the end. The schedule is (1 + cos(π·progress)) / 2, which is flat at both ends."),
        Mistake("fell in a straight line", edited(warmup_cosine, ("(1 + math.cos(math.pi * progress)) / 2", "(1 - progress)")), "That is linear decay, which the paper uses for its largest data sets. Here the fall is half a cosine."),
        Mistake("gave the cosine degrees", edited(warmup_cosine, ("math.pi * progress", "180 * progress")), "math.cos takes radians: half a turn is π."),
        Mistake("forgot to halve", edited(warmup_cosine, ("progress)) / 2", "progress))")), "1 + cos goes from 2 to 0. Halve it, else the rate jumps to twice the peak."),
        Mistake("ignored final_lr", edited(warmup_cosine, ("return final_lr + (peak_lr - final_lr)", "return peak_lr")), "The cosine falls to final_lr, which need not be 0."),
        Mistake("added final_lr on top", edited(warmup_cosine, ("(peak_lr - final_lr) * (1", "peak_lr * (1")), "At the end of warm-up the rate is peak_lr, not peak_lr + final_lr: the cosine covers the difference of the two."),
        Mistake("cut the cosine off at final_lr", edited(warmup_cosine, ("final_lr + (peak_lr - final_lr) * (1 + math.cos(math.pi * progress)) / 2", "max(final_lr, peak_lr * (1 + math.cos(math.pi * progress)) / 2)")), "The cosine is squeezed between peak_lr and final_lr, not cut: it reaches final_lr only at the last step."),
        Mistake("divided by a warm-up of zero steps", edited(warmup_cosine, ("if step < warmup_steps", "if step <= warmup_steps")), "Without warm-up step 0 is already past it. Take the line only for step < warmup_steps."),
        Mistake("divided by zero after a warm-up over all steps", edited(warmup_cosine, ("if warmup_steps == total_steps", "if False")), "When warmup_steps == total_steps nothing remains for the cosine: the last step has peak_lr."),
        Mistake("ended a warm-up over all steps at final_lr", edited(warmup_cosine, ("    if warmup_steps == total_steps:\n        return peak_lr", "    if warmup_steps == total_steps:\n        return final_lr")), "Where warm-up takes all steps, the last step is its end, the peak."),
        Mistake("rounded the progress", edited(warmup_cosine, ("(step - warmup_steps) / (total", "(step - warmup_steps) // (total")), "`//` divides whole numbers: progress is 0 until the last step. Use `/`."),
        Mistake("returned a tensor", edited(warmup_cosine, ("return final_lr +", "return torch.tensor(1.0) * final_lr +")), "The result is a Python float; optimizers and logs expect one. Use `math.cos`."),
        Mistake("remembered earlier calls", edited(warmup_cosine, ("if step < warmup_steps", "warmup_cosine.calls = getattr(warmup_cosine, 'calls', -1) + 1\n    step = min(step, warmup_cosine.calls)\n    if step < warmup_steps")), "The rate depends on the step that is asked for, not on how often the function was called."),
        Mistake("held the ends instead of refusing", edited(warmup_cosine, ("if not 0 <= step <= total_steps", "step = min(max(step, 0), total_steps)\n    if False")), "A step after the last is a bug of the caller. Refuse it, so that it is seen."),
        Mistake("let any step through", edited(warmup_cosine, ("if not 0 <= step <= total_steps", "if False")), "Past total_steps the cosine rises again, and before 0 the rate is negative. Refuse such steps with a ValueError."),
        Mistake("refused the last step", edited(warmup_cosine, ("if not 0 <= step <= total_steps", "if not 0 <= step < total_steps")), "step == total_steps is allowed: that is where final_lr is reached."),
        Mistake("wrote an error message without the value", edited(warmup_cosine, ("total_steps = {total_steps}, got {step}", "total_steps")), "Your ValueError does not give the value that is wrong."),
    ),
)  # fmt: skip

WEIGHT_DECAY_GROUPS = Exercise(
    name="weight_decay_groups",
    points=7,
    reference=weight_decay_groups,
    minutes=25,
    difficulty=3,
    importance=4,
    probe=grouped,
    cases=(
        Group("sorts the parameters of a Vision Transformer into two groups", 2, (to_decay(blocks=1), to_decay(blocks=3)), DECAY, judge=sorts_right),
        Group("gives each group its own weight decay, zero for the second", 1, (to_decay(blocks=1), to_decay()), DECAY, judge=decays_right),
        Group("leaves frozen parameters out", 1, (to_decay("frozen"),), DECAY, judge=decays_right),
        Group("lists a parameter once that two layers share", 1, (to_decay("tied"),), DECAY, judge=decays_right),
        Group("knows a norm by what it is, not by its name", 1, (to_decay("odd names"),), DECAY, judge=decays_right),
        Group("finds the tokens where the model is part of another, and leaves the model as it is", 1, (to_decay("wrapped", blocks=1), to_decay("wrapped")), DECAY, judge=decays_right),
    ),
    mistakes=(
        Mistake("put everything into one group", edited(weight_decay_groups, ("return [{'params': decayed, 'weight_decay': weight_decay}, {'params': kept, 'weight_decay': 0.0}]".replace("'", '"'), "return [{'params': decayed + kept, 'weight_decay': weight_decay}]")), "Two groups are needed: one that decays and one that does not."),
        Mistake("swapped the groups", edited(weight_decay_groups, ("(kept if token or vector else decayed)", "(decayed if token or vector else kept)")), "The first group decays, the second does not. Yours has the biases in the first."),
        Mistake("returned the group without decay first", edited(weight_decay_groups, ('{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}', '{"params": kept, "weight_decay": 0.0}, {"params": decayed, "weight_decay": weight_decay}')), "The content of the groups is right, their order is not: the decayed one comes first."),
        Mistake("let everything decay but the tokens", edited(weight_decay_groups, ("kept if token or vector else", "kept if token else")), "Biases and norms do not decay either. They are vectors, weights of layers are matrices."),
        Mistake("let the norms decay", edited(weight_decay_groups, ("vector = parameter.ndim <= 1", "vector = name.endswith('bias')")), "The weight of a norm is a scale near 1. Pulling it to 0 silences the layer: it must not decay."),
        Mistake("let the biases decay", edited(weight_decay_groups, ("vector = parameter.ndim <= 1", "vector = 'norm' in name or 'ln_' in name")), "A bias belongs to the second group, whatever layer it is part of."),
        Mistake("went by dimensions alone", edited(weight_decay_groups, ("kept if token or vector else", "kept if vector else")), "cls_token and pos_embed have three dimensions, but they are learned vectors and no weights of a layer: go by their names too."),
        Mistake("let the [CLS] token decay", edited(weight_decay_groups, ('("cls_token", "pos_embed")', '("pos_embed",)')), "cls_token is in the group that decays."),
        Mistake("let the position embedding decay", edited(weight_decay_groups, ('("cls_token", "pos_embed")', '("cls_token",)')), "pos_embed is in the group that decays."),
        Mistake("let only linear layers decay", edited(weight_decay_groups, ("kept if token or vector else", "kept if token or vector or parameter.ndim > 2 else")), "The kernel of the patch projection is a matrix in another shape: it decays like those of linear layers."),
        Mistake("left the head out of the decay", edited(weight_decay_groups, ("kept if token or vector else", "kept if token or vector or 'head' in name else")), "The head's weight decays like every other weight."),
        Mistake("skipped the tokens", edited(weight_decay_groups, ("if not parameter.requires_grad:", "if not parameter.requires_grad or name.rpartition('.')[2] in ('cls_token', 'pos_embed'):")), "cls_token and pos_embed are in no group, so the optimizer never trains them. No decay means the second group, not none."),
        Mistake("skipped the biases", edited(weight_decay_groups, ("if not parameter.requires_grad:", "if not parameter.requires_grad or name.endswith('bias'):")), "Biases are in no group, so the optimizer never trains them."),
        Mistake("left out the zero of the second group", edited(weight_decay_groups, ('{"params": kept, "weight_decay": 0.0}', '{"params": kept}')), 'A group that does not say its weight_decay gets the default of the optimizer, which is 0.01 for AdamW. Write the 0.0.'),
        Mistake("gave both groups the decay", edited(weight_decay_groups, ('"weight_decay": 0.0', '"weight_decay": weight_decay')), "The second group is there to have no weight decay: 0.0."),
        Mistake("hard-coded the decay", edited(weight_decay_groups, ('"weight_decay": weight_decay', '"weight_decay": 0.05')), "The weight decay is an argument."),
        Mistake("took frozen parameters along", edited(weight_decay_groups, ("if not parameter.requires_grad", "if False")), "A frozen parameter (requires_grad is False) belongs to no group: a later weight decay could still move it."),
        Mistake("knew norms by their name only", edited(weight_decay_groups, ("vector = parameter.ndim <= 1", "vector = name.endswith('bias') or 'norm' in name")), "Not every norm is called norm, and not everything with norm in its name is one. Look at the dimensions of the parameter or at the type of its layer."),
        Mistake("knew the tokens by their full name only", edited(weight_decay_groups, ('name.rpartition(".")[2] in', "name in")), "Inside another model the name is a path, such as `backbone.cls_token`. Look at its last part."),
        Mistake("listed shared parameters twice", edited(weight_decay_groups, ("for name, parameter in model.named_parameters():", "for name, parameter in model.named_parameters(remove_duplicate=False):")), "Two layers may share one weight. An optimizer has to get it once: named_parameters() takes care of that, a walk over modules does not."),
        Mistake("made a group for every parameter", edited(weight_decay_groups, ("return [", "return [{'params': [p], 'weight_decay': weight_decay} for p in decayed] + [{'params': [p], 'weight_decay': 0.0} for p in kept]\n    return [")), "The contract asks for two groups. One for each parameter trains the same, but slowly."),
        Mistake("copied the parameters", edited(weight_decay_groups, ("else decayed).append(parameter)", "else decayed).append(parameter.detach().clone())")), "An optimizer that holds copies trains copies. Put the parameters themselves into the groups."),
        Mistake("listed names instead of parameters", edited(weight_decay_groups, ("else decayed).append(parameter)", "else decayed).append(name)")), "An optimizer needs the parameters themselves, not their names."),
        Mistake("froze what does not decay", edited(weight_decay_groups, ("    return [", "    for parameter in kept:\n        parameter.requires_grad_(False)\n    return [")), "Parameters without weight decay are still trained. Only sort them, change nothing."),
    ),
)  # fmt: skip

TRAIN_STEP = Exercise(
    name="train_step",
    points=8,
    reference=train_step,
    minutes=35,
    difficulty=3,
    importance=5,
    probe=stepped,
    cases=(
        Group("returns the loss of the batch and takes one step of the optimizer", 2, (to_train(16, 0.5, 0.2, made=("training",), max_grad_norm=100.0), to_train(24, 0.5, 0.2, made=("training",), max_grad_norm=100.0, sgd={"weight_decay": 0.2})), STEP, judge=steps_right),
        Group("trains in training mode, whatever the mode was before", 1, (to_train(16, 0.5, 0.2, max_grad_norm=100.0),), STEP, judge=steps_right),
        Group("forgets old gradients, from step to step and from before the first", 1, (to_train(steps=3, lr=0.3, max_grad_norm=100.0, sgd={"momentum": 0.9}), to_train(made=("stale", "spare"), max_grad_norm=None)), STEP, judge=steps_right),
        Group("clips the norm of all gradients together", 2, (to_train(contrast=4.0, max_grad_norm=0.3), to_train(contrast=4.0, lr=2.0), to_train(contrast=4.0, made=("tied",), max_grad_norm=0.5), to_train(contrast=4.0, made=("head only",), max_grad_norm=0.5)), CLIP, judge=steps_right),
        Group("leaves small gradients alone, clips nothing where max_grad_norm is None, and copes with parameters without gradient", 1, (to_train(made=("tied",), max_grad_norm=50.0), to_train(contrast=6.0, max_grad_norm=None), to_train(contrast=4.0, made=("frozen", "spare"), max_grad_norm=0.5)), CLIP, judge=steps_right),
        Group("runs the forward pass, and nothing else, under autocast when asked", 1, (to_train(autocast_dtype=torch.bfloat16, max_grad_norm=100.0), to_train(autocast_dtype=None)), MIXED, judge=steps_right),
    ),
    mistakes=(
        Mistake("forgot to zero the gradients", edited(train_step, ("optimizer.zero_grad()", "pass")), "`backward` adds to the gradients that are there. Without zeroing, every step also repeats all earlier ones."),
        Mistake("zeroed the gradients after backward", edited(train_step, ("    optimizer.zero_grad()\n", ""), ("loss.backward()\n", "loss.backward()\n    optimizer.zero_grad()\n")), "When the optimizer takes its step there are no gradients: they are not made yet, or thrown away again. Zero them before `backward`, and take the step after it."),
        Mistake("zeroed the gradients only after the step", edited(train_step, ("    optimizer.zero_grad()\n", ""), ("optimizer.step()\n", "optimizer.step()\n    optimizer.zero_grad()\n")), "Gradients that were there before the first call still count. Zero them at the start of the step."),
        Mistake("forgot the optimizer's step", edited(train_step, ("optimizer.step()", "pass")), "Gradients alone change nothing: the optimizer has to take its step."),
        Mistake("took the step before backward", edited(train_step, ("    loss.backward()\n", "    optimizer.step()\n    loss.backward()\n"), ("max_grad_norm)\n    optimizer.step()\n", "max_grad_norm)\n")), "The step uses the gradients of `backward`, so it comes after it."),
        Mistake("took two steps", edited(train_step, ("optimizer.step()", "optimizer.step()\n    optimizer.step()")), "The optimizer takes one step a batch."),
        Mistake("updated the parameters by hand", edited(train_step, ("optimizer.step()", "with torch.no_grad():\n        for group in optimizer.param_groups:\n            for each in group['params']:\n                if each.grad is not None:\n                    each -= group['lr'] * each.grad")), "A step by hand knows no momentum and no weight decay. The optimizer does: call its step."),
        Mistake("did not switch to training mode", edited(train_step, ("model.train()", "pass")), "After an evaluation the model is still in evaluation mode, and dropout is off. Every training step sets the mode it needs."),
        Mistake("trained in evaluation mode", edited(train_step, ("model.train()", "model.eval()")), "Evaluation mode switches dropout off. It is for testing."),
        Mistake("switched to training mode too late", edited(train_step, ("    model.train()\n", ""), ("loss.backward()", "model.train()\n    loss.backward()")), "The mode matters during the forward pass: switch before it."),
        Mistake("summed the loss over the batch", edited(train_step, ("model(images), labels)", "model(images), labels, reduction='sum')")), "The loss is the mean over the batch, which is the default of F.cross_entropy. A sum makes steps larger the larger the batch is."),
        Mistake("returned the sum over the batch", edited(train_step, ("loss.item()", "loss.item() * len(images)")), "The step is right, but the returned number is the sum of the losses, not their mean."),
        Mistake("returned the loss after the update", edited(train_step, ("return loss.item()", "return F.cross_entropy(model(images), labels).item()")), "The loss of this forward pass is wanted, before the update. A second pass also costs time."),
        Mistake("returned a tensor", edited(train_step, ("loss.item()", "loss")), "A tensor keeps the whole graph alive for as long as somebody keeps the loss. Return a float."),
        Mistake("smoothed the labels", edited(train_step, ("model(images), labels)", "model(images), labels, label_smoothing=0.1)")), "This step uses the plain cross-entropy."),
        Mistake("applied softmax before the loss", edited(train_step, ("model(images), labels)", "model(images).softmax(dim=-1), labels)")), "F.cross_entropy takes logits and has the softmax inside."),
        Mistake("did not clip", edited(train_step, ("nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)", "pass")), "Large gradients reach the optimizer. Clip them between `backward`, which makes them, and the step, which uses them."),
        Mistake("clipped always at 1", edited(train_step, ("model.parameters(), max_grad_norm)", "model.parameters(), 1.0)")), "The largest norm is an argument, 1.0 is only its default."),
        Mistake("clipped where None was given", edited(train_step, ("    if max_grad_norm is not None:\n        nn", "    if True:\n        nn"), ("model.parameters(), max_grad_norm)", "model.parameters(), 1.0 if max_grad_norm is None else max_grad_norm)")), "None asks for no clipping at all."),
        Mistake("clipped each value", edited(train_step, ("clip_grad_norm_(", "clip_grad_value_(")), "Clipping value by value turns the gradient into another direction. Clip the norm: scale all of them by one factor."),
        Mistake("clipped each parameter by itself", edited(train_step, ("        nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)", "        for each in model.parameters():\n            nn.utils.clip_grad_norm_([each], max_grad_norm)")), "The global norm is that of all gradients together, as if they were one long vector. One factor scales them all."),
        Mistake("scaled small gradients up", edited(train_step, ("nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)", "norm = torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None]).norm()\n        for each in model.parameters():\n            if each.grad is not None:\n                each.grad *= max_grad_norm / norm")), "Gradients whose norm is below the limit stay as they are: the factor is at most 1."),
        Mistake("forgot the square root of the norm", edited(train_step, ("nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)", "norm = sum(each.grad.square().sum() for each in model.parameters() if each.grad is not None)\n        for each in model.parameters():\n            if each.grad is not None:\n                each.grad *= (max_grad_norm / norm).clamp(max=1)")), "The norm is the square root of the sum of squares."),
        Mistake("took the largest value for the norm", edited(train_step, ("model.parameters(), max_grad_norm)", "model.parameters(), max_grad_norm, norm_type=float('inf'))")), "The global norm is the Euclidean one: the root of the sum of all squares."),
        Mistake("clipped before backward", edited(train_step, ("    loss.backward()\n", ""), ("    optimizer.step()", "    loss.backward()\n    optimizer.step()")), "There is nothing to clip before `backward` has made the gradients."),
        Mistake("clipped after the step", edited(train_step, ("    optimizer.step()\n", ""), ("    if max_grad_norm is not", "    optimizer.step()\n    if max_grad_norm is not")), "The step has already used the large gradients. Clip between `backward` and the step."),
        Mistake("clipped what the optimizer holds only", edited(train_step, ("model.parameters(), max_grad_norm)", "[each for group in optimizer.param_groups for each in group['params']], max_grad_norm)")), "The norm runs over the model's parameters, also those that this optimizer does not train."),
        Mistake("counted shared parameters twice", edited(train_step, ("nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)", "found = [each.grad for part in model.modules() for each in part.parameters(recurse=False) if each.grad is not None]\n        norm = torch.cat([each.flatten() for each in found]).norm()\n        for each in model.parameters():\n            if each.grad is not None:\n                each.grad *= (max_grad_norm / norm).clamp(max=1)")), "Two layers that share a weight have one gradient. A walk over modules meets it twice, model.parameters() once."),
        Mistake("stopped at a parameter without gradient", edited(train_step, ("nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)", "norm = torch.cat([each.grad.flatten() for each in model.parameters()]).norm()\n        for each in model.parameters():\n            each.grad *= (max_grad_norm / norm).clamp(max=1)")), "A frozen or unused parameter has no gradient: `.grad` is None. Skip those."),
        Mistake("ignored autocast", edited(train_step, ("enabled=autocast_dtype is not None", "enabled=False")), "Autocast is off though a dtype is given: either `autocast_dtype` is not used, or the device type is not that of the images."),
        Mistake("switched autocast always on", edited(train_step, ("dtype=autocast_dtype, enabled=autocast_dtype is not None", "dtype=autocast_dtype or torch.bfloat16")), "Without `autocast_dtype` everything runs in the precision of the model."),
        Mistake("ran backward under autocast too", edited(train_step, ("    loss.backward()\n", "        loss.backward()\n")), "`backward` runs outside of the autocast block; it uses the dtypes that the forward pass chose."),
        Mistake("fixed the device of autocast", edited(train_step, ("images.device.type", "'cuda'"), ("autocast_dtype is not None)", "autocast_dtype is not None and torch.cuda.is_available())")), "Autocast needs the type of the device on which the images are. On another one it does nothing."),
        Mistake("fixed the dtype of autocast", edited(train_step, ("dtype=autocast_dtype,", "dtype=torch.float16,")), "Use the dtype that is asked for. float16 overflows at 65,504, bfloat16 does not."),
        Mistake("normalised the images in place", edited(train_step, ("    model.train()\n", "    model.train()\n    images -= images.mean()\n")), "`-=` changes the caller's images, and the next epoch would change them again."),
    ),
)  # fmt: skip


def first(line: str) -> tuple[str, str]:
    """The edit that does something to the model before training."""
    return "torch.manual_seed(seed)", f"torch.manual_seed(seed)\n    {line}"


RATE = "warmup_cosine(step, total_steps, total_steps // 10, peak_lr)"
OPTIMIZER = "torch.optim.AdamW(weight_decay_groups(model, weight_decay), lr=peak_lr)"
TRAIN_MISTAKES = (
    Mistake("did not return a dict", edited(train, ('return {"loss": history}', "return history")), 'The result is a dict: `{"loss": [...]}`.'),
    Mistake("collected a loss for each step", edited(train, ("total += loss.detach() * len(batch)", "history.append(loss.item())"), ("        history.append(total.item() / len(images))", "")), "Count one loss for each epoch: the mean over its images."),
    Mistake("summed the loss over an epoch", edited(train, ("total.item() / len(images)", "total.item()")), "Divide by the number of images: the loss of an epoch is a mean."),
    Mistake("ran one epoch too few", edited(train, ("range(epochs)", "range(epochs - 1)")), "`epochs` says how often the training sees every image."),
    Mistake("trained a copy", edited(train, ("model.to", "model = __import__('copy').deepcopy(model).to")), "The caller keeps the model that you were given. Train that one, in place."),
    Mistake("never called the optimizer", edited(train, ("            optimizer.step()\n", "")), "Looking at the loss changes nothing: go backward, then let the optimizer step."),
    Mistake("froze the encoder", edited(train, first("[p.requires_grad_(n.startswith('head')) for n, p in model.named_parameters()]")), "Training from scratch moves every parameter, not the head alone."),
    Mistake("took the position embedding out", edited(train, first("model.pos_embed.requires_grad_(False).zero_()")), "Without positions the model sees a bag of patches. `pos_embed` is trained like the rest."),
    Mistake("took the residual connections out", edited(train, first("[setattr(b, 'forward', lambda z, f=b.forward: f(z) - z) for b in model.blocks]")), "The model is not yours to change, and without z + ... gradients hardly pass the blocks."),
    Mistake("took the norms out", edited(train, first("[setattr(b.norm1, 'forward', lambda z: z) for b in model.blocks]")), "The model is not yours to change: train it as it came."),
    Mistake("kept old gradients", edited(train, ("            optimizer.zero_grad()\n", "")), "`backward` adds to what is in `.grad`. Set the gradients to zero in each step."),
    Mistake("trained in evaluation mode", edited(train, (".train()", ".eval()")), "In evaluation mode dropout does nothing. Call `model.train()` before training."),
    Mistake("shuffled images without their labels", edited(train, ("labels[batch]", "labels[batch.sort().values]")), "Index images and labels with the same batch of numbers."),
    Mistake("used only the first batch of an epoch", edited(train, (".split(batch_size)", ".split(batch_size)[:1]")), "An epoch goes through all images, batch by batch."),
    Mistake("left out the warm-up", edited(train, ("total_steps // 10", "0")), "Adam's first steps rest on a handful of gradients. Start small: warm up over a tenth of the steps."),
    Mistake("warmed up to the end", edited(train, ("total_steps // 10", "total_steps")), "After the first tenth the rate falls again. Yours still rises in the last step."),
    Mistake("kept the learning rate constant", edited(train, (RATE, "peak_lr")), "Without decay the last steps are as wild as the first. Set `lr` in every step from the schedule."),
    Mistake("counted epochs in a schedule of steps", edited(train, ("            step += 1\n", ""), ("        total = torch", "        step += 1\n        total = torch")), "The schedule is asked for a step, and yours only counts epochs: it never leaves the warm-up."),
    Mistake("let everything decay", edited(train, (OPTIMIZER, "torch.optim.AdamW(model.parameters(), lr=peak_lr, weight_decay=weight_decay)")), "Biases, norms, cls_token and pos_embed are not to decay: use weight_decay_groups."),
    Mistake("ignored weight_decay", edited(train, ("groups(model, weight_decay)", "groups(model, 0.0)")), "`weight_decay` goes to the optimizer, for the weights of the layers."),
    Mistake("took a learning rate 100 times too high", edited(train, (RATE, f"100 * {RATE}")), "`peak_lr` is the highest rate. Ten times more and training breaks down."),
    Mistake("took a learning rate 100 times too low", edited(train, (RATE, f"{RATE} / 100")), "`peak_lr` is the highest rate. With a hundredth of it the model hardly moves within its epochs."),
    Mistake("never shuffled", edited(train, ("torch.randperm(len(images))", "torch.arange(len(images))")), "Equal batches in every epoch repeat the same noise. Draw a new order for each epoch."),
    Mistake("did not use the seed", edited(train, ("torch.manual_seed(seed)", "torch.seed()")), "Without a seed nobody can repeat your run. Seed what draws the order."),
    Mistake("fixed the seed", edited(train, ("torch.manual_seed(seed)", "torch.manual_seed(0)")), "The caller chooses the seed: runs with different seeds show how much is luck."),
    Mistake("took the softmax before the cross-entropy", edited(train, ("model(images[batch])", "model(images[batch]).softmax(1)")), "`F.cross_entropy` takes logits; it has the softmax inside."),
)  # fmt: skip

# These cost little on 1000 digits, so that no check of a run this small can tell; `make calibrate` shows it.
HARMLESS = (
    Mistake("made a new optimizer in every step", edited(train, ("optimizer.zero_grad()", "optimizer = torch.optim.AdamW([dict(each) for each in optimizer.param_groups]); optimizer.zero_grad()")), "AdamW remembers means of gradients from step to step. Make it once, before the loop."),
    Mistake("did not clip", edited(train, ("            nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n", "")), "One bad batch can undo many good ones: clip the gradients at norm 1."),
)  # fmt: skip

WATCHED = training(64, epochs=10, batch_size=8, peak_lr=1e-2, weight_decay=0.5)

TRAIN = Exercise(
    name="train",
    points=25,
    reference=train,
    minutes=45,
    difficulty=4,
    importance=5,
    probe=trained,
    seconds=60,
    trains=True,
    cases=(
        Group("returns one loss for each epoch, and the first is near ln K", 1, (training(200, epochs=2, batch_size=20, peak_lr=1e-6, weight_decay=0.05),), RUN, judge=starts_at_chance),
        Group("learns one batch by heart", 3, (training(40, epochs=100, batch_size=40, peak_lr=5e-3, weight_decay=0.0, kept={"floor": 0.95}),), RUN, judge=fits_one_batch),
        Group("moves every parameter", 2, (training(200, epochs=4, batch_size=20, peak_lr=3e-3, weight_decay=0.0),), RUN, judge=moves_everything),
        Group("trains in training mode, on new batches in every epoch, with fresh gradients", 2, (WATCHED,), RUN, watched, steps_well),
        Group("warms the learning rate up and lets it fall", 2, (WATCHED,), RUN, watched, schedules),
        Group("lets weights decay, and nothing else", 2, (WATCHED,), RUN, watched, decays),
        Group("gives the same result for the same seed", 2, (training(100, epochs=2, batch_size=20, peak_lr=3e-3, weight_decay=0.05),), RUN, repeated, repeats),
        Group("makes the loss fall", 1, (training(300, epochs=20, batch_size=30, peak_lr=5e-3, weight_decay=0.05, kept={"share": 0.6}),), RUN, judge=falls),
        Group("leaves a state that gives the same predictions elsewhere", 1, (training(200, 50, epochs=2, batch_size=20, peak_lr=3e-3, weight_decay=0.05),), RUN, judge=reproduces),
        Group("classifies new images as well as the reference, less a margin", 4, (training(1000, 797, epochs=20, batch_size=50, peak_lr=5e-3, weight_decay=0.05, kept=enough("train")),), RUN, judge=generalises),
        Group("classifies new photographs as well as the reference, less a margin", 2, (on_gpu(20_000, 2_000, epochs=12, batch_size=256, peak_lr=1e-3, weight_decay=0.05, kept=enough("train", "gpu")),), RUN, trained_on_gpu, learns_photographs, gpu=True),
        Group("runs the forward pass in bfloat16", 1, (on_gpu(2_048, epochs=2, batch_size=256, peak_lr=1e-3, weight_decay=0.05),), RUN, trained_on_gpu, autocasts, gpu=True),
        Group("never waits for the GPU within an epoch", 1, (on_gpu(4_096, epochs=2, batch_size=64, peak_lr=1e-3, weight_decay=0.05),), RUN, trained_on_gpu, never_waits, gpu=True),
        Group("is at least half as fast as the reference, with at most 1.5 times its memory", 1, (on_gpu(8_192, epochs=6, batch_size=256, peak_lr=1e-3, weight_decay=0.05, _short=1),), RUN, trained_on_gpu, keeps_up, gpu=True),
    ),
    mistakes=TRAIN_MISTAKES,
)  # fmt: skip

ASSIGNMENT = Assignment(
    name="training",
    title="Training a ViT from scratch",
    chapter="08_training",
    exercises=(SMOOTHED_CROSS_ENTROPY, WARMUP_COSINE, WEIGHT_DECAY_GROUPS, TRAIN_STEP, TRAIN),
)
