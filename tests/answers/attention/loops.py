"""Plain Python loops: over rows, over queries and keys, over heads."""

import torch
from torch import nn


def stable_softmax(scores, dim):
    lines = []
    for line in scores.movedim(dim, -1).reshape(-1, scores.shape[dim]):
        exponentials = [torch.exp(score - max(line.unbind())) for score in line]
        lines.append(torch.stack([each / sum(exponentials) for each in exponentials]))
    moved = scores.movedim(dim, -1).shape
    return torch.stack(lines).reshape(moved).movedim(-1, dim)


def scaled_dot_product_attention(query, key, value):
    if key.shape != query.shape or value.shape != query.shape:
        raise ValueError("query, key and value need the same shape")
    if query.dim() > 2:
        pairs = [scaled_dot_product_attention(*each) for each in zip(query, key, value, strict=True)]
        return torch.stack([output for output, _ in pairs]), torch.stack([weights for _, weights in pairs])
    outputs, weights = [], []
    for q in query:
        row = torch.stack([torch.dot(q, k) / len(q) ** 0.5 for k in key]).softmax(0)
        outputs.append(sum(weight * v for weight, v in zip(row, value, strict=True)))
        weights.append(row)
    return torch.stack(outputs), torch.stack(weights)


def split_heads(x, num_heads):
    dim = x.shape[2]
    if num_heads < 1 or dim % num_heads > 0:
        raise ValueError("width " + str(dim) + " and " + str(num_heads) + " heads do not go together")
    d = dim // num_heads
    return torch.stack([x[:, :, head * d : (head + 1) * d] for head in range(num_heads)], dim=1)


def merge_heads(x):
    return torch.cat([x[:, head] for head in range(x.shape[1])], dim=2)


def multi_head_self_attention(x, qkv_weight, qkv_bias, proj_weight, proj_bias, num_heads):
    dim = x.shape[2]
    if num_heads < 1 or dim % num_heads > 0:
        raise ValueError("width " + str(dim) + " and " + str(num_heads) + " heads do not go together")
    d = dim // num_heads
    found = []
    for head in range(num_heads):
        rows = slice(head * d, (head + 1) * d)
        q = x.matmul(qkv_weight[:dim][rows].t()) + qkv_bias[:dim][rows]
        k = x.matmul(qkv_weight[dim : 2 * dim][rows].t()) + qkv_bias[dim : 2 * dim][rows]
        v = x.matmul(qkv_weight[2 * dim :][rows].t()) + qkv_bias[2 * dim :][rows]
        weights = torch.softmax(torch.bmm(q, k.transpose(1, 2)) / d**0.5, dim=2)
        found.append(torch.bmm(weights, v))
    return torch.cat(found, dim=2).matmul(proj_weight.t()) + proj_bias


class MultiHeadSelfAttention(nn.Module):
    def __init__(self, dim, num_heads):
        super().__init__()
        if num_heads < 1 or dim % num_heads > 0:
            raise ValueError("dim " + str(dim) + " and " + str(num_heads) + " heads do not go together")
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.num_heads = num_heads

    def forward(self, x):
        d = x.shape[-1] // self.num_heads
        pieces = self.qkv(x).split(d, dim=-1)  # h pieces of q, then of k, then of v
        h = self.num_heads
        found = [nn.Softmax(-1)(pieces[i] @ pieces[h + i].mT / d**0.5) @ pieces[2 * h + i] for i in range(h)]
        return self.proj(torch.cat(found, dim=-1))
