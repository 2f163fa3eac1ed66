"""OPT-Tree's rule; knows the draft's probabilities only, no costs and no outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from policies.rules.base import Rule, planned
from spec_core.doubt import Doubt, Judge, gain
from spec_core.odds import gained

if TYPE_CHECKING:
    from spec_core.drafting import LevelView


class OptTree(Rule):
    """OPT-Tree (arXiv 2406.17276): draft on while the expected accepted length E still grows.

    E is the sum of the largest path probabilities of all levels built so far, as many as the budget
    holds. Defaults are the published ones: 50 drafted nodes, delta 0.5, depth 10, and a beam as
    wide as the budget (width 0).
    """

    def __init__(
        self, budget: int = 51, delta: float = 0.5, depth: int = 10, width: int = 0
    ) -> None:
        nodes = budget - 1
        super().__init__(planned(depth=depth, width=width or max(nodes, 1), budget=budget))
        assert nodes >= 1, "the budget counts the root: give at least 2"
        self.nodes, self.gain = nodes, gain(nodes, delta)
        chain = width == 1 and depth <= nodes and 0 <= delta <= 1  # E grows by its probability
        band = (delta, delta) if chain else (0.0, 1.0)
        self.levels = Doubt(*band, judge=self._judge)
        gained(np.zeros(2, np.float32), 1, nodes)  # the machine code is at hand before a clock

    def _judge(self) -> Judge:
        """The same for machine code."""
        return self.gain

    def stop(self, level: LevelView) -> list[bool]:
        """Where the newest level has raised E by no more than delta."""
        delta, size = float(self.gain[0][0, 0]), len(level.numbers[-1][0])
        pools = [
            np.array([score for scores in level.numbers for score in scores[b]], np.float32)
            for b in range(len(level.numbers[-1]))
        ]
        return [gained(pool, len(pool) - size, self.nodes) <= delta for pool in pools]
