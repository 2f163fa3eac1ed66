"""The rule of serving engines: calibrated survival against a cost table, online.

Knows draft probabilities, outcomes and seconds; no features and no text.
"""

from __future__ import annotations

import math
from copy import deepcopy
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from policies.rules.base import Rule, planned
from policies.rules.calibration import Calibration, rows
from policies.rules.costs import Costs, LearnedCosts, costs_of, seconds
from spec_core.doubt import Doubt, Judge, chances
from spec_core.odds import chance
from spec_core.quick import compiled

if TYPE_CHECKING:
    from spec_core.drafting import LevelView
    from spec_core.plan import Plan
    from spec_core.session import Observation, Outcome
    from spec_core.tree import Tree


@compiled
def _bars(bars, lines, plan, batch, rate, draft, verify):  # type: ignore[no-untyped-def]
    """Write what the beams of a level are to be worth: what the next one costs, at this rate."""
    width, budget = plan
    for level in range(len(bars)):
        bars[level, 1], bars[level, 2] = lines[level]
        nodes = min(1 + (level + 1) * width, budget)
        extra = seconds(verify, batch * min(nodes + width, budget))
        extra += seconds(draft, batch * width) - seconds(verify, batch * nodes)
        bars[level, 3] = rate * extra


@compiled
def _budget(lines, scores, depths, drafting, verify):  # type: ignore[no-untyped-def]
    """How many nodes of trees [B, N] bring the most expected tokens per second."""
    batch, nodes = scores.shape
    tokens, best, budget = float(batch), 0.0, 1
    for node in range(nodes):
        for b in range(batch if node else 0):
            line = lines[min(depths[b, node], len(lines)) - 1]
            tokens += chance(line[0], line[1], scores[b, node])
        rate = tokens / max(drafting + seconds(verify, batch * (node + 1)), 1e-12)
        if rate > best:
            best, budget = rate, node + 1
    return budget


@lru_cache(maxsize=1024)
def _firsts(nodes: int, count: int) -> np.ndarray:
    """[1, nodes] whether a node is among the first behind the root."""
    return np.arange(nodes)[None] <= count


@cache
def _ready() -> None:
    """Have the machine code at hand before a clock runs."""
    bars, lines, steps = np.zeros((1, 4), np.float32), np.zeros((1, 2)), np.ones((1, 2))
    _bars(bars, lines, (1, 2), 1, 0.0, steps, steps)
    _budget(lines, np.zeros((1, 2)), np.zeros((1, 2), np.int64), 0.0, steps)
    chance(0.0, 1.0, -1.0)


class Marginal(Rule):
    """vLLM's confidence-scheduled verification (PRs 47808, 52228), with a level stop, for trees.

    Survival P(node accepted | path probability, depth) is learned from every verified node.
    Drafting stops when one more level is expected to bring fewer tokens than its seconds would
    bring at the present rate; of the drafted tree as many nodes are verified as maximise expected
    tokens per second. Forwards are padded to the batch, so both are decided for all of it at once.
    Defaults: a chain of at most 12, costs learned from the clock; `memory` per cycle 0.995.
    """

    def __init__(
        self, depth: int = 12, width: int = 1, children: int = 0, budget: int = 64,
        costs: Costs | dict[str, Any] | None = None, trim: bool = True, memory: float = 0.995,
    ) -> None:  # fmt: skip
        super().__init__(planned(depth=depth, width=width, children=children, budget=budget))
        assert depth >= 1, "depth must be at least 1"
        _ready()
        self.trims, self.memory = trim, memory
        self.levels = Doubt(judge=self._judge)
        self.costs = LearnedCosts() if costs is None else costs_of(costs)
        self.survival = Calibration(depth, memory)
        self.onward = [1.0, 1.0]  # levels accepted below an accepted node, and levels tried there
        self.paid = [0.0, 0.0]  # tokens and seconds
        self.drafted = 1  # levels of this cycle
        self.bars = np.full((depth, 4), -math.inf, np.float32)  # as `improbable` reads them

    def plan(self, observation: Observation) -> list[Plan]:
        """The plan for everybody; one level is drafted before anything is asked."""
        self.drafted, (tokens, spent) = 1, self.paid
        rate = tokens / spent * self.onward[1] / self.onward[0] if spent else 0.0
        size = self.plan_.width, self.plan_.budget
        _bars(
            self.bars, self.survival.lines, size, observation.batch, rate,
            self.costs.draft.table, self.costs.verify.table,
        )  # fmt: skip
        return super().plan(observation)

    def _judge(self) -> Judge:
        """The same question for machine code, of one chain."""
        return chances(self.bars, 1, False)

    def stop(self, level: LevelView) -> list[bool]:
        """Everybody, once the next level cannot pay for itself."""
        width, batch = self.plan_.width, len(level.numbers[-1])
        beams = [sorted(row, reverse=True)[:width] for row in level.numbers[-1]]
        _, a, b, least = self.bars[level.depth - 1].tolist()
        stopping = sum(chance(a, b, score) for beam in beams for score in beam) < least
        self.drafted += not stopping
        return [stopping] * batch

    def trim(self, tree: Tree) -> list[int]:
        """How many nodes bring the most expected tokens per second."""
        scores, depths = tree.told
        self._count(tree)
        if tree.drafts is not None:  # drawn nodes may not be dropped
            return [tree.nodes] * len(scores)
        drafting = self.drafted * self.costs.draft_seconds(len(scores) * self.plan_.width)
        lines, verify = self.survival.lines, self.costs.verify.table
        return [_budget(lines, scores, depths, drafting, verify)] * len(scores)

    def _count(self, tree: Tree) -> None:
        """Machine code does not tell how many levels it drafted, but a chain does."""
        if tree.chain and tree.depth > self.drafted:
            self.drafted = tree.depth

    def update(self, outcome: Outcome) -> None:
        """Learn survival from every verified node, and what the cycle cost."""
        tree, batch, clock = outcome.tree, len(outcome.rows), outcome.seconds
        self._count(tree)
        levels = self.drafted if max(plan.depth for plan in outcome.plans) else 0
        spent = self.costs.learn(
            batch * self.plan_.width, levels, batch * tree.nodes, clock.draft,
            clock.total - clock.draft,
        )  # fmt: skip
        tokens = sum(map(len, outcome.tokens))
        self.paid = [self.memory * self.paid[0] + tokens, self.memory * self.paid[1] + spent]
        if tree.nodes > 1:
            self._calibrate(tree, outcome.path)

    def _calibrate(self, tree: Tree, paths: list[list[int]]) -> None:
        """Accepted nodes are on the path; all others, below refused ones too, are not."""
        scores, depths = tree.told
        hits = _firsts(tree.nodes, len(paths[0])) if tree.chain and len(paths) == 1 else None
        if hits is None:
            hits = np.zeros(scores.shape, np.bool_)
            for row, path in zip(hits, paths, strict=True):
                row[path] = True
        tried = self.survival.learn(scores, depths, hits)
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
