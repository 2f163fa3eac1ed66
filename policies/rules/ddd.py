"""Dynamic Depth Decoding's rule; knows the beam of each level only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from policies.rules.base import Rule, host, planned

if TYPE_CHECKING:
    from spec_core.drafting import LevelView


class DynamicDepth(Rule):
    """DDD (arXiv 2409.00142): EAGLE-2 that stops where its beam has little probability left.

    At the depths `checks` it compares H = log of the beam's summed path probabilities with
    `threshold`. Defaults are the paper's: beam of 10, checks at 5, 7, 9, threshold -0.3, depth 11;
    60 drafted nodes as in EAGLE-2.
    """

    levels = True

    def __init__(
        self, checks: Sequence[int] = (5, 7, 9), threshold: float = -0.3, depth: int = 11,
        width: int = 10, budget: int = 61,
    ) -> None:  # fmt: skip
        super().__init__(planned(depth=depth, width=width, budget=budget))
        assert all(1 <= check < depth for check in checks), "checks lie below the depth"
        self.checks, self.threshold = frozenset(checks), threshold

    def stop(self, level: LevelView) -> Tensor:
        """At a check, those whose beam is too improbable."""
        if level.depth not in self.checks:
            return torch.zeros(len(level.scores), dtype=torch.bool)
        scores, width = host(level.scores), self.plan_.width
        beam = -np.partition(-scores, min(width, scores.shape[1]) - 1, axis=1)[:, :width]
        return torch.from_numpy(np.exp(beam).sum(1) < np.exp(self.threshold))
