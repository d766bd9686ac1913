"""The way that most tutorials write it: view and transpose, one Linear, torch.softmax where allowed."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F


def stable_softmax(scores, dim):
    max_scores, _ = torch.max(scores, dim=dim, keepdim=True)
    exp_scores = torch.exp(scores - max_scores)
    return exp_scores / torch.sum(exp_scores, dim=dim, keepdim=True)


def scaled_dot_product_attention(query, key, value):
    d_k = query.size(-1)
    scores = torch.matmul(query, key.transpose(-2, -1)) / torch.sqrt(torch.tensor(d_k, dtype=torch.float32))
    attention_weights = F.softmax(scores, dim=-1)
    output = torch.matmul(attention_weights, value)
    return output, attention_weights


def split_heads(x, num_heads):
    batch_size, seq_len, dim = x.size()
    if dim % num_heads != 0:
        raise ValueError(f"dim ({dim}) must be divisible by num_heads ({num_heads})")
    return x.view(batch_size, seq_len, num_heads, dim // num_heads).permute(0, 2, 1, 3)


def merge_heads(x):
    batch_size, num_heads, seq_len, head_dim = x.size()
    return x.permute(0, 2, 1, 3).contiguous().view(batch_size, seq_len, num_heads * head_dim)


def multi_head_self_attention(x, qkv_weight, qkv_bias, proj_weight, proj_bias, num_heads):
    B, N, D = x.shape
    if D % num_heads != 0:
        raise ValueError(f"dim={D} not divisible by num_heads={num_heads}")
    qkv = F.linear(x, qkv_weight, qkv_bias).reshape(B, N, 3, num_heads, D // num_heads).permute(2, 0, 3, 1, 4)
    q, k, v = qkv[0], qkv[1], qkv[2]
    attn = (q @ k.transpose(-2, -1)) * (D // num_heads) ** -0.5
    attn = attn.softmax(dim=-1)
    x = (attn @ v).transpose(1, 2).reshape(B, N, D)
    return F.linear(x, proj_weight, proj_bias)


class MultiHeadSelfAttention(nn.Module):
    def __init__(self, dim, num_heads):
        super().__init__()
        if dim % num_heads != 0:
            raise ValueError(f"dim ({dim}) must be divisible by num_heads ({num_heads})")
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.scale = 1 / math.sqrt(self.head_dim)
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)

    def forward(self, z):
        B, N, D = z.shape
        q, k, v = self.qkv(z).chunk(3, dim=-1)
        q, k, v = (t.view(B, N, self.num_heads, self.head_dim).transpose(1, 2) for t in (q, k, v))
        attn = torch.softmax(q @ k.transpose(-2, -1) * self.scale, dim=-1)
        return self.proj((attn @ v).transpose(1, 2).reshape(B, N, D))
