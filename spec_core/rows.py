"""What is found in rows of logits: by machine code on the CPU where there is numba, or by torch.

On the CPU tokens and flags are arrays and tensors by turns, whatever costs less: both have tolist.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Torch:
    """On any device."""

    def best(
        self, logits: Tensor, temperature: float, noise: Tensor | None, count: int
    ) -> tuple[Tensor, Tensor, Any]:
        """Tokens and scores [B, W, count], and logs [B, W, V] of softmax(logits / T + noise)."""
        logits = logits / temperature if temperature != 1 else logits
        logs = (logits if noise is None else logits + noise).log_softmax(-1)
        scores, tokens = logs.max(-1, keepdim=True) if count == 1 else logs.topk(count, -1)
        return tokens, scores, logs

    def largest(self, logits: Tensor) -> tuple[Any, Any]:
        """Where each row's largest number first is [B, N], and whether all are finite [B, 1].

        A NaN is the largest of its row; the smallest may be infinite.
        """
        values, picks = logits.max(-1)
        return picks, values.isfinite().all(1, keepdim=True)


class Machine(Torch):
    """The same in one order of summation, which a chain in machine code has as well."""

    def __init__(self) -> None:
        from spec_core.models import ranks

        self.code = ranks

    def best(
        self, logits: Tensor, temperature: float, noise: Tensor | None, count: int
    ) -> tuple[Tensor, Tensor, Any]:
        sound = self.code.SILENCE if noise is None else _array(noise)
        tokens, scores, logs = self.code.ranked(_array(logits), temperature, sound, count)
        return torch.from_numpy(tokens), torch.from_numpy(scores), logs

    def largest(self, logits: Tensor) -> tuple[Any, Any]:
        return self.code.first_largest(_array(logits))


def _array(logits: Tensor) -> np.ndarray:
    return np.ascontiguousarray(logits.numpy())


@cache
def rows(cpu: bool) -> Torch:
    """What serves there."""
    return Machine() if cpu and find_spec("numba") else Torch()
