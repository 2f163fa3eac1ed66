"""Chains that end where the draft doubts itself; no learning, no costs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from policies.rules.base import ChainRule, steps

if TYPE_CHECKING:
    from spec_core.drafting import LevelView


class Entropy(ChainRule):
    """SVIP (arXiv 2411.18462): stop behind a token whose draft distribution was too uncertain.

    It stops where sqrt(entropy in nats) > threshold. Defaults are the published code's: it tests
    sqrt(0.15 entropy) > 0.3, which is 0.775 here, and drafts 40 tokens at most.
    """

    def __init__(self, threshold: float = 0.3 / 0.15**0.5, depth: int = 40) -> None:
        super().__init__(depth)
        assert threshold >= 0, f"threshold is a square root, not {threshold}"
        self.limit = threshold**2

    def stop(self, level: LevelView) -> Tensor:
        """Those whose newest token was drawn in doubt."""
        return torch.tensor([h > self.limit for h in level.entropy[:, 0].tolist()])


class Confidence(ChainRule):
    """transformers' `assistant_confidence_threshold`: stop behind a token of low probability.

    Defaults are transformers': threshold 0.4, 20 tokens at most.
    """

    def __init__(self, threshold: float = 0.4, depth: int = 20) -> None:
        super().__init__(depth)
        assert 0 <= threshold <= 1, f"threshold is a probability, not {threshold}"
        self.least = math.log(threshold) if threshold else -math.inf

    def stop(self, level: LevelView) -> Tensor:
        """Those whose newest token has too little probability."""
        return torch.tensor([score < self.least for score in steps(level.pool)])
