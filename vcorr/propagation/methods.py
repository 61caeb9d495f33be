"""Presets of reading: how labels are read by the protocols of the papers, with whatever weights there are.

They change how labels are read, not what the encoder learned: scores of a paper need its weights too. The logits keep
the scale of the weights. What comes with the weights is the default.

mast      references 0, 5, t-5, t-3, t-1; those more than 15 frames away by ROI search; hard feedback (MAST, 3.4, 3.5)
momentum  the same references in plain windows, encoded by the slow encoder (MAST with a momentum memory, 4.2, 4.3)
liir      the same references, each read from its two best cells and their neighbours; radius 14 (LIIR, 5.4, 5.7)
walk      references 0, read whole, and t-20 .. t-1, through a disk; softmax over the 10 largest logits; soft feedback
          (the contrastive random walk)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from vcorr.config import override
from vcorr.errors import UsageError
from vcorr.model.inference import Inference, References
from vcorr.model.weights import Weights

Method = Literal["mast", "momentum", "liir", "walk"]

FIVE = References(long=(0, 5), short=(1, 3, 5))
WALK = References(long=(0,), short=tuple(range(1, 21)), whole=True, repeat=True)
METHODS: Mapping[Method, Mapping[str, Any]] = {
    "mast": {"references": FIVE, "radius": 12, "feedback": "hard", "roi_search": 15},
    "momentum": {"references": FIVE, "radius": 12, "feedback": "hard", "slow": True},
    "liir": {"references": FIVE, "radius": 14, "feedback": "hard", "compactness": 2},
    "walk": {"references": WALK, "radius": 12, "shape": "disk", "top_k": 10},
}


def read_by(weights: Weights, method: Method | None = None, settings: Sequence[str] = ()) -> Weights:
    """Weights that read labels by a method, and with other settings.

    Args:
        method: a preset, of which all settings but the scale of the logits are; None keeps those of the weights.
        settings: ``KEY=VALUE`` of ``Inference``, on top of it.

    Raises:
        UsageError: no such method or setting, settings that do not go together, or the weights have no slow encoder.
    """
    inference = weights.inference
    if method is not None:
        if method not in METHODS:
            raise UsageError(f"--method {method}", "is not known", f"give {', '.join(get_args(Method))}")
        inference = Inference(scale=inference.scale, **METHODS[method])
    inference = override(inference, list(settings))
    if inference.slow and not weights.slow:
        where = f"--method {method}" if method == "momentum" else "--read slow=true"
        what = "needs weights with a slow encoder, and these have none"
        raise UsageError(where, what, "give --weights of a training of recipe mast_momentum")
    try:
        return replace(weights, inference=inference)
    except ValueError as error:
        raise UsageError("--read", str(error), "give settings that go together") from None
