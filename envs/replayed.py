"""The engine behind the replay environments: recorded cycles at measured prices, in numpy.

Every environment is one text, or waits for those of its batch; ended texts' places are taken by the
next ones. What a cycle is asked and comes to is the head's, what it costs the market's. Knows no
gymnasium.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.books import Books
from envs.market import Batches, Floats, Ints, Market
from envs.replay_heads import Head, Mask
from envs.rewards import Reward
from spec_core.features import FEATURES, Array, advance, fresh, vector


@dataclass
class Step:
    """What one step of all environments gave; arrays are [B]."""

    features: Array  # [B, F] what the next actions are asked on
    rewards: Floats
    over: Mask  # episodes that ended in this step
    figures: Floats  # [FIGURES, B] sums over the cycles of the step
    final: Array  # [B, F] the features at the ends of those that are over
    texts: Ints  # in which the actions were taken, as places in the trace


class Replay:
    """B environments over a trace; an ended text's place is taken by the next one at once."""

    def __init__(
        self, head: Head, market: Market, batches: Batches, reward: Reward, seed: int = 0,
        spread: float = 0.0, deal_every: int = 0,
    ) -> None:  # fmt: skip
        """spread: of the seconds, relative; 0: as in the table.

        deal_every: steps after which loads are dealt anew; 0: never.
        """
        self.trace, self.head, self.market, self.batches = head.trace, head, market, batches
        self.first_batches, self.deal_every = batches, deal_every
        assert not deal_every or head.name == "menu", "all must be between two cycles then"
        self.books, self.spread = Books(reward, head.per_cycle), spread
        self.num_envs = len(batches.load)
        self.size = len(FEATURES) + head.extra
        self.names = np.array([(t.id, t.domain) for t in self.trace.texts], object)
        self.texts = self.at = np.zeros(0, np.int64)  # none before the first reset
        self.begin(seed)

    def begin(self, seed: int, taken: int = 0) -> None:
        """Start over, or where `taken` texts were handed out."""
        self.seed, self.taken, self.turn = seed, taken, -1
        self.chance = np.random.default_rng((seed, taken))

    def take(self, count: int) -> Ints:
        """The next texts: all of them, then all again, in an order that seed and pass determine."""
        size, made = len(self.trace.texts), []
        while count:
            turn, place = divmod(self.taken, size)
            if self.turn != turn:
                self.turn = turn
                self.order = np.random.default_rng((self.seed, turn)).permutation(size)
            part = self.order[place : place + count]
            made.append(part)
            self.taken, count = self.taken + len(part), count - len(part)
        return np.concatenate(made)

    def reset(self, seed: int | None = None) -> Array:
        """All environments begin a text, or go on where all episodes have just ended."""
        if seed is not None:
            self.begin(seed)
        if seed is not None or self.books.handed:
            self._open()
        self.books.begin()
        return self.features

    def _open(self) -> None:
        """Everybody on the next texts."""
        self.steps, self.deals = 0, np.random.default_rng((self.seed, self.taken, 1))
        self._regroup(self.first_batches)
        self.texts = self.take(self.num_envs)
        self.at = self.trace.first[self.texts]
        self.history, self.first = fresh(self.num_envs), np.ones(self.num_envs, np.float32)
        self.books.open(self.num_envs, self.size)
        every = np.ones(self.num_envs, bool)
        self._run(every & ~self.head.begin(self.at, every))

    @property
    def masks(self) -> Mask:
        """[B, choices] actions worth taking."""
        return self.head.allowed()

    def step(self, actions: Ints) -> Step:
        """Take one decision per environment and run on to the next."""
        self._check(actions)
        texts = self.texts.copy()
        self.books.turn()
        self._run(self.head.answer(actions))
        rewards, figures = self.books.settle()
        self.steps += 1
        if self.deal_every and self.steps % self.deal_every == 0:
            self._regroup(self.batches.dealt(self.deals))
            self._look()
        return Step(self.features, rewards, self.books.over, figures, self.books.final, texts)

    def _run(self, done: Mask) -> None:
        """Close cycles and begin the next ones, until everybody is asked something."""
        passed = self.taken
        while done.any():
            self._close(done)
            if self.taken - passed > 2 * (self.num_envs + len(self.trace.texts)):
                raise ValueError(
                    "whole texts go by without a decision: take a recording of longer texts, "
                    "lower the plan's threshold, or widen doubt"
                )
            done = done & ~self.head.begin(self.at, done)
        self._look()

    def _regroup(self, batches: Batches) -> None:
        self.batches = batches
        if self.deal_every:
            self.books.reward.regroup(batches.place)

    def _look(self) -> None:
        rows = np.arange(self.num_envs)
        self.features = self.head.view(self._known(rows, self.trace.lengths[self.at]))

    def _known(self, rows: Ints, lengths: Ints) -> Array:
        """What is known of some environments before a plan, their texts being so long."""
        trace = self.trace
        return vector(
            self.history[rows], lengths.astype(np.float32),
            (trace.limit[self.texts[rows]] - lengths).astype(np.float32), self.batches.load[rows],
            trace.meta.temperature, self.first[rows],
        )  # fmt: skip

    def _close(self, done: Mask) -> None:
        """Enter finished cycles into the books and fill the places of ended texts."""
        rows, cycles = done.nonzero()[0], self.head.cycles
        at, plans, texts = self.at[rows], cycles.plans[rows], self.texts[rows]
        seen, tokens = self.trace.facts(at, plans), self.trace.committed[at, plans]
        seconds = self._seconds()[rows]
        self.at[rows] = at + tokens
        ended = self.at[rows] == self.trace.first[texts + 1]
        self.history[rows], self.first[rows] = advance(self.history[rows], seen), 0.0
        figures = np.stack((
            tokens, seconds, seen.accepted, seen.drafted, seen.depth, np.ones(len(rows)), ended,
        ))  # fmt: skip
        over = self._enter(rows, figures)
        lengths = self.trace.prompt[self.texts[over]] + self.at[over]
        lengths -= self.trace.first[self.texts[over]]
        self.books.final[over, : len(FEATURES)] = self._known(over, lengths)
        self._admit(rows[ended])

    def _enter(self, rows: Ints, figures: Floats) -> Ints:
        """Count finished cycles, [FIGURES, rows]; returns the rows whose episodes are over."""
        return self.books.enter(rows, figures)

    def _seconds(self) -> Floats:
        """[B] of the cycles that are over."""
        seconds = self.market.seconds(self.at, self.head.cycles, self.batches)
        if self.spread:
            whole = self.chance.standard_normal(len(self.batches.sizes))
            seconds = seconds * np.exp(self.spread * self.batches.spread(whole))
        return seconds

    def _admit(self, rows: Ints) -> None:
        """The next texts take some places."""
        if len(rows):
            self.texts[rows] = texts = self.take(len(rows))
            self.at[rows] = self.trace.first[texts]
            self.history[rows], self.first[rows] = fresh(len(rows)), 1.0

    def _check(self, actions: Ints) -> None:
        if not len(self.at):
            raise ValueError("reset the environment first")
        if actions.shape != (self.num_envs,) or actions.dtype.kind not in "iu":
            raise ValueError(f"actions must be {self.num_envs} whole numbers, not {actions}")
        if not ((actions >= 0) & (actions < self.head.choices)).all():
            raise ValueError(f"actions must be from 0 to {self.head.choices - 1}, not {actions}")

    def savings(self) -> Floats:
        """[B, choices] seconds every choice saves by the text's end over another one."""
        ask = self.market.ask[self.batches.place] / self.batches.load
        return self.head.savings(self.market.savings(self.at, self.texts, self.batches), ask)

    def state(self) -> dict[str, Any]:
        """What `restore` needs, fit for JSON: texts under way are not kept."""
        return {**self.books.state(), "seed": self.seed, "taken": self.taken}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with the text after those of `state`; the next thing must be a reset."""
        self.books.restore(state)
        self.begin(state["seed"], state["taken"])
