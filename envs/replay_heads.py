"""The heads over recordings: whom a recorded cycle asks, and which plans the answers come to.

A draft stopped after d levels is the plan of depth d, a trimmed tree that of a smaller budget: so
each head has a trace whose plans are all that its cycles can come to. Arrays are [B]; who shares a
batch is asked together, as in `spec_core.cycles.conversation`. Knows no seconds and no books.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from envs.heads import HEADS, base_plan, node_counts, unknown_head
from envs.market import Batches, Cycles, Ints
from envs.shapes import nested
from envs.trace import Trace
from spec_core.doubt import ALWAYS, Doubt
from spec_core.features import LEVEL_FEATURES, TREE_FEATURES, Array
from spec_core.menu import Menu, plan_name
from spec_core.plan import AUTOREGRESSIVE, Plan

Mask = NDArray[np.bool_]
NEVER = 1 << 20  # a level that no draft reaches
NONE, NOTHING = -20 / 4, 0.0  # path and step, and mass, of a level without candidates


class Head(Protocol):
    """One kind of decision, for all environments at once."""

    name: str
    per_cycle: bool  # an episode is one cycle, not one text
    choices: int
    extra: int  # features besides those known before a plan
    trace: Trace  # under the plans that cycles come to
    cycles: Cycles  # as far as they are over

    def begin(self, at: Ints, rows: Mask) -> Mask:
        """Cycles of some whole batches begin at these positions; which of them ask."""

    def view(self, known: Array) -> Array:
        """The features [B, F] that are decided on."""

    def allowed(self) -> Mask:
        """[B, choices]: actions worth taking."""

    def answer(self, actions: Ints) -> Mask:
        """Go on with everybody's actions; whose cycles are over."""

    def savings(self, saved: NDArray, ask: NDArray) -> NDArray:
        """[B, choices] seconds that choices save, of those [B, M] that the trace's plans save.

        ask: [B] seconds of a question.
        """


class MenuHead:
    """Action i: the i-th plan of the menu, once per cycle."""

    name, per_cycle, extra = "menu", False, 0

    def __init__(self, trace: Trace, batches: Batches) -> None:
        self.trace, self.menu, self.choices = trace, trace.menu, len(trace.menu)
        self.depths = np.array([plan.depth for plan in trace.menu.plans])
        self.none, self.all = (
            np.zeros(len(batches.load), np.int64),
            np.ones_like(batches.load, bool),
        )

    def begin(self, at: Ints, rows: Mask) -> Mask:
        """Always."""
        self.at = at
        return rows

    def view(self, known: Array) -> Array:
        """What is known before a plan."""
        return known

    def allowed(self) -> Mask:
        """Plans that the end of the text or of the draft's context leaves as they are."""
        return self.depths <= np.maximum(self.trace.rooms[self.at], 0)[:, None]

    def answer(self, actions: Ints) -> Mask:
        """The plans."""
        self.cycles = Cycles(actions, actions, self.none)
        return self.all

    def savings(self, saved: NDArray, ask: NDArray) -> NDArray:
        """The choices are the plans."""
        return saved


class StopHead:
    """After each level in doubt of one plan, action 1 stops drafting and 0 goes on."""

    name, per_cycle, choices, extra = "stop", True, 2, len(LEVEL_FEATURES)

    def __init__(self, trace: Trace, batches: Batches, plan: Plan, doubt: Doubt = ALWAYS) -> None:
        self.plan, self.doubt, self.batches = plan, doubt, batches
        self.levels = trace.levels(plan)
        best = self.levels[:, :, 1] * 4
        self.asks, self.stops = doubt.asks(best), doubt.stops(best)  # [N, depth]
        depths = [plan.within(depth, plan.budget) for depth in range(1, plan.depth + 1)]
        self.trace = trace.with_menu(Menu((AUTOREGRESSIVE, *depths)))
        self.fits = np.clip(trace.rooms, 0, plan.depth)
        reach = (self.levels[:, :, 3] > 0).sum(1)  # levels that have candidates
        self.last = np.minimum(reach, self.fits - 1)  # the last level that another may follow
        self.at, self.level, self.own, self.end, self.asked = np.zeros(
            (5, len(batches.load)), np.int64
        )  # own: after which level each has stopped; end: after which the batch has

    def begin(self, at: Ints, rows: Mask) -> Mask:
        """Where some level is in doubt."""
        self.at = at.copy()
        self.level[rows], self.own[rows], self.asked[rows] = 0, NEVER, 0
        return rows & ~self._run(rows)

    def _run(self, going: Mask) -> Mask:
        """Draft whole batches on to their next questions; whose cycles end before."""
        over = np.zeros_like(going)
        while going.any():
            ended = going & ~self._any(self._growing())
            self.end[ended] = self.level[ended]
            over, going = over | ended, going & ~ended
            self.level[going] += 1
            going = going & ~self._any(self._doubtful())
            self._stop(going)
        return over

    def _any(self, truths: Mask) -> Mask:
        return self.batches.spread(self.batches.most(truths))

    def _growing(self) -> Mask:
        """Who has candidates at this level, and a level to come."""
        return (self.level <= self.last[self.at]) & (self.level < self.own)

    def _doubtful(self) -> Mask:
        return self._growing() & self.asks[self.at, self.level - 1]

    def _stop(self, rows: Mask, said: Mask | bool = False) -> None:
        """Note who stops: in doubt those who said so, elsewhere those who are told to."""
        place = self.at, self.level - 1
        stops = np.where(self.asks[place], said, self.stops[place])
        self.own = np.where(rows & stops & self._growing(), self.level, self.own)

    def view(self, known: Array) -> Array:
        """What is known after a level; who has stopped has no candidates."""
        seen = self.levels[self.at, self.level - 1]
        waiting = self.own < self.level
        if waiting.any():
            then = self.levels[self.at[waiting], self.own[waiting] - 1]
            seen[waiting, 1:3], seen[waiting, 3], seen[waiting, 4] = NONE, NOTHING, then[:, 4]
        return np.hstack((known, seen))

    def allowed(self) -> Mask:
        """Stopping is a choice in doubt, while there is something to expand and a level to come."""
        return _if(self._doubtful(), 2)

    def answer(self, actions: Ints) -> Mask:
        """Batches go on to the next question unless nobody drafts on before."""
        self.asked += 1
        every = np.ones(len(actions), bool)
        self._stop(every, actions == 1)
        return self._run(every)

    def savings(self, saved: NDArray, ask: NDArray) -> NDArray:
        """One more level, which is the last, against none."""
        rows, last = np.arange(len(self.level)), saved.shape[1] - 1
        level, more = (np.minimum(self.level + d, last) for d in (0, 1))
        return np.stack((saved[rows, more] - saved[rows, level] - ask, 0 * ask), 1)

    @property
    def cycles(self) -> Cycles:
        """Everybody's tree as far as it grew."""
        return Cycles(self.end, np.minimum(self.own, self.end), self.asked)


class VerifyHead:
    """Action i: verify the i-th number of nodes of a drafted tree, the root included."""

    name, per_cycle, extra = "verify", False, len(TREE_FEATURES)

    def __init__(
        self, trace: Trace, batches: Batches, plan: Plan, budgets: list[int], early: bool
    ) -> None:
        self.plan, self.budgets, self.choices = plan, budgets, len(budgets)
        sizes = sorted({min(budget, plan.budget) for budget in budgets} | {plan.budget, 1})
        trimmed = [replace(plan, budget=size) for size in sizes[1:]]
        self.trace = trace.with_menu(Menu((AUTOREGRESSIVE, *trimmed)))
        self.places = np.array([sizes.index(min(budget, plan.budget)) for budget in budgets])
        self.gains, self.batches = trace.gains(plan), batches
        self.drafted = self.trace.shapes["drafted"][:, -1] > 0
        self.asks = self.drafted if early else trace.rooms > 0  # where nothing ends early: a draft
        self.whole = np.full(len(batches.load), len(sizes) - 1)
        self.cycles = Cycles(self.whole, self.whole, 0 * self.whole)

    def begin(self, at: Ints, rows: Mask) -> Mask:
        """Where something was drafted."""
        self.at, batches = at.copy(), self.batches
        self.cycles = Cycles(self.whole, self.whole, 0 * self.whole)
        return rows & batches.spread(batches.most(self.asks[at]))

    def view(self, known: Array) -> Array:
        """What is known after drafting."""
        return np.hstack((known, self.gains[self.at]))

    def allowed(self) -> Mask:
        """A tree of one node leaves no choice."""
        return _if(self.drafted[self.at], self.choices)

    def answer(self, actions: Ints) -> Mask:
        """The trimmed plans."""
        self.cycles = Cycles(self.whole, self.places[actions], np.ones_like(self.whole))
        return np.ones(len(self.whole), bool)

    def savings(self, saved: NDArray, ask: NDArray) -> NDArray:
        """Not known: a smaller budget's plan would have drafted less."""
        raise ValueError("what every choice saves is known of the heads menu and stop")


def _if(active: Mask, choices: int) -> Mask:
    """Everything where active, elsewhere the first action."""
    return active[:, None] | (np.arange(choices) == 0)


def served(name: str, plan: Plan) -> Plan:
    """The plan, if a recording can have a head decide about it."""
    if not nested(plan):
        raise ValueError(
            f"a recording serves the {name} head chains and beams, not {plan_name(plan)}: "
            "best-first plans and templates are drafted live only"
        )
    return plan


def make_head(
    name: str, trace: Trace, batches: Batches, early: bool, plan: Plan | str | None = None,
    budgets: Sequence[int] | None = None, doubt: Doubt | Sequence[float] = ALWAYS,
) -> Any:  # fmt: skip
    """The head of a name, checked against what was recorded; early: a draft may end so."""
    if name not in HEADS:
        raise unknown_head(name)
    if name == "menu":
        return MenuHead(trace, batches)
    plan = served(name, base_plan(name, plan))
    Menu((AUTOREGRESSIVE, plan)).check(trace.meta.max_nodes, NEVER)
    if name == "stop":
        return StopHead(trace, batches, plan, Doubt.of(doubt))
    return VerifyHead(trace, batches, plan, node_counts(budgets), early)
