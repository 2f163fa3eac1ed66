"""Dynamic Depth Decoding's rule; knows the beam of each level only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from policies.rules.base import Rule, planned

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
        self.checks, self.mass = frozenset(checks), math.exp(threshold)

    def stop(self, level: LevelView) -> list[bool]:
        """At a check, those whose beam is too improbable."""
        scores, width = level.numbers[-1], self.plan_.width
        if level.depth not in self.checks:
            return [False] * len(scores)
        beams = [sorted(row, reverse=True)[:width] for row in scores]
        return [sum(map(math.exp, beam)) < self.mass for beam in beams]
