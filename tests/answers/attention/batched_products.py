"""Heads folded into the batch, bmm and baddbmm, powers of e, parameters made by hand."""

import math

import torch
import torch.nn.functional as F
from torch import nn


def stable_softmax(scores, dim):
    weights = torch.pow(math.e, scores - torch.amax(scores, dim, True))
    return F.normalize(weights, p=1, dim=dim)


def scaled_dot_product_attention(query, key, value):
    *leading, count, width = query.shape
    q, k, v = (each.reshape(-1, each.shape[-2], each.shape[-1]) for each in (query, key, value))
    empty = q.new_zeros(len(q), count, k.shape[1])
    weights = nn.Softmax(dim=2)(torch.baddbmm(empty, q, k.mT, beta=0, alpha=1 / math.sqrt(width)))
    return torch.bmm(weights, v).reshape(*leading, count, -1), weights.reshape(*leading, count, -1)


def split_heads(x, num_heads):
    if num_heads == 0 or x.size(2) % num_heads != 0:
        raise ValueError(f"num_heads={num_heads} does not divide {x.size(2)}")
    return torch.stack(x.tensor_split(num_heads, dim=2)).movedim(0, 1)


def merge_heads(x):
    return torch.cat(x.unbind(1), dim=-1)


def multi_head_self_attention(x, qkv_weight, qkv_bias, proj_weight, proj_bias, num_heads):
    batch, count, dim = x.shape
    if num_heads == 0 or dim % num_heads != 0:
        raise ValueError(f"num_heads={num_heads} does not divide {dim}")

    def fold(each):
        return each.view(batch, count, num_heads, -1).transpose(1, 2).reshape(batch * num_heads, count, -1)

    parts = zip(qkv_weight.split(dim), qkv_bias.split(dim), strict=True)
    q, k, v = (fold(F.linear(x, weight, bias)) for weight, bias in parts)
    found, _ = scaled_dot_product_attention(q, k, v)
    found = found.view(batch, num_heads, count, -1).movedim(1, 2).reshape(batch, count, dim)
    return torch.addmm(proj_bias, found.flatten(0, 1), proj_weight.t()).view(batch, count, -1)


class Affine(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))


class MultiHeadSelfAttention(nn.Module):
    def __init__(self, dim, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Affine(dim, 3 * dim)
        self.proj = Affine(dim, dim)

    def forward(self, inputs):
        parameters = dict(self.named_parameters())
        named = {name.replace(".", "_"): parameter for name, parameter in parameters.items()}
        return multi_head_self_attention(x=inputs, num_heads=self.num_heads, **named)
