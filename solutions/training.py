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
# # Training a ViT from scratch
#
# A Vision Transformer that has just been built knows nothing. This assignment makes the pieces that train
# it, one by one:
#
# | piece | answers the question |
# |---|---|
# | `smoothed_cross_entropy` | how wrong is the model on this batch? |
# | `warmup_cosine` | how large is the learning rate of this step? |
# | `weight_decay_groups` | which parameters are pulled towards zero, and which are not? |
# | `train_step` | what happens, and in which order, for one batch? |
# | `train` | how do the pieces make a model that knows digits? |
#
# The paper trained with all of them (Dosovitskiy et al., 2020, appendix B.1). Chapter 8 of the book explains
# every step and measures what each piece is worth.

# %% [markdown]
# ## How to work
#
# 1. Write your code where a cell says `Your code here`, and delete the line `raise NotImplementedError`.
# 2. Run the cell, then run the check below it. The check lists what your answer does right, in order, and
#    explains the first thing that is not right yet.
# 3. Stuck? Open one hint, close it, try again. The hints get more concrete from one to the next.
#
# Keep `checks.py` and `cases.safetensors` in the same folder as this notebook. Grading runs the same checks
# on other inputs. You may use all of PyTorch. Only in exercise 1 `F.cross_entropy` and
# `nn.CrossEntropyLoss` are not allowed: that one you write yourself.
#
# **What every answer owes its caller:** the result has the dtype and the device of the input, the input is
# not changed, gradients reach every input and parameter, and what does not fit is refused with an error.

# %%
import math
from collections import OrderedDict

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from checks import check
from torch import nn

# %% [markdown]
# The model is the assignment before this one. Here it is given, with the [CLS] token and without dropout.


# %%
class MultiHeadSelfAttention(nn.Module):
    """MSA with parameters qkv.* and proj.*: (B, N, D) to (B, N, D)."""

    def __init__(self, dim, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, z):
        q, k, v = self.qkv(z).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(q, k, v)
        return self.proj(heads.transpose(1, 2).flatten(2))


class EncoderBlock(nn.Module):
    """One block: z'_l = MSA(LN(z_{l-1})) + z_{l-1}, then z_l = MLP(LN(z'_l)) + z'_l."""

    def __init__(self, dim, num_heads, mlp_dim):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = MultiHeadSelfAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        layers = {"fc1": nn.Linear(dim, mlp_dim), "gelu": nn.GELU(), "fc2": nn.Linear(mlp_dim, dim)}
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, z):
        z = z + self.attn(self.norm1(z))
        return z + self.mlp(self.norm2(z))


class VisionTransformer(nn.Module):
    """Images (B, C, H, W) to logits (B, K); the head starts at zero."""

    def __init__(self, image_size, patch_size, in_channels, num_classes, dim, depth, num_heads, mlp_dim):
        super().__init__()
        projection = nn.Conv2d(in_channels, dim, kernel_size=patch_size, stride=patch_size)
        self.patch_embed = nn.Sequential(OrderedDict(proj=projection))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, (image_size // patch_size) ** 2 + 1, dim))
        self.blocks = nn.Sequential(*(EncoderBlock(dim, num_heads, mlp_dim) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images):
        tokens = self.patch_embed(images).flatten(2).transpose(1, 2)
        cls = self.cls_token.expand(images.shape[0], -1, -1)
        z = self.blocks(torch.cat([cls, tokens], dim=1) + self.pos_embed)
        return self.head(self.norm(z)[:, 0])


# %% [markdown]
# ## 1 · The loss, with smoothed labels
#
# The model gives $K$ logits $s$ for an image; $p = \text{softmax}(s)$ are its probabilities. Cross-entropy
# compares them with a target $q$, which is a distribution over the classes too:
#
# $$-\sum_{k=1}^K q_k \log p_k$$
#
# With plain labels $q$ is one-hot: 1 at the right class, 0 elsewhere. The loss then is least for logits that
# are infinitely far apart. *Label smoothing* (Szegedy et al., 2016) takes a share $\varepsilon$ away from the
# label and spreads it over **all** $K$ classes, the right one included:
#
# $$q_k = (1 - \varepsilon)\,[k = \text{label}] + \frac{\varepsilon}{K}$$
#
# Return the mean over the images of the batch. `smoothing` is $\varepsilon$, from 0 to 1. The loss has to
# be finite for any logits, also for ±10,000, which are rare but do come up. There must be one label for
# each image; if not, raise an error. `F.cross_entropy` and `nn.CrossEntropyLoss` are not allowed here.
#
# <details><summary>Hint 1: an example to compare with</summary>
#
# Equal logits mean $p_k = 1/K$. Then the loss is $\ln K$, whatever the labels and the smoothing.
# </details>
#
# <details><summary>Hint 2: large logits</summary>
#
# The exponential of 10,000 is infinite in floating point, and the logarithm of a probability that rounds to 0
# is too. Go from logits to $\log p$ without going through $p$: torch has functions for that, and
# $\log p_k = s_k - \log \sum_j e^{s_j}$.
# </details>
#
# <details><summary>Hint 3: two parts</summary>
#
# The sum splits up: $(1-\varepsilon)$ times minus the $\log p$ of the label, plus $\varepsilon$ times the
# mean of minus $\log p$ over all classes. `gather` picks one entry of each row.
# </details>


# %% exercise="smoothed_cross_entropy"
def smoothed_cross_entropy(logits, labels, smoothing):
    """Return the mean cross-entropy against smoothed labels, a tensor of shape ().

    logits: (B, K), labels: (B,) whole numbers, smoothing: a number from 0 to 1.
    Raises ValueError for another smoothing, and an error when there is not one label for each image.
    """
    ### BEGIN SOLUTION
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing must be from 0 to 1, got {smoothing}")
    if labels.shape != logits.shape[:1]:
        raise ValueError(f"{len(logits)} images need as many labels, got {tuple(labels.shape)}")
    log_p = logits.log_softmax(dim=-1)
    of_label = log_p.gather(1, labels[:, None]).squeeze(1)
    return -((1 - smoothing) * of_label + smoothing * log_p.mean(dim=-1)).mean()
    ### END SOLUTION


# %% check="smoothed_cross_entropy"
check(smoothed_cross_entropy)

# %% [markdown]
# **Try it.** Ten classes. The right one has a logit of $s$, the others 0. Without smoothing the loss
# falls for ever. With it there is a best $s$: a model that is surer than that pays.

# %%
scores = torch.linspace(0, 15, 200)
logits = torch.zeros(200, 10)
logits[:, 3] = scores
figure, axes = plt.subplots(figsize=(5, 2.6))
for share in (0.0, 0.1, 0.3):
    losses = [smoothed_cross_entropy(row[None], torch.tensor([3]), share).item() for row in logits]
    axes.plot(scores, losses, label=f"smoothing {share}")
axes.set(xlabel="logit of the right class", ylabel="loss")
axes.legend()
plt.show()

# %% [markdown]
# ## 2 · The learning rate of a step
#
# The first gradients of a new model point anywhere, and Adam's averages are not warm yet. So the learning
# rate starts at 0 and rises in a straight line to its peak during `warmup_steps`. After that it falls,
# along half a period of a cosine (Loshchilov & Hutter, 2017), to `final_lr` at the very last step:
#
# $$\text{lr}(t) = \begin{cases}
#   \text{peak} \cdot t / W & t < W \\
#   \text{final} + (\text{peak} - \text{final}) \, \tfrac{1 + \cos \pi p}{2},
#   \quad p = \tfrac{t - W}{T - W} & t \ge W
# \end{cases}$$
#
# $t$ is `step`, from 0 to `total_steps` $= T$, both included; $W$ is `warmup_steps`. A step outside is a
# bug of the caller: raise a `ValueError` that names `step` and its value. Take care of the two ends of
# $W$: without warm-up ($W = 0$) the schedule starts at the peak, and with $W = T$ the last step is the
# peak.
#
# <details><summary>Hint 1: three numbers to compare with</summary>
#
# T = 20, W = 5, peak 1, final 0: step 1 gives 0.2, step 5 gives 1, and half-way through the fall, at step
# 12.5, it would be 0.5.
# </details>
#
# <details><summary>Hint 2: where a zero can be divided by</summary>
#
# Use the line only where t < W; then W cannot be 0. For W = T the fraction (t - W) / (T - W) is 0 / 0:
# treat that case by itself.
# </details>


# %% exercise="warmup_cosine"
def warmup_cosine(step, total_steps, warmup_steps, peak_lr, final_lr=0.0):
    """Return the learning rate of a step, a float.

    Rises from 0 to peak_lr at step warmup_steps, then falls along half a cosine to final_lr at step
    total_steps. Raises ValueError for a step that is not from 0 to total_steps.
    """
    ### BEGIN SOLUTION
    if not 0 <= step <= total_steps:
        raise ValueError(f"step must be from 0 to {total_steps}, got {step}")
    if step < warmup_steps:
        return peak_lr * step / warmup_steps
    if warmup_steps == total_steps:
        return peak_lr
    progress = (step - warmup_steps) / (total_steps - warmup_steps)  # 0 at the peak, 1 at the end
    return final_lr + (peak_lr - final_lr) * (1 + math.cos(math.pi * progress)) / 2
    ### END SOLUTION


# %% check="warmup_cosine"
check(warmup_cosine)

# %% [markdown]
# **Try it.** Three schedules of 1000 steps. Change the numbers. What is the mean learning rate, compared with
# the peak?

# %%
figure, axes = plt.subplots(figsize=(5, 2.6))
for warm, last in ((0, 0.0), (100, 0.0), (300, 2e-4)):
    lrs = [warmup_cosine(step, 1000, warm, 1e-3, last) for step in range(1001)]
    axes.plot(lrs, label=f"warm-up {warm}, final {last:g}")
    print(f"warm-up {warm:3}: mean learning rate {sum(lrs) / len(lrs):.2e}")
axes.set(xlabel="step", ylabel="learning rate")
axes.legend()
plt.show()

# %% [markdown]
# ## 3 · Which weights decay
#
# Weight decay pulls parameters towards zero in every step. For the matrices of a model that is a mild
# push towards simple functions. For others it makes no sense: the weight of a norm starts at 1 and
# belongs there, a bias only shifts, and [CLS] and the position embedding are learned vectors, inputs
# rather than weights of a layer.
#
# So an optimizer gets two groups, each a dict:
#
# | | `"params"` | `"weight_decay"` |
# |---|---|---|
# | first group | everything that is not in the second | the given `weight_decay` |
# | second group | biases, weights of norms, `cls_token`, `pos_embed` | `0.0`, written out |
#
# * Every trainable parameter is in exactly one group, also a weight that two layers share.
# * Frozen parameters (`requires_grad` is `False`) are in none.
# * Not every norm is *called* norm, and not everything with norm in its name is one.
# * The model may be part of a larger one. Its token then is called `backbone.cls_token`, or the like.
# * The model itself is only looked at, not changed.
#
# Why write out the `0.0`? A group that says nothing gets the optimizer's default, and for `AdamW` that is
# 0.01.
#
# <details><summary>Hint 1: how to walk through a model</summary>
#
# `model.named_parameters()` yields pairs of name and parameter, each parameter once even if it is shared.
# The part of a name after the last dot is its own name.
# </details>
#
# <details><summary>Hint 2: how to know a norm</summary>
#
# Look at the dimensions: the weight of a linear layer is a matrix, the kernel of a convolution has four
# dimensions. Biases and the weights of norms are vectors. Only the tokens need their names.
# </details>


# %% exercise="weight_decay_groups"
def weight_decay_groups(model, weight_decay):
    """Return two groups of parameters for an optimizer, the one with weight decay first.

    Each is a dict with "params" (a list of parameters) and "weight_decay".
    """
    ### BEGIN SOLUTION
    decay, no_decay = [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        own_name = name.split(".")[-1]
        vector = parameter.ndim <= 1  # biases and the weights of norms
        special = vector or own_name in ("cls_token", "pos_embed")
        (no_decay if special else decay).append(parameter)
    return [{"params": decay, "weight_decay": weight_decay}, {"params": no_decay, "weight_decay": 0.0}]
    ### END SOLUTION


# %% check="weight_decay_groups"
check(weight_decay_groups)

# %% [markdown]
# **Try it.** How much of a small ViT is left without decay? Few numbers, but many tensors.

# %%
model = VisionTransformer(16, 4, 1, num_classes=3, dim=32, depth=2, num_heads=4, mlp_dim=64)
for group in weight_decay_groups(model, 0.05):
    count = sum(parameter.numel() for parameter in group["params"])
    print(f"weight decay {group['weight_decay']}: {len(group['params'])} tensors, {count} numbers")

# %% [markdown]
# ## 4 · One training step
#
# Now one batch, from images to changed parameters:
#
# 1. Put the model into training mode, whatever mode it was in.
# 2. Forget the gradients of earlier steps: `backward` *adds* to what is there.
# 3. Forward pass and mean cross-entropy (plain, without smoothing). If `autocast_dtype` is given,
#    run this part, and only this part, under `torch.autocast` with that dtype, on the device of the images.
# 4. Backward pass.
# 5. Unless `max_grad_norm` is `None`, *clip*: take the gradients of all the model's parameters as one
#    long vector. If its length is above `max_grad_norm`, scale all of them by one factor, so that it is
#    `max_grad_norm`. If not, leave them alone. Frozen and unused parameters have no gradient, and that is
#    fine.
# 6. Let the optimizer take its step.
#
# Return the loss of step 3, before the update, as a Python float. Here `F.cross_entropy` is allowed.
#
# <details><summary>Hint 1: who does what</summary>
#
# The optimizer has a method that forgets gradients and one that takes a step. `nn.utils` has a function
# that clips the norm; its name ends in an underscore because it works in place.
# </details>
#
# <details><summary>Hint 2: autocast on request</summary>
#
# `torch.autocast` is a context manager: device type (a word such as "cpu", from `images.device`), dtype, and
# `enabled`, which may be False.
# </details>
#
# <details><summary>Hint 3: a float</summary>
#
# A tensor of one value has a method that gives the value as a number. Return a number and not the tensor:
# the tensor would keep the graph of this step in memory.
# </details>


# %% exercise="train_step"
def train_step(model, images, labels, optimizer, max_grad_norm=1.0, autocast_dtype=None):
    """Train the model on one batch; return its mean cross-entropy before the update, a float.

    images: (B, C, H, W), labels: (B,). max_grad_norm: a number or None (no clipping). autocast_dtype: a
    dtype such as torch.bfloat16, or None (no autocast).
    """
    ### BEGIN SOLUTION
    model.train()
    optimizer.zero_grad()
    with torch.autocast(images.device.type, dtype=autocast_dtype, enabled=autocast_dtype is not None):
        loss = F.cross_entropy(model(images), labels)
    loss.backward()
    if max_grad_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    optimizer.step()
    return loss.item()
    ### END SOLUTION


# %% check="train_step"
check(train_step)

# %% [markdown]
# **Try it.** All pieces at work. The images are bars and blobs at random places, with noise: a toy of three
# classes. One run gets the same batch in every step. That is the first test of a new training loop: can it
# learn *one* batch by heart? The other run gets 150 batches, each once.


# %%
def toy(count, seed):
    """Return images (count, 1, 16, 16) and labels: 0 lying bar, 1 standing bar, 2 square."""
    random = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(count, 1, 16, 16, generator=random)
    labels = torch.randint(3, (count,), generator=random)
    for image, label in zip(images, labels.tolist(), strict=True):
        height, width = ((2, 8), (8, 2), (4, 4))[label]
        top = torch.randint(17 - height, (), generator=random)
        left = torch.randint(17 - width, (), generator=random)
        image[0, top : top + height, left : left + width] += 1
    return images, labels


images, labels = toy(32, seed=0)
figure, axes = plt.subplots(1, 6, figsize=(6, 1.2))
for axis, image in zip(axes, images, strict=False):
    axis.imshow(image[0], cmap="gray")
    axis.axis("off")
plt.show()


# %%
def try_out(batches, steps=150):
    """Train a new small ViT on batches; return it and its losses."""
    torch.manual_seed(0)
    model = VisionTransformer(16, 4, 1, num_classes=3, dim=32, depth=2, num_heads=4, mlp_dim=64)
    adamw = torch.optim.AdamW(weight_decay_groups(model, 0.05), lr=0.0)
    losses = []
    for step in range(steps):
        for group in adamw.param_groups:
            group["lr"] = warmup_cosine(step, steps, steps // 10, 3e-3)
        losses.append(train_step(model, *batches[step % len(batches)], adamw))
    return model.eval(), losses


new_images, new_labels = toy(500, seed=1)
many = [toy(32, seed=number) for number in range(2, 152)]
figure, axes = plt.subplots(figsize=(5, 2.6))
for name, batches in (("one batch", [(images, labels)]), ("150 batches", many)):
    model, losses = try_out(batches)
    with torch.no_grad():
        right = [(model(x).argmax(1) == y).float().mean() for x, y in (batches[0], (new_images, new_labels))]
    print(f"{name}: first loss {losses[0]:.4f}, last {losses[-1]:.4f}; ln 3 = {math.log(3):.4f}")
    print(f"    right on its first batch {right[0]:.0%}, on new images {right[1]:.0%}")
    axes.plot(losses, label=name)
axes.set(xlabel="step", ylabel="loss")
axes.legend()
plt.show()

# %% [markdown]
# The first loss is ln 3, since the head starts at zero. The one batch is learned by heart, and that helps
# little with new images. For those, the same number of steps on more images is worth more.

# %% [markdown]
# ## 5 · A whole run
#
# `train(model, images, labels, *, epochs, batch_size, peak_lr, weight_decay, seed, device)` puts the pieces
# together. It trains `model` in place and returns `{"loss": [...]}`, the mean loss of each epoch as a number.
#
# * Seed first, so that the same seed gives the same result and another one another.
# * Every epoch goes through all images, in a new random order, `batch_size` at a time. Images keep their
#   labels.
# * AdamW with your groups. The learning rate is set before every step: warm-up over the first tenth of all
#   steps up to `peak_lr`, then the cosine to zero.
# * Each step as in `train_step`. On a GPU (`device` is "cuda") the forward pass runs under bfloat16 autocast.
#
# This answer is not compared with numbers. It is *used*: the check lets it train a small model and looks at
# what came out. It asks what you should ask of every training loop:
#
# 1. Is the first loss near ln K?
# 2. Can it learn one batch by heart?
# 3. Does every parameter move?
# 4. Is the model in training mode, are the batches new in every epoch, are old gradients gone?
# 5. Does the loss fall, and how many *new* images are classified right?
#
# The check trains several times and takes 10 to 30 seconds. Grading does the same with other digits, other
# classes and a label list that your code never sees.
#
# <details><summary>Hint 1: counting steps</summary>
#
# An epoch has `math.ceil(len(images) / batch_size)` steps. Count them from 1 through all epochs, and ask
# `warmup_cosine` for each one.
# </details>
#
# <details><summary>Hint 2: a new order</summary>
#
# `torch.randperm(n)` is a random order of n numbers. `.split(batch_size)` cuts it into batches. Use a batch
# of numbers to index images *and* labels.
# </details>
#
# <details><summary>Hint 3: the mean over an epoch</summary>
#
# The last batch may be smaller. Add up loss times batch length, and divide by the number of images.
# </details>
#
# <details><summary>Hint 4: fast on a GPU</summary>
#
# A GPU works behind Python's back, until Python asks for a number: `.item()` waits for all that is queued.
# So do not call `train_step` in the loop, which returns a number; write its lines here and add up
# `loss.detach()`. Ask for the number once an epoch. Move all images to the device before the loop.
# </details>


# %% exercise="train"
def train(model, images, labels, *, epochs, batch_size, peak_lr, weight_decay, seed, device):
    """Train the model in place; return {"loss": the mean loss of each epoch}.

    images: (n, C, H, W), labels: (n,). device: a word such as "cpu" or "cuda".
    """
    ### BEGIN SOLUTION
    torch.manual_seed(seed)
    model.to(device).train()
    images, labels = images.to(device), labels.to(device)
    optimizer = torch.optim.AdamW(weight_decay_groups(model, weight_decay), lr=peak_lr)
    total_steps = epochs * math.ceil(len(images) / batch_size)
    step, history = 0, []
    for _ in range(epochs):
        total = torch.zeros((), device=device)
        for batch in torch.randperm(len(images)).to(device).split(batch_size):
            step += 1
            for group in optimizer.param_groups:
                group["lr"] = warmup_cosine(step, total_steps, total_steps // 10, peak_lr)
            optimizer.zero_grad()
            with torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda):
                loss = F.cross_entropy(model(images[batch]), labels[batch])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total += loss.detach() * len(batch)
        history.append(total.item() / len(images))
    return {"loss": history}
    ### END SOLUTION


# %% check="train"
check(train)

# %% [markdown]
# **Try it.** The toy again, with 50, 200 or 800 images and the same number of steps. Does the loss on the
# training images tell how good the model is on new ones? Try fewer images.

# %%
for count in (50, 200, 800):
    torch.manual_seed(0)
    model = VisionTransformer(16, 4, 1, num_classes=3, dim=32, depth=2, num_heads=4, mlp_dim=64)
    images, labels = toy(count, seed=3)
    history = train(
        model, images, labels, epochs=3200 // count, batch_size=25,
        peak_lr=3e-3, weight_decay=0.05, seed=0, device="cpu",
    )  # fmt: skip
    with torch.no_grad():
        right = (model.eval()(new_images).argmax(1) == new_labels).float().mean()
    print(f"{count} images: last loss {history['loss'][-1]:.3f}, new images right {right:.0%}")

# %% [markdown]
# ## What you know now
#
# * Cross-entropy is computed from log-probabilities, and smoothing gives every class a share of the target.
# * The learning rate is a function of the step: up in a straight line, down along half a cosine.
# * Matrices decay; biases, norms, [CLS] and positions do not, and the zero has to be written out.
# * The order of a step matters: mode, old gradients, forward, backward, clip, step.
# * A training loop earns trust by passing tests: ln K at the start, one batch by heart, the same result for
#   the same seed.
#
# Next: the assignment `fine_tuning` starts from a model that has been trained already.
