"""The rule of serving engines: calibrated survival against a cost table, online.

Knows draft probabilities, outcomes and seconds; no features and no text.
"""

from __future__ import annotations

import math
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from policies.rules.base import Rule, planned
from policies.rules.calibration import Calibration, rows
from policies.rules.costs import Costs, LearnedCosts, costs_of

if TYPE_CHECKING:
    from spec_core.drafting import LevelView
    from spec_core.plan import Plan
    from spec_core.session import Observation, Outcome
    from spec_core.tree import Tree


class Marginal(Rule):
    """vLLM's confidence-scheduled verification (PRs 47808, 52228), with a level stop, for trees.

    Survival P(node accepted | path probability, depth) is learned from every verified node.
    Drafting stops when one more level is expected to bring fewer tokens than its seconds would
    bring at the present rate; of the drafted tree as many nodes are verified as maximise expected
    tokens per second. Forwards are padded to the batch, so both are decided for all of it at once.
    Defaults: a chain of at most 12, costs learned from the clock; `memory` per cycle 0.995.
    """

    levels = True

    def __init__(
        self, depth: int = 12, width: int = 1, children: int = 0, budget: int = 64,
        costs: Costs | dict[str, Any] | None = None, trim: bool = True, memory: float = 0.995,
    ) -> None:  # fmt: skip
        super().__init__(planned(depth=depth, width=width, children=children, budget=budget))
        assert depth >= 1, "depth must be at least 1"
        self.trims, self.memory = trim, memory
        self.costs = LearnedCosts() if costs is None else costs_of(costs)
        self.survival = Calibration(depth, memory)
        self.onward = [1.0, 1.0]  # levels accepted below an accepted node, and levels tried there
        self.paid = [0.0, 0.0]  # tokens and seconds
        self.drafted = 1  # levels of this cycle

    def plan(self, observation: Observation) -> list[Plan]:
        """The plan for everybody; one level is drafted before anything is asked."""
        self.drafted = 1
        return super().plan(observation)

    def stop(self, level: LevelView) -> Tensor:
        """Everybody, once the next level cannot pay for itself."""
        width, batch = self.plan_.width, len(level.scores)
        beams = [sorted(row, reverse=True)[:width] for row in level.scores.tolist()]
        mass = sum(self.survival(score, level.depth - 1) for beam in beams for score in beam)
        nodes = min(1 + level.depth * width, self.plan_.budget)
        more = min(nodes + width, self.plan_.budget)
        extra = self.costs.draft_seconds(batch * width)
        extra += self.costs.verify_seconds(batch * more) - self.costs.verify_seconds(batch * nodes)
        gain = mass * self.onward[0] / self.onward[1]
        stopping = gain * self.paid[1] < self.paid[0] * extra  # gain < rate x seconds
        self.drafted += not stopping
        return torch.full((batch,), stopping)

    def trim(self, tree: Tree) -> list[int]:
        """How many nodes bring the most expected tokens per second."""
        batch = len(tree.tokens)
        if tree.drafts is not None:  # drawn nodes may not be dropped
            return [tree.nodes] * batch
        gains = [0.0] * tree.nodes
        for scores, depths in zip(tree.scores.tolist(), tree.depths.tolist(), strict=True):
            for node in range(1, tree.nodes):
                gains[node] += self.survival(scores[node], depths[node] - 1)
        drafting = self.drafted * self.costs.draft_seconds(batch * self.plan_.width)
        tokens, best, budget = float(batch), 0.0, 1
        for nodes, gain in enumerate(gains, start=1):
            tokens += gain
            seconds = drafting + self.costs.verify_seconds(batch * nodes)
            if (rate := tokens / max(seconds, 1e-12)) > best:
                best, budget = rate, nodes
        return [budget] * batch

    def update(self, outcome: Outcome) -> None:
        """Learn survival from every verified node, and what the cycle cost."""
        tree, batch, seconds = outcome.tree, len(outcome.rows), outcome.seconds
        levels = self.drafted if max(plan.depth for plan in outcome.plans) else 0
        spent = self.costs.learn(
            batch * self.plan_.width, levels, batch * tree.nodes, seconds.draft,
            seconds.total - seconds.draft,
        )  # fmt: skip
        tokens = sum(map(len, outcome.tokens))
        self.paid = [self.memory * self.paid[0] + tokens, self.memory * self.paid[1] + spent]
        if tree.nodes > 1:
            self._calibrate(tree, outcome.path)

    def _calibrate(self, tree: Tree, paths: list[list[int]]) -> None:
        """Accepted nodes are on the path; all others, below refused ones too, are not."""
        labels, tried = list[tuple[float, int, bool]](), 0
        for scores, depths, path in zip(
            tree.scores.tolist(), tree.depths.tolist(), paths, strict=True
        ):
            held = [node for node in range(1, tree.nodes) if scores[node] > -math.inf]
            labels += [(scores[node], depths[node] - 1, node in path) for node in held]
            tried += min(len(path) + 1, max((depths[node] for node in held), default=0))
        self.survival.learn(labels)
        for i, count in enumerate((sum(map(len, paths)), tried)):
            self.onward[i] = 1 + self.memory * (self.onward[i] - 1) + count

    def state(self) -> dict[str, Any]:
        """Survival, costs and the rate so far."""
        totals = [self.onward, self.paid]
        survival, costs = self.survival.state(), self.costs.state()
        return deepcopy({"survival": survival, "costs": costs, "totals": totals})

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.survival.restore(state["survival"])
        self.costs.restore(state["costs"])
        self.onward, self.paid = rows(state["totals"], 2, 2)
