"""Whole recordings decoded under a policy, a chooser or a plan, by the table: no clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from envs.cost import Costs, price
from envs.market import Batches, Floats, Ints, Market
from envs.replay_heads import make_head
from envs.replayed import Replay
from envs.rewards import make_reward
from envs.shards import Text
from envs.trace import Trace
from spec_core.features import Array, advance, fresh, vector
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


def run(trace: Trace, costs: Costs, choose: Choose, learned: bool = True, batch: int = 1) -> Totals:
    """Decode every text once as a chooser says; the others of its batch do the same as it does."""
    seconds = price(trace, costs, batch).seconds / batch
    seconds = seconds + (costs.deciding(batch) / batch if learned else 0.0)
    texts, count = np.arange(len(trace.texts)), len(trace.texts)
    at, history, first = trace.first[:-1].copy(), fresh(count), np.ones(count, np.float32)
    sums = np.zeros((5, count))
    while len(texts):
        known = vector(
            history, trace.lengths[at].astype(np.float32), trace.remaining[at].astype(np.float32),
            np.full(len(at), batch, np.float32), trace.meta.temperature, first,
        )  # fmt: skip
        plans = choose(known)
        seen, tokens = trace.facts(at, plans), trace.committed[at, plans]
        sums[:, texts] += (tokens, seconds[at, plans], tokens > 0, seen.drafted, seen.accepted)
        going = at + tokens < trace.first[texts + 1]
        history, first = advance(history, seen)[going], np.zeros(int(going.sum()), np.float32)
        at, texts = (at + tokens)[going], texts[going]
    return _totals(trace, sums)


class _Once(Replay):
    """Every text once: what comes behind a first text is not counted."""

    def begin(self, seed: int, taken: int = 0) -> None:
        """Every environment has its own text."""
        super().begin(seed, taken)
        self.sums, self.going = np.zeros((5, len(self.trace.texts))), np.ones(self.num_envs, bool)

    def _enter(self, rows: Ints, figures: Floats) -> None:
        super()._enter(rows, figures)
        tokens, seconds, accepted, drafted, _, cycles, ended = figures
        first = self.going[rows]
        counted = np.stack((tokens, seconds, cycles, drafted, accepted))[:, first]
        self.sums[:, self.texts[rows[first]]] += counted
        self.going[rows] &= ended == 0


def run_policy(trace: Trace, costs: Costs, policy: Chosen, learned: bool = True) -> Totals:
    """Decode every text once, alone, under a policy of any head."""
    head, about = policy.head, vars(policy)
    count, batches = len(trace.texts), Batches((1,), len(trace.texts))
    if head == "menu":
        trace = trace.with_menu(about["menu"])
    decides = make_head(head, trace, batches, costs.early, about.get("plan_"), about.get("budgets"))
    market = Market(decides.trace, costs, (1,), learned)
    engine = _Once(decides, market, batches, make_reward("cycle_rate", count))
    features = engine.reset()
    while engine.going.any():
        features = engine.step(policy.chooser.choose(features).astype(np.int64)).features
    return _totals(trace, engine.sums)


def run_fixed(trace: Trace, costs: Costs, plan: int, batch: int = 1) -> Totals:
    """Decode every text once under one plan of the menu."""
    seconds = price(trace, costs, batch).seconds[:, plan] / batch
    steps, texts = trace.committed[:, plan], np.arange(len(trace.texts))
    counts = trace.shapes["drafted"][:, plan], trace.shapes["accepted"][:, plan]
    at, sums = trace.first[:-1].copy(), np.zeros((5, len(texts)))
    while len(texts):
        tokens = steps[at]
        sums[:, texts] += (tokens, seconds[at], tokens > 0, counts[0][at], counts[1][at])
        going = at + tokens < trace.first[texts + 1]
        at, texts = (at + tokens)[going], texts[going]
    return _totals(trace, sums)


def _totals(trace: Trace, sums: Floats) -> Totals:
    tokens, seconds, *counts = sums
    return Totals(trace.texts, tokens.astype(int), seconds, *(c.astype(int) for c in counts))
