"""A kernel with FlashAttention's interface that runs on a CPU, for transformers' own code around FlashAttention."""

from types import SimpleNamespace

import torch
from transformers import modeling_flash_attention_utils
from transformers.integrations import hub_kernels

NAME = "kernels-community/flash-attn2"  # the kernel that transformers fetches if the package is missing
calls: list[dict] = []  # borders and longest row of each call with packed rows


def flash_attn_varlen_func(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, softmax_scale=None, causal=True, window_size=None
):
    """Attention within each row of packed rows. Like FlashAttention, it reads nothing back from the device.

    Args:
        q: (tokens, heads, size). `k` and `v` may have fewer heads.
        cu_seqlens_q: Borders of the rows, (rows + 1,), int32.
    """
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32 and len(q) == len(k) == len(v)
    calls.append({"borders": cu_seqlens_q, "longest": max_seqlen_q})
    row = torch.bucketize(torch.arange(len(q), device=q.device), cu_seqlens_q[1:], right=True)
    same = row[:, None] == row
    return _attend(*(states[None] for states in (q, k, v)), same, softmax_scale, causal, window_size)[0]


def flash_attn_func(q, k, v, softmax_scale=None, causal=True, window_size=None):
    """Attention of rows of one length; `q` is (rows, tokens, heads, size). Queries end where the keys end."""
    everywhere = torch.ones(q.size(1), k.size(1), dtype=torch.bool, device=q.device)
    return _attend(q, k, v, everywhere, softmax_scale, causal, window_size)


def _attend(q, k, v, seen, softmax_scale, causal, window_size):
    queries, keys = q.size(1), k.size(1)
    position = torch.arange(keys, device=q.device)
    distance = position[keys - queries :, None] - position
    if causal:
        seen = seen & (distance >= 0)
    if window_size is not None:
        seen = seen & (distance <= window_size[0])
    q, k, v = (states.transpose(1, 2) for states in (q, k, v))
    attention = torch.nn.functional.scaled_dot_product_attention
    return attention(q, k, v, attn_mask=seen, scale=softmax_scale, enable_gqa=True).transpose(1, 2)


def install(monkeypatch):
    """Let transformers find this kernel on the Hub."""
    calls.clear()
    functions = (flash_attn_func, flash_attn_varlen_func)
    kernel = SimpleNamespace(**{function.__name__: function for function in functions}, flash_attn_with_kvcache=None)
    monkeypatch.setattr(hub_kernels, "is_kernels_available", lambda: True)
    monkeypatch.setattr(hub_kernels, "get_kernel", lambda repository, **options: kernel)
    monkeypatch.setattr(modeling_flash_attention_utils, "_loaded_implementation", None)
