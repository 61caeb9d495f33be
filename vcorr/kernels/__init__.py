"""Correspondence operators: a query frame reads values from reference frames through windowed attention.

The package stands alone: it needs torch, and triton only where a Triton kernel is asked for.
"""

from __future__ import annotations

from vcorr.kernels.memory import memory_read, memory_read_lse, memory_topk
from vcorr.kernels.negatives import negative_logsumexp
from vcorr.kernels.reach import label_query_mask
from vcorr.kernels.window import windowed_attention, windowed_attention_lse

__all__ = [
    "label_query_mask",
    "memory_read",
    "memory_read_lse",
    "memory_topk",
    "negative_logsumexp",
    "windowed_attention",
    "windowed_attention_lse",
]
