"""Chapter 10: a new head, a checkpoint for another task and size, SGD with momentum, learning rates by layer."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from autograder.probes import Inputs, Outputs, manners, mapped
from autograder.reference.fine_tuning import (
    adapt_state_dict,
    fine_tune,
    layerwise_lr_groups,
    replace_head,
    sgd_momentum_step,
)
from autograder.spec import Assignment, Draw, Exercise, Group, Mistake, edited
from autograder.specs.encoder import F32, F64, bad, but
from autograder.specs.patch_embedding import PATCH_NAMES, SIZE_NAMES
from autograder.specs.vision_transformer import model
from autograder.training_cases import enough, fine_tuning
from autograder.training_checks import (
    clips_and_keeps,
    coasts,
    falls,
    fits_one_batch,
    generalises,
    moves_everything,
    repeated,
    repeats,
    reproduces,
    starts_at_chance,
    steps_well,
    trained,
    watched,
)

HEAD, CHECKPOINT = "A new head of zeros", "A checkpoint for another task"
RESOLUTION, SGD, LAYERS = (
    "Positions for a new resolution",
    "SGD with momentum",
    "A learning rate for each layer",
)
RUN = "One fine-tuning run"
CONTRACT = "What every answer owes its caller"
CLASS_NAMES = ("num_classes", "classes", "n_classes", "nclasses", "k")
Make = Callable[[Draw], Inputs]


def pretrained(
    num_classes: int,
    *,
    old: int = 5,
    dim: int = 4,
    depth: int = 1,
    frozen: str = "",
    dtype: torch.dtype = F32,
) -> Make:
    """Draw a model with `old` classes whose parameters that start with `frozen` are frozen, and images for it."""

    def draw_pretrained(draw: Draw) -> Inputs:
        drawn = model((4, 2), 2, 1, dim=dim, depth=depth, hidden=3, classes=old, dtype=dtype)(draw)
        state, images = drawn["_state"], drawn["_forward"]["images"]
        return {"num_classes": num_classes, "_state": state, "_images": images, "_frozen": frozen}

    return draw_pretrained


def checkpoint(
    patch: int,
    old: int | tuple[int, int],
    new: int | tuple[int, int],
    num_classes: int,
    *,
    dim: int = 3,
    classes: int = 5,
    head: bool = True,
    dtype: torch.dtype = F32,
) -> Make:
    """Draw the state dict of a model for images of the `old` size with `classes` classes, or without a head."""

    def draw_checkpoint(draw: Draw) -> Inputs:
        drawn = model(old, patch, 2, dim=dim, heads=1, hidden=4, classes=classes, dtype=dtype)(draw)
        parts = (
            "cls_token",
            "pos_embed",
            "patch_embed",
            "blocks.0.norm1",
            "norm",
            *(["head"] if head else []),
        )
        state = {name: value for name, value in drawn["_state"].items() if name.startswith(parts)}
        sizes = {"patch_size": patch, "old_image_size": old, "new_image_size": new}
        return {"state_dict": state, **sizes, "num_classes": num_classes}

    return draw_checkpoint


def step(
    *shapes: tuple[int, ...],
    still: bool = False,
    without: tuple[int, ...] = (),
    steps: int = 1,
    dtype: torch.dtype = F32,
    **given: float,
) -> Make:
    """Draw parameters, velocities (zero if `still`) and the gradients of some steps, None for those in `without`."""

    def draw_step(draw: Draw) -> Inputs:
        def tensors(std: float) -> list[torch.Tensor]:
            return [draw.normal(*shape, std=std, dtype=dtype) for shape in shapes]

        params, velocities = tensors(1.0), tensors(0.0 if still else 1.0)
        grads = [[None if i in without else g for i, g in enumerate(tensors(1.0))] for _ in range(steps)]
        rate = draw.integer(10, 90) / 100
        drawn = {"params": params, "grads": grads[0], "velocities": velocities, "lr": rate}
        return {**drawn, **given, "_later": grads[1:]}

    return draw_step


def layered(depth: int, *, frozen: str = "", **given: float) -> Make:
    """Draw a model of some blocks, a rate and a decay. Parameters whose names start with `frozen` are frozen."""

    def draw_layered(draw: Draw) -> Inputs:
        drawn = model(2, 2, 1, dim=2, depth=depth, heads=1, hidden=2, classes=2)(draw)
        rates = {"base_lr": draw.integer(20, 90) / 100, "decay": draw.integer(50, 90) / 100, **given}
        return {**rates, "_state": drawn["_state"], "_images": drawn["_forward"]["images"], "_frozen": frozen}

    return draw_layered


# A model to adapt, with the names of the contract and nothing else that an answer could lean on


class TinyAttention(nn.Module):
    """Self-attention with one head."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Let every token gather from all tokens."""
        q, k, v = self.qkv(z).chunk(3, dim=-1)
        return self.proj(nn.functional.scaled_dot_product_attention(q, k, v))


class TinyMlp(nn.Module):
    """The MLP of a block."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Transform every token by itself."""
        return self.fc2(nn.functional.gelu(self.fc1(z)))


class TinyBlock(nn.Module):
    """An encoder block."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn, self.mlp = TinyAttention(dim), TinyMlp(dim, hidden)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return z_l from z_{l-1}."""
        z = z + self.attn(self.norm1(z))
        return z + self.mlp(self.norm2(z))


class TinyPatches(nn.Module):
    """The patch projection."""

    def __init__(self, channels: int, size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, size, size)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return one token a patch."""
        return self.proj(images).flatten(2).transpose(1, 2)


class TinyModel(nn.Module):
    """A Vision Transformer with the names of the contract, for the `_state` in a probe's inputs."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        state = inputs["_state"]
        dim, channels, size, _ = state["patch_embed.proj.weight"].shape
        hidden, classes = len(state["blocks.0.mlp.fc1.bias"]), len(state["head.bias"])
        depth = len([name for name in state if name.endswith("norm1.weight")])
        self.patch_embed = TinyPatches(channels, size, dim)
        self.cls_token = nn.Parameter(torch.zeros_like(state["cls_token"]))
        self.pos_embed = nn.Parameter(torch.zeros_like(state["pos_embed"]))
        self.blocks = nn.ModuleList([TinyBlock(dim, hidden) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, classes)
        self.to(state["cls_token"].dtype).load_state_dict(mapped(torch.clone, state))
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not (inputs["_frozen"] and name.startswith(inputs["_frozen"])))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Classify images."""
        tokens = self.patch_embed(images)
        z = torch.cat([self.cls_token.expand(images.shape[0], -1, -1), tokens], dim=1) + self.pos_embed
        for block in self.blocks:
            z = block(z)
        return self.head(self.norm(z)[:, 0])


# Probes


def replaced(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """What comes back, the parameters after the call, and the logits."""
    given: Any = TinyModel(inputs)
    returned = answer(model=given, num_classes=inputs["num_classes"])
    return {
        "whether the model itself is returned": returned is given,
        "the parameters after the call": dict(given.state_dict()),
        "the logits": given(inputs["_images"].clone()),
    }


def left_as_it_was(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """Of all parameters but the head's: their values, and whether they are the same objects, trainable as before."""
    given: Any = TinyModel(inputs)
    before = {name: (parameter, parameter.requires_grad) for name, parameter in given.named_parameters()}
    answer(given, inputs["num_classes"])
    after = {name: each for name, each in given.named_parameters() if not name.startswith("head.")}
    return {
        "the other parameters": after,
        "whether each is still the same parameter": {
            name: each is before[name][0] for name, each in after.items()
        },
        "which of them are trainable": {name: each.requires_grad for name, each in after.items()},
    }


def head_learns(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """Whether the new head is trainable, and the gradient that reaches it."""
    given: Any = TinyModel(inputs)
    answer(given, inputs["num_classes"])
    head = dict(given.head.named_parameters())
    labels = torch.arange(len(inputs["_images"])) % inputs["num_classes"]
    loss = nn.functional.cross_entropy(given(inputs["_images"].clone()), labels)
    if loss.requires_grad:
        loss.backward()
    return {
        "which parameters of the head are trainable": {
            name: each.requires_grad for name, each in head.items()
        },
        **{f"the gradient to head.{name}": each.grad for name, each in head.items()},
    }


def head_elsewhere(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """The head of a model in another dtype, and of one on another device."""
    given: Any = TinyModel(inputs)
    answer(given, inputs["num_classes"])
    there: Any = TinyModel(inputs).to("meta")
    answer(there, inputs["num_classes"])
    return {
        "the head": dict(given.head.state_dict()),
        "the head of a model on another device": dict(there.head.state_dict()),
    }


def old_one_left(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """Whether the result is another dict, and the old one after the call: its names and values."""
    given = mapped(torch.clone, {name: value for name, value in inputs.items() if not name.startswith("_")})
    state, held = given["state_dict"], dict(given["state_dict"])
    result = answer(**given)
    another = result is not state
    result.clear()
    return {
        "whether the result is another dict": another,
        "the names in the old dict after the call": sorted(state),
        "the old dict after the call": dict(state),
        "the tensors of the old dict after the call": held,
    }


def stepped(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """Parameters and velocities, as the lists hold them after one or more steps."""
    given = mapped(torch.clone, {name: value for name, value in inputs.items() if not name.startswith("_")})
    answer(**given)
    for later in inputs["_later"]:
        answer(**{**given, "grads": mapped(torch.clone, later)})
    return {"the parameters": given["params"], "the velocities": given["velocities"]}


def stepped_in_place(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """The tensors themselves after a step by position, whatever the lists hold, and the gradients."""
    given = mapped(torch.clone, {name: value for name, value in inputs.items() if not name.startswith("_")})
    params, velocities = list(given["params"]), list(given["velocities"])
    returned = answer(*given.values())
    return {
        "the parameters, as the caller's tensors": params,
        "the velocities, as the caller's tensors": velocities,
        "the gradients after the call": given["grads"],
        "what is returned": returned,
    }


def stepped_outside_autograd(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """Parameters that require gradients after two steps, and what autograd has recorded of them."""
    given = mapped(torch.clone, {name: value for name, value in inputs.items() if not name.startswith("_")})
    params = [parameter.requires_grad_() for parameter in given["params"]]
    velocities = list(given["velocities"])
    for _ in range(2):
        answer(**given)
    return {
        "the parameters": [parameter.detach() for parameter in params],
        "which parameters require gradients": [parameter.requires_grad for parameter in params],
        "which parameters are leaves": [parameter.is_leaf for parameter in params],
        "the gradients of the parameters": [parameter.grad for parameter in params],
        "which velocities require gradients": [velocity.requires_grad for velocity in velocities],
    }


def contents(groups: Any) -> list[tuple[Any, float]]:
    """Return every tensor of some optimizer groups with its rate. As in torch, (name, tensor) is a tensor too."""
    found = []
    for group in groups:
        inside = [group["params"]] if isinstance(group["params"], torch.Tensor) else list(group["params"])
        tensors = [item[1] if isinstance(item, tuple) else item for item in inside]
        found += [(tensor, float(group["lr"])) for tensor in tensors]
    return found


def rates(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """The rate of each parameter, from the first group that it stands in; None when it stands in none."""
    given = TinyModel(inputs)
    found = contents(answer(model=given, base_lr=inputs["base_lr"], decay=inputs["decay"]))
    return {
        "the learning rate": {
            name: next((rate for tensor, rate in found if tensor is parameter), None)
            for name, parameter in given.named_parameters()
        }
    }


def memberships(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """How often each parameter stands in the groups, and the number of tensors that are none of the model."""
    given = TinyModel(inputs)
    found = [tensor for tensor, _ in contents(answer(given, inputs["base_lr"], inputs["decay"]))]
    times = {name: sum(each is one for each in found) for name, one in given.named_parameters()}
    return {
        "the number of groups with each parameter": times,
        "the number of tensors that are no parameters of the model": len(found) - sum(times.values()),
    }


def optimised(answer: Callable[..., Any], inputs: Inputs) -> Outputs:
    """A list of dicts comes back; how far one step of SGD with all gradients at one goes; the model before that."""
    given = TinyModel(inputs)
    groups = answer(given, inputs["base_lr"], inputs["decay"])
    kinds = isinstance(groups, list) and all(isinstance(group, dict) for group in groups)
    untouched = all(torch.equal(each, inputs["_state"][name]) for name, each in given.state_dict().items())
    trainable = {name: each.requires_grad for name, each in given.named_parameters()}
    optimizer = torch.optim.SGD(groups, lr=100.0)
    for parameter in given.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    steps = [(inputs["_state"][name] - each).mean() for name, each in given.named_parameters()]
    return {
        "whether the result is a list of dicts": kinds,
        "whether the model's parameters are as they were": untouched,
        "which parameters are trainable": trainable,
        "the step of SGD, one number for each parameter": torch.stack(steps),
    }


OLD_HEAD = "old: Any = model.head\n"
NEW_HEAD = "nn.Linear(old.in_features, num_classes, dtype=old.weight.dtype, device=old.weight.device)"
ZEROS = "    nn.init.zeros_(head.weight)\n    nn.init.zeros_(head.bias)\n"

REPLACE_HEAD = Exercise(
    name="replace_head",
    points=6,
    reference=replace_head,
    minutes=15,
    difficulty=2,
    importance=5,
    probe=replaced,
    cases=(
        Group("puts a head of zeros for the new classes into the model and returns the model", 1, (pretrained(3), pretrained(7), pretrained(2, dim=6, depth=2)), HEAD),
        Group("makes zeros also when the number of classes stays the same, and for one class", 1, (pretrained(5), pretrained(2, old=2), pretrained(1)), HEAD),
        Group("makes a head that learns, also where the old one is frozen", 1, (pretrained(3, frozen="head"), pretrained(5, frozen="head"), pretrained(3, frozen="head.bias"), pretrained(4)), HEAD, head_learns),
        Group("leaves all other parameters as they were, frozen ones too", 1, (pretrained(3), pretrained(3, frozen="blocks", depth=2), pretrained(4, frozen="pos_embed")), HEAD, left_as_it_was),
        Group("keeps dtype and device of the old head", 1, (pretrained(3, dtype=F64), pretrained(5)), CONTRACT, head_elsewhere),
        Group(
            "refuses a num_classes that is not positive",
            1,
            (
                bad(pretrained(0), "a num_classes of zero", CLASS_NAMES, (0,)),
                bad(pretrained(-3), "a negative num_classes", CLASS_NAMES, (-3,)),
            ),
            CONTRACT,
        ),
    ),
    mistakes=(
        Mistake("returned nothing", edited(replace_head, ("    return model\n", "")), "The model comes back, so that calls can be chained: `return model`."),
        Mistake("returned the head", edited(replace_head, ("return model", "return head")), "Return the whole model, with its new head in place."),
        Mistake("never put the head into the model", edited(replace_head, ("    model.head = head\n", "")), "You make a head, but the model still has the old one: assign it to `model.head`."),
        Mistake("worked on a copy", edited(replace_head, (OLD_HEAD, "import copy\n    model = copy.deepcopy(model)\n    old = model.head\n")), "The model is changed in place: whoever holds it should see the new head. Do not copy it."),
        Mistake("kept the old head when the number of classes is the same", edited(replace_head, (OLD_HEAD, OLD_HEAD + "    if old.out_features == num_classes:\n        return model\n")), "Ten new classes are not the ten old ones. The head starts at zero in any case."),
        Mistake("left torch's random values in the head", edited(replace_head, (ZEROS, "")), "`nn.Linear` starts at random. The paper starts the new head at zero, weight and bias."),
        Mistake("left torch's random values in the bias", edited(replace_head, ("    nn.init.zeros_(head.bias)\n", "")), "The bias starts at zero too, or the first loss is not log K."),
        Mistake("left torch's random values in the weight", edited(replace_head, ("    nn.init.zeros_(head.weight)\n", "")), "The weight starts at zero too, not only the bias."),
        Mistake("drew small random values", edited(replace_head, ("nn.init.zeros_(head.weight)", "nn.init.normal_(head.weight, std=0.02)")), "Small is not zero. With zeros no class is preferred at first, and the first loss is exactly log K."),
        Mistake("kept the old weights of the first classes", edited(replace_head, (ZEROS, ZEROS + "    same = min(num_classes, old.out_features)\n    head.weight.data[:same] = old.weight.data[:same]\n")), "Old class 0 and new class 0 have nothing to do with each other: every row starts at zero."),
        Mistake("left the bias out", edited(replace_head, ("num_classes, dtype=", "num_classes, bias=False, dtype="), ("    nn.init.zeros_(head.bias)\n", "")), "The head has a weight and a bias. Without the bias a state dict does not fit."),
        Mistake("swapped inputs and outputs", edited(replace_head, ("old.in_features, num_classes", "num_classes, old.in_features")), "`nn.Linear(inputs, outputs)`: the inputs are the D values of a token, the outputs the classes."),
        Mistake("took the old number of classes for the width", edited(replace_head, ("old.in_features, num_classes", "old.out_features, num_classes")), "The head reads a token of width D: `in_features` of the old head, not its `out_features`."),
        Mistake("hung the new head behind the old one", edited(replace_head, ("model.head = head", "model.head = nn.Sequential(old, head)"), ("old.in_features", "old.out_features")), "The old head is replaced. It maps to the old classes, which the new task does not have."),
        Mistake("kept the head frozen when the old one was", edited(replace_head, ("    model.head = head\n", "    head.weight.requires_grad_(old.weight.requires_grad)\n    head.bias.requires_grad_(old.bias.requires_grad)\n    model.head = head\n")), "The new head has everything to learn: it is trainable, whatever the old one was."),
        Mistake("made a head that does not learn", edited(replace_head, ("    model.head = head\n", "    head.requires_grad_(False)\n    model.head = head\n")), "No gradient reaches the head. Its weight and bias must be trainable."),
        Mistake("froze everything but the head", edited(replace_head, ("    model.head = head\n", "    model.requires_grad_(False)\n    model.head = head\n")), "Freezing the rest is a choice of the caller (a linear probe). Replace the head and nothing else."),
        Mistake("made everything trainable", edited(replace_head, ("    model.head = head\n", "    model.head = head\n    model.requires_grad_(True)\n")), "Parameters that were frozen stay frozen. Only the head is new."),
        Mistake("replaced all parameters by copies", edited(replace_head, ("    model.head = head\n", "    model.head = head\n    for module in model.modules():\n        for name, each in list(module.named_parameters(recurse=False)):\n            setattr(module, name, nn.Parameter(each.detach().clone(), requires_grad=each.requires_grad))\n")), "An optimizer or a hook may hold the old parameters. Leave all but the head alone."),
        Mistake("made the head in float32", edited(replace_head, ("dtype=old.weight.dtype, ", "")), "The head of a float64 model is float64. Take the dtype of the old weight."),
        Mistake("made the head on the CPU", edited(replace_head, (", device=old.weight.device", "")), "A model on a GPU gets a head on that GPU. Take the device of the old weight."),
        Mistake("let any num_classes through", edited(replace_head, ("if num_classes < 1:", "num_classes = abs(num_classes) or 1\n    if False:")), "No or minus three classes make no head. Raise a ValueError that names num_classes and its value."),
        Mistake("let num_classes of zero through", edited(replace_head, ("if num_classes < 1:", "num_classes = num_classes or 1\n    if num_classes < 0:")), "Zero classes are not positive either."),
        Mistake("wrote an error message without the value", edited(replace_head, (", got {num_classes}", "")), "Your ValueError does not give the value that is wrong."),
    ),
)  # fmt: skip

POSITIONS = "interpolate_position_embedding(pos_embed, old_grid, new_grid)"
OLD_SIZES = ("old_image_size", "image_size", "old_size", "old_grid", "grid", "pos_embed", "height", "width")
WEIGHT, BIAS = "pos_embed.new_zeros(num_classes, pos_embed.shape[-1])", "pos_embed.new_zeros(num_classes)"


def resized(*edits: tuple[str, str], interpolate: str = "", before: str = "", after: str = "") -> str:
    """Return the reference with its interpolation written out: `before`, options of F.interpolate, `after`."""
    options = interpolate or "mode='bicubic', align_corners=False, antialias=False"
    lines = (
        "cls, patches = pos_embed[:, :1], pos_embed[:, 1:]\n"
        "    image = patches.transpose(1, 2).unflatten(2, old_grid)\n"
        f"    {before or 'pass'}\n"
        f"    image = nn.functional.interpolate(image, size=new_grid, {options})\n"
        "    patches = image.flatten(2).transpose(1, 2)\n"
        f"    {after or 'pass'}\n"
    )
    code = ("adapted = dict(state_dict)\n", "adapted = dict(state_dict)\n    " + lines)
    return edited(adapt_state_dict, code, (POSITIONS, "torch.cat([cls, patches], dim=1)"), *edits)


ADAPT = Exercise(
    name="adapt_state_dict",
    points=10,
    reference=adapt_state_dict,
    minutes=35,
    difficulty=3,
    importance=5,
    cases=(
        Group("puts a head of zeros for the new classes in and keeps the rest, for images of the same size", 1, (checkpoint(2, 6, 6, 3), checkpoint(3, 6, 6, 7, dim=4)), CHECKPOINT),
        Group("interpolates the positions for larger images, [CLS] apart", 2, (checkpoint(2, 4, 8, 3), checkpoint(1, 3, 5, 4), checkpoint(4, 8, 12, 2, dim=4)), RESOLUTION),
        Group("takes image sizes as (height, width) too", 1, (checkpoint(2, (4, 8), (10, 6), 3), checkpoint(2, 4, (4, 8), 3), checkpoint(1, (2, 6), (4, 3), 2), checkpoint(3, (9, 3), 9, 4)), RESOLUTION),
        Group("interpolates for smaller images, without antialiasing", 1, (checkpoint(1, 6, 3, 3), checkpoint(2, (14, 10), (6, 4), 4), checkpoint(2, 8, 2, 3)), RESOLUTION),
        Group("zeros the head also when the number of classes stays the same", 1, (checkpoint(2, 4, 4, 5), checkpoint(2, 4, 6, 5), checkpoint(2, 4, 6, 3, dim=3, classes=3)), CHECKPOINT),
        Group("adds a head where there is none", 1, (checkpoint(2, 4, 4, 3, head=False), checkpoint(2, (4, 6), 6, 4, head=False)), CHECKPOINT),
        Group("returns a new dict and leaves the old one as it was", 1, (checkpoint(2, 4, 4, 5), checkpoint(2, 4, 8, 3), checkpoint(2, 4, 4, 3, head=False)), CHECKPOINT, old_one_left),
        Group("keeps dtype and device and remembers nothing", 1, (checkpoint(2, 4, 6, 3, dtype=F64), checkpoint(2, 4, 8, 5)), CONTRACT, manners),
        Group(
            "refuses sizes that do not fit, and a num_classes that is not positive",
            1,
            (
                bad(checkpoint(4, 8, 12, 3), "an old_image_size that is not divisible", SIZE_NAMES + OLD_SIZES, (10, 4), old_image_size=10),
                bad(checkpoint(4, 8, 12, 3), "a new_image_size that is not divisible", (*SIZE_NAMES, "new_image_size", "new_size"), (10, 4), new_image_size=10),
                bad(checkpoint(4, 8, 12, 3), "a new width that is not divisible", (*SIZE_NAMES, "new_image_size", "new_size"), (10, 4), new_image_size=(12, 10)),
                bad(checkpoint(4, 8, 12, 3), "an old_image_size that is not the one of pos_embed", OLD_SIZES, (12, 3, 5, 9, 10, 4, 2), old_image_size=12),
                bad(checkpoint(4, 8, 12, 3), "an old_image_size smaller than the one of pos_embed", OLD_SIZES, (4, 1, 2, 5), old_image_size=4),
                bad(checkpoint(4, 8, 12, 3), "a patch_size of zero", PATCH_NAMES, (0,), patch_size=0),
                bad(checkpoint(4, 8, 12, 0), "a num_classes of zero", CLASS_NAMES, (0,)),
                bad(checkpoint(4, 8, 12, -2), "a negative num_classes", CLASS_NAMES, (-2,)),
            ),
            CONTRACT,
        ),
    ),
    mistakes=(
        Mistake("left the positions as they were", edited(adapt_state_dict, (POSITIONS, "pos_embed")), "A larger image has more patches, and each needs a position: interpolate them."),
        Mistake("drew new positions", edited(adapt_state_dict, (POSITIONS, "torch.randn(1, 1 + new_grid[0] * new_grid[1], pos_embed.shape[-1])")), "What the model has learned about places is lost. Interpolate the old positions."),
        Mistake("interpolated [CLS] along with the patches", edited(adapt_state_dict, (POSITIONS, "nn.functional.interpolate(pos_embed.transpose(1, 2), size=1 + new_grid[0] * new_grid[1], mode='linear').transpose(1, 2)")), "You stretch the whole sequence as one line. [CLS] has no place in the image: split it off, resize the patches as a grid, put it back."),
        Mistake("stretched the patches as a line", edited(adapt_state_dict, (POSITIONS, "torch.cat([pos_embed[:, :1], nn.functional.interpolate(pos_embed[:, 1:].transpose(1, 2), size=new_grid[0] * new_grid[1], mode='linear').transpose(1, 2)], dim=1)")), "Patches stand in a grid. As one line, the end of a row runs into the start of the next."),
        Mistake("lost the position of [CLS]", resized(("torch.cat([cls, patches], dim=1)", "patches")), "The result has one position too few: [CLS] comes back in front."),
        Mistake("put the position of [CLS] at the end", resized(("torch.cat([cls, patches], dim=1)", "torch.cat([patches, cls], dim=1)")), "[CLS] is token 0, so its position comes first."),
        Mistake("zeroed the position of [CLS]", resized(after="cls = torch.zeros_like(cls)"), "The position of [CLS] is kept as it is."),
        Mistake("interpolated bilinearly", resized(interpolate="mode='bilinear', align_corners=False"), 'The contract says bicubic: `mode="bicubic"`.'),
        Mistake("copied the nearest position", resized(interpolate="mode='nearest'"), "`F.interpolate` copies the nearest value unless you say otherwise. The contract says bicubic."),
        Mistake("set align_corners to True", resized(interpolate="mode='bicubic', align_corners=True"), "With align_corners=True the centres of the corner patches stay in place. Here the corners of the image do: False."),
        Mistake("switched antialiasing on", resized(interpolate="mode='bicubic', align_corners=False, antialias=True"), "Antialiasing blurs before it makes a grid smaller (timm does that). The contract leaves it off."),
        Mistake("interpolated on the transposed grid", resized(before="image = patches.transpose(1, 2).unflatten(2, old_grid[::-1])"), "The patches go row by row: (height, width), in this order. With square grids nobody notices."),
        Mistake("swapped height and width of the new size", edited(adapt_state_dict, (POSITIONS, "interpolate_position_embedding(pos_embed, old_grid, new_grid[::-1])")), "An image size is (height, width), and so is a grid."),
        Mistake("reshaped to channels without moving axes", resized(before="image = patches.reshape(1, -1, *old_grid)"), "The D entries of a position stand together in memory, so a reshape to (1, D, h, w) mixes places and entries. Transpose, or permute, first."),
        Mistake("took the old grid to be square", edited(adapt_state_dict, ("patch_grid(old_image_size, patch_size), patch", "(round((state_dict['pos_embed'].shape[1] - 1) ** 0.5),) * 2, patch")), "2 x 8 patches are not 4 x 4. Compute the grid from old_image_size and patch_size, and check that it fits."),
        Mistake("took the new images to be square", edited(adapt_state_dict, (POSITIONS, "interpolate_position_embedding(pos_embed, old_grid, (new_grid[0], new_grid[0]))")), "new_image_size may be (height, width). You use the height twice."),
        Mistake("took image sizes for grids", edited(adapt_state_dict, ("patch_grid(new_image_size, patch_size)", "patch_grid(new_image_size, 1)")), "Sizes are in pixels, grids in patches: divide by patch_size."),
        Mistake("accepted numbers only as image sizes", edited(adapt_state_dict, ("old_grid, new_grid =", "old_image_size + 0, new_image_size + 0\n    old_grid, new_grid =")), "An image size is an int or (height, width)."),
        Mistake("kept the old head when the number of classes is the same", edited(adapt_state_dict, ('adapted["head.weight"] =', "if 'head.bias' in adapted and len(adapted['head.bias']) == num_classes:\n        return adapted\n    adapted['head.weight'] =")), "Ten new classes are not the ten old ones. The head starts at zero in any case."),
        Mistake("kept the old head", edited(adapt_state_dict, ('adapted["head.weight"] = ' + WEIGHT, "pass"), ('adapted["head.bias"] = ' + BIAS, "pass")), "The old head belongs to the old classes. Put zeros for the new ones in its place."),
        Mistake("left the head out", edited(adapt_state_dict, ('adapted["head.weight"] = ' + WEIGHT, "adapted.pop('head.weight', None)"), ('adapted["head.bias"] = ' + BIAS, "adapted.pop('head.bias', None)")), "Without a head a strict `load_state_dict` fails. The new dict holds zeros for it."),
        Mistake("replaced the head only where there was one", edited(adapt_state_dict, ('adapted["head.weight"] =', "if 'head.weight' not in adapted:\n        return adapted\n    adapted['head.weight'] =")), "Some checkpoints have no head. The new dict has one all the same."),
        Mistake("needed an old head to make the new one", edited(adapt_state_dict, (WEIGHT, "state_dict['head.weight'].new_zeros(num_classes, pos_embed.shape[-1])")), "Some checkpoints have no head. Take the width, dtype and device from another entry, such as pos_embed."),
        Mistake("zeroed the weight of the head only", edited(adapt_state_dict, (BIAS, "torch.randn(num_classes, dtype=pos_embed.dtype)")), "The bias of the head starts at zero as well."),
        Mistake("drew a random head", edited(adapt_state_dict, (WEIGHT, "0.02 * torch.randn(num_classes, pos_embed.shape[-1], dtype=pos_embed.dtype)")), "The new head is zero, so that the first loss is log K."),
        Mistake("swapped the axes of the head's weight", edited(adapt_state_dict, (WEIGHT, "pos_embed.new_zeros(pos_embed.shape[-1], num_classes)")), "The weight of a linear layer is (outputs, inputs): (num_classes, D)."),
        Mistake("changed the old dict", edited(adapt_state_dict, ("adapted = dict(state_dict)", "adapted = state_dict")), "A second name is not a copy: the caller's dict has changed. Start from `dict(state_dict)`."),
        Mistake("zeroed the old head in place", edited(adapt_state_dict, ("adapted = dict(state_dict)", "adapted = dict(state_dict)\n    for name in ('head.weight', 'head.bias'):\n        if name in adapted:\n            adapted[name].zero_()")), "A copied dict still holds the same tensors. `zero_` and `[...] =` change them for the caller too: make new ones."),
        Mistake("took the old head out of the old dict", edited(adapt_state_dict, ("adapted = dict(state_dict)", "state_dict.pop('head.weight', None), state_dict.pop('head.bias', None)\n    adapted = dict(state_dict)")), "`pop` and `del` change the caller's dict. Work on a copy of it."),
        Mistake("returned the positions and the head only", edited(adapt_state_dict, ("adapted = dict(state_dict)", "adapted = {}")), "All other entries belong into the new dict too, as they are."),
        Mistake("made a head that only fits float32", edited(adapt_state_dict, (WEIGHT, "torch.zeros(num_classes, pos_embed.shape[-1], device=pos_embed.device)")), "The zeros are float32 whatever the state is. `new_zeros` takes dtype and device from a tensor."),
        Mistake("made the head on the CPU", edited(adapt_state_dict, (WEIGHT, "torch.zeros(num_classes, pos_embed.shape[-1], dtype=pos_embed.dtype)")), "The zeros are on the CPU whatever the state's device is. `new_zeros` takes dtype and device from a tensor."),
        Mistake("converted the positions to float32", edited(adapt_state_dict, (POSITIONS, POSITIONS + ".float()")), "float64 positions come back as float32. Keep the dtype."),
        Mistake("interpolated in float32", edited(adapt_state_dict, (POSITIONS, POSITIONS.replace("pos_embed,", "pos_embed.float(),") + ".to(pos_embed.dtype)")), "The dtype is right, but digits were lost on the way through float32."),
        Mistake("let a size that is not divisible through", edited(adapt_state_dict, ("patch_grid(old_image_size, patch_size), patch_grid(new_image_size, patch_size)", "(tuple(side // patch_size for side in ((size, size) if isinstance(size, int) else size)) for size in (old_image_size, new_image_size))")), "10 pixels cannot be cut into patches of 4. Raise a ValueError that names the size."),
        Mistake("let any num_classes through", edited(adapt_state_dict, ("if num_classes < 1", "if num_classes < -9")), "No or minus two classes make no head. Raise a ValueError that names num_classes and its value."),
        Mistake("let torch's own error through for positions that do not fit", resized(), "The checkpoint may belong to another size than the caller believes. Compare the number of positions with 1 + h · w and raise a ValueError that says so."),
        Mistake("cut the positions to fit the grid", edited(adapt_state_dict, (POSITIONS, POSITIONS.replace("pos_embed,", "pos_embed[:, : 1 + old_grid[0] * old_grid[1]],"))), "Positions that are too many vanish without a word, and the others get other places. Refuse such a size."),
    ),
)  # fmt: skip

UPDATE = "velocity.mul_(momentum).add_(gradient)"
MOVE = "parameter.sub_(lr * velocity)"
FIRST = "            " + UPDATE
LENGTHS = "not len(params) == len(grads) == len(velocities)"

SGD_MOMENTUM_STEP = Exercise(
    name="sgd_momentum_step",
    points=7,
    reference=sgd_momentum_step,
    minutes=20,
    difficulty=2,
    importance=4,
    forbid=frozenset({"torch.optim.SGD", "torch.optim.sgd.sgd"}),
    operators=frozenset({"_fused_sgd_"}),
    probe=stepped,
    cases=(
        Group("steps against the gradient, from velocities of zero", 1, (step((3,), still=True), step((2, 3), (4,), (), still=True)), SGD),
        Group("carries the velocity on from step to step", 1, (step((3,), (2, 2)), step((2, 3), (4,), still=True, steps=3), step((3, 2), steps=4, dtype=F64)), SGD),
        Group("uses the momentum that it is given", 1, (step((3,), (2, 2), momentum=0.5), step((4,), momentum=0.0), step((2, 3), momentum=0.99, steps=3)), SGD),
        Group("writes into the tensors it is given, and leaves the gradients alone", 1, (step((3,), (2, 2)), step((2, 3), momentum=0.4), step((), (1,))), SGD, stepped_in_place),
        Group("leaves parameter and velocity alone where there is no gradient", 1, (step((3,), (2, 2), (4,), without=(1,)), step((2,), (3,), without=(0, 1), steps=2), step((2,), (3,), without=(0,), steps=2, momentum=0.5)), SGD),
        Group("works for parameters that require gradients, and records nothing", 1, (step((3,), (2, 2)), step((2, 3), (2,), without=(1,), still=True)), SGD, stepped_outside_autograd),
        Group(
            "refuses a rate or a momentum outside its range, and lists of different lengths",
            1,
            (
                bad(step((3,)), "a negative lr", ("lr", "learning_rate", "rate"), (-0.5,), lr=-0.5),
                bad(step((3,)), "a negative momentum", ("momentum",), (-0.25,), momentum=-0.25),
                bad(step((3,)), "a momentum above one", ("momentum",), (1.5,), momentum=1.5),
                but(step((3,), (3,)), "a gradient that is missing", grads=lambda draw: [draw.normal(3)]),
                but(step((3,), (3,)), "a velocity that is missing", velocities=lambda draw: [draw.normal(3)]),
            ),
            CONTRACT,
        ),
    ),
    mistakes=(
        Mistake("stepped along the gradient", edited(sgd_momentum_step, ("parameter.sub_", "parameter.add_")), "The gradient points uphill. Subtract."),
        Mistake("forgot the momentum", edited(sgd_momentum_step, (MOVE, "parameter.sub_(lr * gradient)")), "The step goes along the velocity, not along the gradient."),
        Mistake("replaced the velocity by the gradient", edited(sgd_momentum_step, (UPDATE, "velocity.copy_(gradient)")), "The velocity remembers: momentum times the old velocity plus the gradient."),
        Mistake("left the velocity as it was", edited(sgd_momentum_step, (UPDATE, "velocity = momentum * velocity + gradient")), "`velocity = ...` makes a new tensor, and the caller's keeps its old value. Write into it: `mul_`, `add_`, `copy_`."),
        Mistake("weighted the gradient with one minus momentum", edited(sgd_momentum_step, ("add_(gradient)", "add_(gradient, alpha=1 - momentum)")), "That is a moving average, as in Adam. Here the whole gradient is added."),
        Mistake("stepped as Nesterov does", edited(sgd_momentum_step, (MOVE, "parameter.sub_(lr * (gradient + momentum * velocity))")), "Nesterov looks one step ahead. The contract has plain momentum: p - lr · v."),
        Mistake("put the learning rate into the velocity", edited(sgd_momentum_step, ("add_(gradient)", "add_(gradient, alpha=lr)"), (MOVE, "parameter.sub_(velocity)")), "With a constant rate it is the same walk, but not when a schedule changes the rate: the velocity holds gradients, lr comes at the step."),
        Mistake("stepped before the velocity was updated", edited(sgd_momentum_step, (FIRST, "            " + MOVE + "\n" + FIRST), (MOVE + "\n    ", MOVE + "\n    "), ("(gradient)\n            " + MOVE, "(gradient)")), "First the velocity takes the new gradient, then the parameter moves along it."),
        Mistake("added the old velocity twice", edited(sgd_momentum_step, ("mul_(momentum)", "mul_(1 + momentum)")), "The old velocity counts momentum times, nothing more."),
        Mistake("scaled the gradient by momentum too", edited(sgd_momentum_step, (UPDATE, "velocity.add_(gradient).mul_(momentum)")), "Only the old velocity is scaled by momentum: multiply first, then add."),
        Mistake("subtracted the gradient in the velocity", edited(sgd_momentum_step, ("add_(gradient)", "sub_(gradient)"), ("parameter.sub_", "parameter.add_")), "The walk is the same, but the velocity has the wrong sign for whoever reads it: v = momentum · v + g and p = p - lr · v."),
        Mistake("hard-coded a momentum of 0.9", edited(sgd_momentum_step, ("mul_(momentum)", "mul_(0.9)")), "The momentum is an argument; 0.9 is its default only."),
        Mistake("let momentum be zero where it was not given", edited(sgd_momentum_step, ("momentum: float = 0.9", "momentum: float = 0.0")), "Without the argument the momentum is 0.9."),
        Mistake("put new tensors into the lists", edited(sgd_momentum_step, ("in zip(params, grads, velocities, strict=True):", "in list(zip(params, grads, velocities, strict=True)):"), (FIRST, "            at = [each is parameter for each in params].index(True)"), (MOVE, "velocities[at] = momentum * velocity + gradient\n            params[at] = parameter - lr * velocities[at]")), "The lists hold new tensors now, but the model and the caller still hold the old ones. Change the tensors themselves: `sub_`, `-=`, `copy_`."),
        Mistake("returned new tensors", edited(sgd_momentum_step, ("for parameter", "params[:], velocities[:] = [p.clone() for p in params], [v.clone() for v in velocities]\n    for parameter")), "You work on copies, so the model never moves. Write into the tensors that you are given."),
        Mistake("rebound the loop's names", edited(sgd_momentum_step, (MOVE, "parameter = parameter - lr * velocity")), "`parameter = ...` only renames inside the loop. `parameter.sub_(...)` or `-=` changes the tensor."),
        Mistake("returned the parameters", edited(sgd_momentum_step, (MOVE, MOVE + "\n    return params")), "Nothing is returned: the change is in place. A result would suggest that the old ones are untouched."),
        Mistake("changed the gradients", edited(sgd_momentum_step, (UPDATE, "velocity.copy_(gradient.add_(velocity, alpha=momentum))")), "The gradients belong to the caller, who may add to them or log them. Write into velocity and parameter only."),
        Mistake("zeroed the gradients", edited(sgd_momentum_step, (MOVE, MOVE + "\n            gradient.zero_()")), "Clearing gradients is `zero_grad`, another step. Leave them alone."),
        Mistake("ran under autograd", edited(sgd_momentum_step, ("@torch.no_grad()\n", "")), "torch refuses an in-place change of a leaf that requires a gradient. Put `torch.no_grad()` around the update."),
        Mistake("froze the parameters", edited(sgd_momentum_step, (MOVE, "parameter.requires_grad_(False)\n            " + MOVE)), "After the step the parameters must collect gradients again."),
        Mistake("let velocities decay where there is no gradient", edited(sgd_momentum_step, ("        if gradient is not None:", "        if gradient is None:\n            velocity.mul_(momentum)\n        if gradient is not None:")), "Without a gradient nothing happens: torch's SGD skips such parameters too."),
        Mistake("moved on where there is no gradient", edited(sgd_momentum_step, ("        if gradient is not None:", "        if gradient is None:\n            parameter.sub_(lr * velocity)\n        if gradient is not None:")), "Without a gradient the parameter stays where it is, whatever its velocity."),
        Mistake("took no gradient for a gradient of zero", edited(sgd_momentum_step, ("        if gradient is not None:", "        gradient = torch.zeros_like(parameter) if gradient is None else gradient\n        if gradient is not None:")), "A gradient of zero still lets the velocity decay and the parameter roll on. None means: leave both alone."),
        Mistake("stopped at the first parameter without gradient", edited(sgd_momentum_step, ("        if gradient is not None:", "        if gradient is None:\n            break\n        if gradient is not None:")), "Parameters after it still have gradients: `continue`, not `break` or `return`."),
        Mistake("stopped with an error where there is no gradient", edited(sgd_momentum_step, ("if gradient is not None", "if True")), "A parameter that took no part in the loss has the gradient None. Skip it."),
        Mistake("let a negative lr through", edited(sgd_momentum_step, ("if lr < 0", "if False")), "A negative rate climbs. Raise a ValueError that names lr and its value."),
        Mistake("let any momentum through", edited(sgd_momentum_step, ("if not 0 <= momentum < 1", "if False")), "With a momentum of 1.5 the velocity explodes. Raise a ValueError that names it and its value."),
        Mistake("cut the lists to the shortest", edited(sgd_momentum_step, (LENGTHS, "False"), ("strict=True", "strict=False")), "`zip` stops at the shortest list, and the last parameters never learn. Compare the lengths, or give `strict=True`."),
    ),
)  # fmt: skip

BELOW = 'below = 0 if first in ("head", "norm") else depth - int(rest[0]) if first == "blocks" else depth + 1'
RATE = "base_lr * decay**below"

LAYERWISE = Exercise(
    name="layerwise_lr_groups",
    points=7,
    reference=layerwise_lr_groups,
    minutes=25,
    difficulty=3,
    importance=3,
    probe=rates,
    cases=(
        Group("gives head and final norm, the blocks and the embeddings their rates", 2, (layered(2), layered(1), layered(3, decay=0.75)), LAYERS),
        Group("works for any number of blocks, also more than ten", 1, (layered(11), layered(5, decay=0.5), layered(4, decay=1.0)), LAYERS),
        Group("puts every parameter into one group", 1, (layered(2), layered(11)), LAYERS, memberships),
        Group("leaves frozen parameters out", 1, (layered(2, frozen="blocks.0"), layered(3, frozen="patch_embed"), layered(2, frozen="head"), layered(2, frozen="blocks")), LAYERS, memberships),
        Group("returns a list that torch.optim takes, and leaves the model as it was", 1, (layered(3), layered(2, frozen="blocks.1"), layered(2, frozen="pos_embed")), LAYERS, optimised),
        Group(
            "refuses rates outside their range",
            1,
            (
                bad(layered(2), "a negative base_lr", ("base_lr", "lr", "learning_rate"), (-0.5,), base_lr=-0.5),
                bad(layered(2), "a negative decay", ("decay",), (-0.75,), decay=-0.75),
                bad(layered(2), "a decay above one", ("decay",), (1.5,), decay=1.5),
            ),
            CONTRACT,
        ),
    ),
    mistakes=(
        Mistake("gave all layers one rate", edited(layerwise_lr_groups, (RATE, "base_lr")), "That is plain fine-tuning. A layer far below the head learns more slowly: a factor of decay for each step down."),
        Mistake("reversed the order of the layers", edited(layerwise_lr_groups, ("depth - int(rest[0])", "int(rest[0]) + 1")), "Block 0 is the lowest, far from the head, and learns slowly; the last block is next to the head."),
        Mistake("gave the last block the base rate", edited(layerwise_lr_groups, ("depth - int(rest[0])", "depth - 1 - int(rest[0])")), "Blocks count from 0, so the last one is L - 1, and its exponent is 1: only head and final norm have the base rate."),
        Mistake("counted blocks from one", edited(layerwise_lr_groups, ("depth - int(rest[0])", "depth + 1 - int(rest[0])")), "Your exponents of the blocks are one too large. Blocks count from 0: the exponent of block i is L - i."),
        Mistake("gave the embeddings the rate of block 0", edited(layerwise_lr_groups, ("else depth + 1", "else depth")), "The embeddings lie one layer below block 0: their exponent is L + 1."),
        Mistake("gave the embeddings the base rate", edited(layerwise_lr_groups, ("else depth + 1", "else 0")), "The embeddings are the lowest layer: their exponent is L + 1, the largest of all."),
        Mistake("gave [CLS] and positions the base rate", edited(layerwise_lr_groups, (BELOW, BELOW + '\n        below = 0 if first in ("cls_token", "pos_embed") else below')), "`cls_token` and `pos_embed` belong to the embeddings, as the patch projection does."),
        Mistake("gave the final norm the rate of the embeddings", edited(layerwise_lr_groups, ('first in ("head", "norm")', 'first == "head"')), "The final norm stands above the last block, next to the head: base_lr."),
        Mistake("gave every norm the base rate", edited(layerwise_lr_groups, (BELOW, BELOW + '\n        below = 0 if "norm" in name else below')), "`norm1` and `norm2` belong to their block. Only the final norm, whose name starts with `norm.`, has the base rate."),
        Mistake("slowed the head down", edited(layerwise_lr_groups, (BELOW, BELOW + "\n        below = below + 1")), "The head learns at base_lr itself: decay to the power 0."),
        Mistake("multiplied by the layer in place of a power", edited(layerwise_lr_groups, (RATE, "base_lr * (decay * below if below else 1)")), "Each layer learns decay times as fast as the one above: a power, decay to the number of steps."),
        Mistake("divided by the decay", edited(layerwise_lr_groups, (RATE, "base_lr / decay**below")), "With a decay below one, lower layers get larger rates this way. Multiply."),
        Mistake("hard-coded twelve blocks", edited(layerwise_lr_groups, ("depth = len(blocks)", "depth = 12")), "The number of blocks is `len(model.blocks)`, not 12."),
        Mistake("hard-coded the decay", edited(layerwise_lr_groups, (RATE, "base_lr * 0.75**below")), "decay is an argument."),
        Mistake("read one digit of the block's number", edited(layerwise_lr_groups, ("int(rest[0])", "int(rest[0][0])")), "`blocks.10` and `blocks.11` have two digits. Split the name at its dots."),
        Mistake("sorted the blocks by their names", edited(layerwise_lr_groups, ("depth = len(blocks)", "depth = len(blocks)\n    order = sorted(str(i) for i in range(depth))"), ("int(rest[0])", "order.index(rest[0])")), 'As texts, "blocks.10" comes before "blocks.2". Sort by number, or do not sort.'),
        Mistake("took blocks.1 for blocks.10 as well", edited(layerwise_lr_groups, ("depth - int(rest[0])", "depth - next(i for i in range(depth) if name.startswith(f'blocks.{i}'))")), '"blocks.10" starts with "blocks.1" too. Compare up to the next dot.'),
        Mistake("forgot [CLS] and positions", edited(layerwise_lr_groups, ("if not parameter.requires_grad:", 'if not parameter.requires_grad or first in ("cls_token", "pos_embed"):')), "`cls_token` and `pos_embed` are parameters of the model itself, in no submodule. They would never learn."),
        Mistake("forgot the final norm", edited(layerwise_lr_groups, ("if not parameter.requires_grad:", 'if not parameter.requires_grad or first == "norm":')), "The final norm has parameters too: base_lr."),
        Mistake("forgot the biases", edited(layerwise_lr_groups, ("if not parameter.requires_grad:", 'if not parameter.requires_grad or name.endswith("bias"):')), "Biases are parameters: each belongs to its layer."),
        Mistake("put the head into two groups", edited(layerwise_lr_groups, ("    return [", "    layers[depth + 2] = list(model.head.parameters())\n    return [")), "Every parameter stands in one group. torch's optimizers refuse a second one."),
        Mistake("took frozen parameters in", edited(layerwise_lr_groups, ("if not parameter.requires_grad:", "if False:")), "Parameters with `requires_grad=False` are frozen on purpose. Leave them out."),
        Mistake("made frozen parameters trainable", edited(layerwise_lr_groups, ("if not parameter.requires_grad:", "parameter.requires_grad_()\n        if False:")), "Whoever froze a layer had a reason. Leave it frozen, and out of the groups."),
        Mistake("returned names for parameters", edited(layerwise_lr_groups, (".append(parameter)", ".append(name)")), "An optimizer wants the parameters themselves."),
        Mistake("put copies into the groups", edited(layerwise_lr_groups, (".append(parameter)", ".append(nn.Parameter(parameter.detach().clone()))")), "An optimizer would train copies, and the model would stay as it is. Put the parameters themselves in."),
        Mistake("returned a dict of groups", edited(layerwise_lr_groups, ('return [{"params": layers[below], "lr": base_lr * decay**below} for below in sorted(layers)]', 'return {below: {"params": layers[below], "lr": base_lr * decay**below} for below in sorted(layers)}')), 'torch.optim wants a list of dicts, each with "params" and "lr".'),
        Mistake("let a negative base_lr through", edited(layerwise_lr_groups, ("if base_lr <= 0", "if False")), "A negative rate climbs. Raise a ValueError that names base_lr and its value."),
        Mistake("let any decay through", edited(layerwise_lr_groups, ("if not 0 < decay <= 1", "if False")), "With a decay of 1.5 the lowest layers learn fastest, with a negative one every second layer climbs. Raise a ValueError."),
    ),
)  # fmt: skip

WATCHED = fine_tuning(64, steps=64, batch_size=8, lr=0.03)


def first(line: str) -> tuple[str, str]:
    """The edit that does something to the model before training."""
    return "torch.manual_seed(seed)", f"torch.manual_seed(seed)\n    {line}"


FINE_TUNE = Exercise(
    name="fine_tune",
    points=20,
    reference=fine_tune,
    minutes=40,
    difficulty=4,
    importance=5,
    probe=trained,
    seconds=60,
    trains=True,
    cases=(
        Group("returns its losses, and the first is near ln K", 1, (fine_tuning(100, steps=10, batch_size=20, lr=1e-7),), RUN, judge=starts_at_chance),
        Group("learns one batch by heart", 3, (fine_tuning(25, steps=80, batch_size=25, lr=0.03, kept={"floor": 0.95}),), RUN, judge=fits_one_batch),
        Group("moves every parameter", 2, (fine_tuning(100, steps=12, batch_size=20, lr=0.03),), RUN, judge=moves_everything),
        Group("trains in training mode, on new batches in every pass, with fresh gradients", 2, (WATCHED,), RUN, watched, steps_well),
        Group("has momentum and lets the learning rate fall", 2, (WATCHED,), RUN, watched, coasts),
        Group("clips gradients and lets nothing decay", 2, (WATCHED,), RUN, watched, clips_and_keeps),
        Group("gives the same result for the same seed", 2, (fine_tuning(60, steps=10, batch_size=10, lr=0.03),), RUN, repeated, repeats),
        Group("makes the loss fall", 1, (fine_tuning(100, steps=80, batch_size=20, lr=0.03, kept={"share": 0.6}),), RUN, judge=falls),
        Group("leaves a state that gives the same predictions elsewhere", 1, (fine_tuning(60, 50, steps=10, batch_size=20, lr=0.03),), RUN, judge=reproduces),
        Group("classifies new images as well as the reference, less a margin", 4, (fine_tuning(200, 797, steps=200, batch_size=25, lr=0.03, kept=enough("fine_tune")),), RUN, judge=generalises),
    ),
    mistakes=(
        Mistake("did not return a dict", edited(fine_tune, ('return {"loss": torch.stack(history).tolist()}', "return torch.stack(history).tolist()")), 'The result is a dict: `{"loss": [...]}`.'),
        Mistake("returned an empty list", edited(fine_tune, ("torch.stack(history).tolist()", "[]")), "Keep the loss of every step."),
        Mistake("returned tensors in a graph", edited(fine_tune, ("history.append(loss.detach())", "history.append(-loss)")), "Collect the loss itself, cut from its graph."),
        Mistake("trained a copy", edited(fine_tune, ("model.to", "model = __import__('copy').deepcopy(model).to")), "The caller keeps the model that you were given. Train that one, in place."),
        Mistake("trained the head only", edited(fine_tune, first("[p.requires_grad_(n.startswith('head')) for n, p in model.named_parameters()]")), "That is a linear probe. Full fine-tuning moves every parameter."),
        Mistake("froze the new head", edited(fine_tune, first("model.head.requires_grad_(False)")), "The head is new: it has the most to learn."),
        Mistake("threw the pre-trained blocks away", edited(fine_tune, first("[part.reset_parameters() for part in model.blocks.modules() if hasattr(part, 'reset_parameters')]")), "What pre-training learned is in the blocks. Start from it."),
        Mistake("took the position embedding out", edited(fine_tune, first("model.pos_embed.data.zero_()")), "Pre-training learned where patches are. Keep `pos_embed`, and train it on."),
        Mistake("kept old gradients", edited(fine_tune, ("        model.zero_grad()\n", "")), "`backward` adds to what is in `.grad`. Set the gradients to zero in each step."),
        Mistake("trained in evaluation mode", edited(fine_tune, (".train()", ".eval()")), "In evaluation mode dropout does nothing. Call `model.train()` before training."),
        Mistake("shuffled images without their labels", edited(fine_tune, ("labels[batch]", "labels[batch.sort().values]")), "Index images and labels with the same batch of numbers."),
        Mistake("used the same batch in every step", edited(fine_tune, ("batch, order = order[:batch_size], order[batch_size:]", "batch = order[:batch_size]")), "Each step takes the next batch, until all images have been seen."),
        Mistake("never shuffled", edited(fine_tune, ("order, history = torch.randperm(len(images))", "order, history = torch.arange(len(images))"), ("            order = torch.randperm(len(images))", "            order = torch.arange(len(images))")), "Equal batches in every pass repeat the same noise. Draw a new order for each."),
        Mistake("stopped half way", edited(fine_tune, ("range(steps)", "range(steps // 2)")), "`steps` counts updates: run all of them."),
        Mistake("left the momentum out", edited(fine_tune, ("velocities, rate)", "velocities, rate, momentum=0.0)")), "Momentum 0.9 carries the last ten or so gradients on. Use `sgd_momentum_step` with its velocities."),
        Mistake("started the velocities anew in every step", edited(fine_tune, ("        model.zero_grad()", "        velocities = [torch.zeros_like(parameter) for parameter in parameters]\n        model.zero_grad()")), "Velocities live from step to step: make them once, before the loop."),
        Mistake("kept the learning rate constant", edited(fine_tune, ("velocities, rate)", "velocities, lr)")), "A cosine brings the rate to zero at the last step."),
        Mistake("let the learning rate rise", edited(fine_tune, ("(1 + math.cos", "(1 - math.cos")), "Half a cosine from 1 down to 0 is (1 + cos(π t)) / 2."),
        Mistake("did not clip", edited(fine_tune, ("        nn.utils.clip_grad_norm_(parameters, 1.0)\n", "")), "One bad batch can undo what pre-training learned: clip the gradients at norm 1."),
        Mistake("added weight decay", edited(fine_tune, ("[parameter.grad for parameter in parameters]", "[parameter.grad + 0.1 * parameter.detach() for parameter in parameters]")), "Table 4 has no weight decay: it would pull the pre-trained weights to zero."),
        Mistake("took a learning rate 100 times too high", edited(fine_tune, ("rate = lr", "rate = 100 * lr")), "`lr` is the highest rate. A hundred times that destroys what pre-training learned."),
        Mistake("took a learning rate 100 times too low", edited(fine_tune, ("rate = lr", "rate = lr / 100")), "`lr` is the highest rate. With a hundredth of it the head hardly moves within its steps."),
        Mistake("took the softmax before the cross-entropy", edited(fine_tune, ("model(images[batch])", "model(images[batch]).softmax(1)")), "`F.cross_entropy` takes logits; it has the softmax inside."),
        Mistake("did not use the seed", edited(fine_tune, ("torch.manual_seed(seed)", "torch.seed()")), "Without a seed nobody can repeat your run. Seed what draws the order."),
        Mistake("fixed the seed", edited(fine_tune, ("torch.manual_seed(seed)", "torch.manual_seed(0)")), "The caller chooses the seed: runs with different seeds show how much is luck."),
    ),
)  # fmt: skip

# These cost little on 200 digits, so that no check of a run this small can tell; `make calibrate` shows it.
HARMLESS = (
    Mistake("averaged gradients instead of adding them up", edited(fine_tune, ("velocities, rate)", "velocities, rate)\n        [velocity.mul_(0.9) for velocity in velocities]")), "The velocity is 0.9 v + g."),
    Mistake("warmed up first", edited(fine_tune, ("/ steps)) / 2", "/ steps)) / 2 * min(1, 10 * (step + 1) / steps)")), "A pre-trained model needs no warm-up."),
)  # fmt: skip

ASSIGNMENT = Assignment(
    name="fine_tuning",
    title="Fine-tuning",
    chapter="10_fine_tuning",
    exercises=(REPLACE_HEAD, ADAPT, SGD_MOMENTUM_STEP, LAYERWISE, FINE_TUNE),
)
