# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Fine-tuning
#
# Nobody trains a large Vision Transformer from scratch for a thousand images. One takes a model that has
# seen millions, and goes on training it on the new task: *fine-tuning*. The new task has other classes, and
# often larger images. This assignment builds what that needs, piece by piece.
#
# | | pre-training (Dosovitskiy et al., 2021, Table 3) | fine-tuning (Table 4) |
# |---|---|---|
# | head | for the old classes | new, all zeros |
# | image | 224 × 224 | 384 × 384 |
# | positions | learned | interpolated to the new grid, then learned on |
# | optimizer | Adam, weight decay | SGD with momentum 0.9, no weight decay |
# | batch | 4096 | 512 |
#
# Chapter 10 of the book explains every step.

# %% [markdown]
# ## How to work
#
# 1. Write your code where a cell says `Your code here`, and delete the line `raise NotImplementedError`.
# 2. Run the cell, then run the check below it. The check lists what your answer does right, in order, and
#    explains the first thing that is not right yet.
# 3. Stuck? Open one hint, close it, try again. The hints get more concrete from one to the next.
#
# Keep `checks.py` and `cases.safetensors` in the same folder as this notebook. Grading runs the same checks
# on other inputs. You may use all of PyTorch, but in exercise 3 not its own SGD.
#
# **What every answer owes its caller:** the result has the dtype and the device of the input, nothing changes
# that the text does not say, and what does not fit is refused with a `ValueError` that names the argument and
# its value.

# %%
import math
from collections import OrderedDict

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from checks import check
from torch import nn

# %% [markdown]
# The model is given. Its parameters have the names of the earlier assignments.


# %%
class SelfAttention(nn.Module):
    """Multi-head self-attention: (B, N, D) to (B, N, D)."""

    def __init__(self, dim, num_heads):
        super().__init__()
        self.num_heads, self.qkv, self.proj = num_heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, z):
        q, k, v = self.qkv(z).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class EncoderBlock(nn.Module):
    """An encoder block: attention, then an MLP, each with a norm before it and a residual around it."""

    def __init__(self, dim, num_heads, mlp_dim):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = SelfAttention(dim, num_heads)
        layers = {"fc1": nn.Linear(dim, mlp_dim), "gelu": nn.GELU(), "fc2": nn.Linear(mlp_dim, dim)}
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, z):
        z = z + self.attn(self.norm1(z))
        return z + self.mlp(self.norm2(z))


class VisionTransformer(nn.Module):
    """Images (B, C, H, W) to logits (B, K); image_size is one number or (height, width)."""

    def __init__(self, image_size, patch_size, in_channels, num_classes, dim, depth, num_heads, mlp_dim):
        super().__init__()
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        count = (height // patch_size) * (width // patch_size)
        projection = nn.Conv2d(in_channels, dim, patch_size, patch_size)
        self.patch_embed = nn.Sequential(OrderedDict(proj=projection))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, count + 1, dim))
        self.blocks = nn.Sequential(*(EncoderBlock(dim, num_heads, mlp_dim) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images):
        tokens = self.patch_embed(images).flatten(2).transpose(1, 2)
        z = torch.cat([self.cls_token.expand(len(images), -1, -1), tokens], dim=1) + self.pos_embed
        return self.head(self.norm(self.blocks(z))[:, 0])


# %% [markdown]
# ## 1 · A new head
#
# The head of a pre-trained model answers the old question, for example which of 21,843 classes it is. For
# the new task it is thrown away, and a linear layer of zeros takes its place.
#
# `replace_head(model, num_classes)` changes the model in place and returns it. The new `model.head` has a
# weight (num_classes, D) and a bias (num_classes,), both zero and trainable, with the dtype and the device
# of the old ones. All other parameters stay as they are: the same objects, frozen if they were frozen. Even
# when the number of classes happens to be the same, the head is new: these are other classes.
#
# A `num_classes` that is not positive is refused with a `ValueError`.
#
# <details><summary>Hint 1: how wide?</summary>
#
# `model.head.in_features` is D.
# </details>
#
# <details><summary>Hint 2: dtype and device</summary>
#
# `nn.Linear` takes both as arguments. `model.head.weight` knows them.
# </details>


# %% exercise="replace_head"
def replace_head(model, num_classes):
    """Put a new head of zeros into the model, in place, and return the model.

    Raises ValueError when num_classes is not positive.
    """
    ### BEGIN SOLUTION
    if num_classes < 1:
        raise ValueError(f"num_classes must be positive, got {num_classes}")
    old = model.head
    model.head = nn.Linear(old.in_features, num_classes, dtype=old.weight.dtype, device=old.weight.device)
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    return model
    ### END SOLUTION


# %% check="replace_head"
check(replace_head)

# %% [markdown]
# **Try it.** With a head of zeros no class is preferred. What is the first loss for 4 classes?

# %%
torch.manual_seed(0)
sizes = {"patch_size": 4, "in_channels": 1, "dim": 32, "depth": 2, "num_heads": 4, "mlp_dim": 64}
model = VisionTransformer(16, num_classes=100, **sizes)
nn.init.normal_(model.head.weight)  # as if it had been trained
images, labels = torch.randn(8, 1, 16, 16), torch.randint(4, (8,))
before = F.cross_entropy(model(images), labels).item()
after = F.cross_entropy(replace_head(model, 4)(images), labels).item()
print(f"loss with the old head {before:.3f}, with the new one {after:.3f}")
print(f"log 4 = {torch.tensor(4.0).log().item():.3f}")

# %% [markdown]
# ## 2 · A checkpoint for another task and another image size
#
# Often the weights come as a file: a *state dict*, which maps names to tensors. For images of another size
# it does not fit, since there is one position for each patch. `adapt_state_dict(state_dict, patch_size,
# old_image_size, new_image_size, num_classes)` returns a new dict in which
#
# * `pos_embed` (1, 1 + h·w, D) is interpolated to the new grid: bicubic, `align_corners=False`, no
#   antialiasing. Entry 0 belongs to [CLS], which has no place in the image: it stays as it is. The others
#   go row by row.
# * `head.weight` (num_classes, D) and `head.bias` (num_classes,) are zeros, always. Some checkpoints have no
#   head; the result has one.
# * everything else is as it was.
#
# The old dict and its tensors are not changed. Image sizes are one number or (height, width), in pixels.
# Sizes that are not positive, that `patch_size` does not divide or that do not belong to `pos_embed`, and a
# `num_classes` that is not positive are refused with a `ValueError`.
#
# <details><summary>Hint 1: the grid</summary>
#
# A grid is (height // patch_size, width // patch_size). The old one must hold `pos_embed.shape[1] - 1`
# patches.
# </details>
#
# <details><summary>Hint 2: positions as a picture</summary>
#
# `F.interpolate` wants (1, D, h, w). Move D to the front *before* you split h·w into h and w. You wrote
# this in chapter 3's assignment, as `interpolate_position_embedding`.
# </details>
#
# <details><summary>Hint 3: a new dict</summary>
#
# `dict(state_dict)` is a new dict with the same tensors. Put new tensors into it; do not write into the old
# ones. `tensor.new_zeros(shape)` has the dtype and device of `tensor`.
# </details>


# %% exercise="adapt_state_dict"
def adapt_state_dict(state_dict, patch_size, old_image_size, new_image_size, num_classes):
    """Return a new state dict for images of another size and another number of classes.

    Raises ValueError when a size or num_classes is not positive, patch_size does not divide a size, or
    old_image_size does not belong to pos_embed.
    """
    ### BEGIN SOLUTION
    if num_classes < 1:
        raise ValueError(f"num_classes must be positive, got {num_classes}")
    if patch_size < 1:
        raise ValueError(f"patch_size must be positive, got {patch_size}")
    grids = []
    for name, size in (("old_image_size", old_image_size), ("new_image_size", new_image_size)):
        height, width = (size, size) if isinstance(size, int) else size
        if min(height, width) < 1 or height % patch_size or width % patch_size:
            raise ValueError(f"{name} {size} does not fit patch_size {patch_size}")
        grids.append((height // patch_size, width // patch_size))
    (h, w), new_grid = grids
    old = state_dict["pos_embed"]
    if old.shape[1] != 1 + h * w:
        raise ValueError(
            f"old_image_size {old_image_size}: {h * w} patches, pos_embed has {old.shape[1] - 1}"
        )
    picture = old[:, 1:].transpose(1, 2).unflatten(2, (h, w))  # (1, D, h, w)
    picture = F.interpolate(picture, size=new_grid, mode="bicubic", align_corners=False)
    adapted = dict(state_dict)
    adapted["pos_embed"] = torch.cat([old[:, :1], picture.flatten(2).transpose(1, 2)], dim=1)
    adapted["head.weight"] = old.new_zeros(num_classes, old.shape[-1])
    adapted["head.bias"] = old.new_zeros(num_classes)
    return adapted
    ### END SOLUTION


# %% check="adapt_state_dict"
check(adapt_state_dict)

# %% [markdown]
# **Try it.** A model for 16 × 16 pixels becomes one for 24 × 40. The pictures show one of the D entries of
# all positions before and after.

# %%
small = VisionTransformer(16, num_classes=100, **sizes)
wide = VisionTransformer((24, 40), num_classes=10, **sizes)
wide.load_state_dict(adapt_state_dict(small.state_dict(), 4, 16, (24, 40), 10))
print("positions:", tuple(small.pos_embed.shape), "to", tuple(wide.pos_embed.shape))
print("logits:", tuple(wide(torch.randn(1, 1, 24, 40)).shape))

figure, axes = plt.subplots(1, 2, figsize=(5, 2))
for axis, grid_model, grid in ((axes[0], small, (4, 4)), (axes[1], wide, (6, 10))):
    axis.imshow(grid_model.pos_embed[0, 1:, 0].detach().reshape(grid), cmap="viridis")
    axis.set(title=f"{grid[0]} x {grid[1]} patches", xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## 3 · SGD with momentum
#
# The paper fine-tunes with stochastic gradient descent and momentum. Each parameter $p$ has a velocity $v$,
# zero at first. With the gradient $g$, one step is
#
# $$v \leftarrow \mu\, v + g, \qquad p \leftarrow p - \eta\, v$$
#
# `sgd_momentum_step(params, grads, velocities, lr, momentum=0.9)` gets three lists of the same length and
# does one step for each parameter. It writes **into the tensors** of `params` and `velocities`, since the
# model holds the same ones, and returns nothing. Gradients and lists stay as they are.
#
# * Parameters may require gradients: the update must happen outside autograd.
# * Where the gradient is `None`, parameter *and* velocity stay as they are.
# * A negative `lr`, and a `momentum` below 0 or not below 1, are refused with a `ValueError`; lists of
#   different lengths with any error.
#
# <details><summary>Hint 1: in place</summary>
#
# `v = 0.9 * v` makes a new tensor. `v.mul_(0.9)` and `v *= 0.9` change the one that is there.
# </details>
#
# <details><summary>Hint 2: outside autograd</summary>
#
# `with torch.no_grad():` around the update, or `@torch.no_grad()` above the function.
# </details>


# %% exercise="sgd_momentum_step"
def sgd_momentum_step(params, grads, velocities, lr, momentum=0.9):
    """Update parameters and velocities in place: v = momentum * v + g, then p = p - lr * v.

    Raises ValueError when lr is negative or momentum is not in [0, 1).
    """
    ### BEGIN SOLUTION
    if lr < 0:
        raise ValueError(f"lr must not be negative, got {lr}")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1), got {momentum}")
    with torch.no_grad():  # the update is no part of the function that is differentiated
        for p, g, v in zip(params, grads, velocities, strict=True):
            if g is not None:
                v.mul_(momentum).add_(g)
                p.sub_(lr * v)
    ### END SOLUTION


# %% check="sgd_momentum_step"
check(sgd_momentum_step)

# %% [markdown]
# **Try it.** A valley that is steep in one direction and flat in the other. How far do 40 steps get with
# and without momentum?

# %%
figure, axis = plt.subplots(figsize=(5, 2.6))
for momentum in (0.0, 0.9):
    point, velocity, path = torch.tensor([-3.0, 1.0]), torch.zeros(2), []
    for _ in range(40):
        path.append(point.tolist())
        gradient = torch.tensor([0.05, 1.0]) * point  # of 0.025 x² + 0.5 y²
        sgd_momentum_step([point], [gradient], [velocity], lr=0.3, momentum=momentum)
    axis.plot(*zip(*path, strict=True), ".-", label=f"momentum {momentum}")
axis.plot(0, 0, "k*")
axis.legend(loc="lower right")
plt.show()

# %% [markdown]
# ## 4 · A learning rate for each layer
#
# The lowest layers of a pre-trained model see edges and places: they fit the new task already. The highest
# ones were made for the old task. So one may let lower layers learn more slowly: each layer `decay` times as
# fast as the one above it. With L blocks, counted from 0:
#
# | parameters | learning rate |
# |---|---|
# | `head.*`, `norm.*` | base_lr |
# | `blocks.{i}.*` | base_lr · decay^(L − i) |
# | `patch_embed.*`, `cls_token`, `pos_embed` | base_lr · decay^(L + 1) |
#
# `layerwise_lr_groups(model, base_lr, decay)` returns what every optimizer of `torch.optim` takes: a list of
# dicts, each with `"params"` and `"lr"`. Every trainable parameter is in exactly one of them, frozen ones in
# none. Whether you make a group for each layer or for each parameter is up to you. `base_lr` must be
# positive, and `decay` above 0 and at most 1; anything else is refused with a `ValueError`.
#
# <details><summary>Hint 1: which layer?</summary>
#
# `model.named_parameters()` gives names. `name.split(".")` takes them apart: the second part of
# `blocks.10.norm1.weight` is the number of the block.
# </details>
#
# <details><summary>Hint 2: exponents</summary>
#
# Count the steps down from the head: 0 for head and norm, L − i for block i, L + 1 for all the rest.
# </details>


# %% exercise="layerwise_lr_groups"
def layerwise_lr_groups(model, base_lr, decay):
    """Return optimizer groups in which lower layers learn more slowly.

    Raises ValueError when base_lr is not positive or decay is not in (0, 1].
    """
    ### BEGIN SOLUTION
    if base_lr <= 0:
        raise ValueError(f"base_lr must be positive, got {base_lr}")
    if not 0 < decay <= 1:
        raise ValueError(f"decay must be in (0, 1], got {decay}")
    depth, groups = len(model.blocks), {}
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        if parts[0] in ("head", "norm"):
            steps = 0
        elif parts[0] == "blocks":
            steps = depth - int(parts[1])
        else:
            steps = depth + 1
        if parameter.requires_grad:
            groups.setdefault(steps, []).append(parameter)
    return [{"params": params, "lr": base_lr * decay**steps} for steps, params in groups.items()]
    ### END SOLUTION


# %% check="layerwise_lr_groups"
check(layerwise_lr_groups)

# %% [markdown]
# **Try it.** The rates of a model with twelve blocks. How much slower do the embeddings learn than the head?

# %%
deep = VisionTransformer(16, num_classes=10, **{**sizes, "depth": 12})
for decay in (1.0, 0.9, 0.75):
    groups = layerwise_lr_groups(deep, 0.01, decay)
    rates = sorted(group["lr"] for group in groups)
    print(f"decay {decay}: from {rates[-1]:.5f} at the head to {rates[0]:.5f} in the embeddings")
optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9)
print(sum(len(group["params"]) for group in optimizer.param_groups), "tensors in the optimizer")

# %% [markdown]
# ## 5 · A whole run
#
# `fine_tune(model, images, labels, *, steps, batch_size, lr, seed, device)` trains `model` in place. The
# model is pre-trained and has its new head already. It returns `{"loss": [...]}`, the loss of each step
# as a number.
#
# * Seed first, so that the same seed gives the same result and another one another.
# * Short runs are counted in steps, not in epochs. Take the images in random order, `batch_size` at a time;
#   when they are used up, draw a new order.
# * The paper's recipe (Table 4): SGD with momentum 0.9, no weight decay, gradients clipped at norm 1, and a
#   learning rate that follows a cosine from `lr` in the first step down to zero.
# * All parameters are trained, from the patch projection to the head.
#
# As in the assignment before, this answer is *used*: the check lets it fine-tune a small model that was
# pre-trained on fractals, pictures drawn by a formula, and looks at what came out. That takes 10 to 40
# seconds. Grading does the same with other digits, other classes and labels that your code never sees.
#
# <details><summary>Hint 1: batches without epochs</summary>
#
# Keep an order of numbers. Each step takes the first `batch_size` of them off. When fewer are left, make
# a new order with `torch.randperm`.
# </details>
#
# <details><summary>Hint 2: half a cosine</summary>
#
# (1 + cos(π · step / steps)) / 2 goes from 1 to 0.
# </details>
#
# <details><summary>Hint 3: velocities</summary>
#
# `sgd_momentum_step` needs one velocity for each parameter, made of zeros *before* the loop. Gradients are in
# `.grad` after `backward`; clip them before the step.
# </details>


# %% exercise="fine_tune"
def fine_tune(model, images, labels, *, steps, batch_size, lr, seed, device):
    """Fine-tune all of the model in place; return {"loss": the loss of each step}.

    images: (n, C, H, W), labels: (n,). device: a word such as "cpu" or "cuda".
    """
    ### BEGIN SOLUTION
    torch.manual_seed(seed)
    model.to(device).train()
    images, labels = images.to(device), labels.to(device)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    velocities = [torch.zeros_like(parameter) for parameter in parameters]
    order, history = torch.randperm(len(images)).to(device), []
    for step in range(steps):
        if step and len(order) < batch_size:
            order = torch.randperm(len(images)).to(device)
        batch, order = order[:batch_size], order[batch_size:]
        model.zero_grad()
        loss = F.cross_entropy(model(images[batch]), labels[batch])
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        rate = lr * (1 + math.cos(math.pi * step / steps)) / 2
        sgd_momentum_step(parameters, [parameter.grad for parameter in parameters], velocities, rate)
        history.append(loss.detach())
    return {"loss": torch.stack(history).tolist()}
    ### END SOLUTION


# %% check="fine_tune"
check(fine_tune)

# %% [markdown]
# **Try it.** The check carries 200 digits and the pre-trained weights with it. What is pre-training on
# fractals worth? The same model from scratch gets the same images and the same number of steps.

# %%
digits = check.exercises["fine_tune"]["cases"][-1]["inputs"]
for start in ("fractals", "scratch"):
    torch.manual_seed(0)
    model = VisionTransformer(**digits["_model"])
    if start == "fractals":
        model.load_state_dict(digits["_state"])
    history = fine_tune(
        model, digits["images"], digits["labels"],
        steps=digits["steps"], batch_size=digits["batch_size"], lr=digits["lr"], seed=0, device="cpu",
    )  # fmt: skip
    with torch.no_grad():
        guess = model.eval()(digits["_test_images"]).argmax(1)
    right = (guess == digits["_kept"]["labels"]).float().mean()
    print(f"from {start}: last loss {history['loss'][-1]:.3f}, new digits right {right:.0%}")

# %% [markdown]
# A formula drew the pictures of pre-training, and no digit was among them. Chapter 10 repeats this with
# 10, 50 and 200 labelled images and several seeds, gives training from scratch its own best learning
# rate, and asks whether a linear probe would do.
