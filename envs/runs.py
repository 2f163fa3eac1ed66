"""Whole recordings decoded once, under a policy, a chooser or a plan, by the table: no clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from envs.cost import Costs, price
from envs.market import Batches, Floats, Ints, Market
from envs.replay_heads import Head, make_head
from envs.replayed import Replay
from envs.rewards import make_reward
from envs.shards import Text
from envs.trace import Trace
from spec_core.doubt import ALWAYS
from spec_core.features import Array
from spec_core.learned import Chosen

Choose = Callable[[Array], Ints]


@dataclass(frozen=True, eq=False)
class Totals:
    """Sums over the cycles of every text, [P] each."""

    texts: list[Text]
    tokens: Ints
    seconds: Floats
    cycles: Ints
    drafted: Ints
    accepted: Ints

    @property
    def speed(self) -> float:
        """Tokens per second: sum over sum."""
        return float(self.tokens.sum() / self.seconds.sum())


class _Once(Replay):
    """Every text once: what comes behind a first text is not counted."""

    def begin(self, seed: int, taken: int = 0) -> None:
        """Every environment has its own text."""
        super().begin(seed, taken)
        self.sums, self.going = np.zeros((5, len(self.trace.texts))), np.ones(self.num_envs, bool)

    def _enter(self, rows: Ints, figures: Floats) -> Ints:
        tokens, seconds, accepted, drafted, _, cycles, ended = figures
        first = self.going[rows]
        counted = np.stack((tokens, seconds, cycles, drafted, accepted))[:, first]
        self.sums[:, self.texts[rows[first]]] += counted
        self.going[rows] &= ended == 0
        return super()._enter(rows, figures)


def run(trace: Trace, costs: Costs, choose: Choose, learned: bool = True) -> Totals:
    """Decode every text once, alone, under the plans of the menu that a chooser says."""
    alone = Batches.turns((1,), len(trace.texts))
    return _once(make_head("menu", trace, alone, costs.early), alone, costs, choose, learned)


def run_policy(trace: Trace, costs: Costs, policy: Chosen, learned: bool = True) -> Totals:
    """Decode every text once, alone, under a policy of any head."""
    head, about = policy.head, vars(policy)
    if head == "menu":
        return run(trace.with_menu(about["menu"]), costs, policy.chooser.choose, learned)
    alone = Batches.turns((1,), len(trace.texts))
    options = about.get("plan_"), about.get("budgets"), about.get("doubt", ALWAYS)
    decides = make_head(head, trace, alone, costs.early, *options)
    return _once(decides, alone, costs, policy.chooser.choose, learned)


def _once(head: Head, alone: Batches, costs: Costs, choose: Choose, learned: bool) -> Totals:
    market, reward = Market(head.trace, costs, (1,), learned), make_reward("cycle_rate", 0)
    engine = _Once(head, market, alone, reward)
    features = engine.reset()
    while engine.going.any():
        features = engine.step(choose(features).astype(np.int64)).features
    return _totals(head.trace, engine.sums)


def run_fixed(trace: Trace, costs: Costs, plan: int, batch: int = 1) -> Totals:
    """Decode every text once under one plan of the menu; the rest of its batch does as it does."""
    found = trace.visited(plan)
    tokens, seconds = trace.committed[found, plan], price(trace, costs, batch).seconds[found, plan]
    counts = (trace.shapes[name][found, plan] for name in ("drafted", "accepted"))
    columns = tokens, seconds / batch, np.ones(len(found)), *counts
    size, texts = len(trace.texts), trace.text[found]
    return _totals(trace, np.stack([np.bincount(texts, column, size) for column in columns]))


def _totals(trace: Trace, sums: Floats) -> Totals:
    tokens, seconds, *counts = sums
    return Totals(trace.texts, tokens.astype(int), seconds, *(c.astype(int) for c in counts))
