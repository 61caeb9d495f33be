"""Correspondence operators: a query frame reads values from reference frames through windowed attention.

The package stands alone: it needs torch, and triton only where a Triton kernel is asked for.
"""

from __future__ import annotations

from vcorr.kernels.faces import (
    memory_best,
    memory_read,
    memory_read_lse,
    memory_topk,
    negative_logsumexp,
    windowed_attention,
    windowed_attention_lse,
)
from vcorr.kernels.options import Options
from vcorr.kernels.reach import label_query_mask

__all__ = [
    "Options",
    "label_query_mask",
    "memory_best",
    "memory_read",
    "memory_read_lse",
    "memory_topk",
    "negative_logsumexp",
    "windowed_attention",
    "windowed_attention_lse",
]
