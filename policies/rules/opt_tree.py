"""OPT-Tree's rule; knows the draft's probabilities only, no costs and no outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from policies.rules.base import Array, Rule, planned
from spec_core.doubt import ALWAYS, Doubt

if TYPE_CHECKING:
    from spec_core.drafting import LevelView
    from spec_core.plan import Plan
    from spec_core.session import Observation


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
        self.nodes, self.delta = nodes, delta
        chain = width == 1 and depth <= nodes and 0 <= delta <= 1  # E grows by its probability
        self.levels = Doubt(delta, delta) if chain else ALWAYS
        self.best: Array = np.zeros((0, nodes))  # [B, nodes] the best path probabilities so far

    def plan(self, observation: Observation) -> list[Plan]:
        """The beam, and nothing drafted yet."""
        self.best = np.zeros((observation.batch, self.nodes))
        return super().plan(observation)

    def stop(self, level: LevelView) -> list[bool]:
        """Where the newest level has raised E by no more than delta."""
        newest = np.exp(np.array(level.numbers[-1]))
        pool = np.sort(np.hstack((self.best, newest)), axis=1)[:, -self.nodes :]
        gain = pool.sum(1) - self.best.sum(1)
        self.best = pool
        return (gain <= self.delta).tolist()
