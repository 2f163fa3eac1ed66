"""How the target's logits become the distribution that is sampled; knows no trees."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """Temperature 0 is greedy; top_k 0 and top_p 1 are off."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature must be 0 or a positive number, not {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (off) or positive, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], not {self.top_p}")

    @property
    def greedy(self) -> bool:
        """Whether the text is the argmax at every step."""
        return self.temperature == 0

    def shape(self, logits: Tensor) -> Tensor:
        """Tempered and truncated logits [..., V] in fp32; softmax gives what is sampled."""
        logits = logits.float() / self.temperature
        if 0 < self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k, -1).values[..., -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        if self.top_p < 1:
            logits = _nucleus(logits, self.top_p)
        return logits


def _nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Without the tokens that the most likely ones before them already make up top_p without."""
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probability = ordered.softmax(-1)
    before = probability.cumsum(-1) - probability
    drop = (before >= top_p).scatter(-1, order, before >= top_p)
    return logits.masked_fill(drop, -torch.inf)
