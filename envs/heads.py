"""What a learner decides: a plan per cycle, a stop per draft level, or nodes to verify.

A head turns the questions of a cycle into feature vectors and the learner's actions into answers.
Knows no clock, no prompts and no rewards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from spec_core.cycles import Answer, Question
from spec_core.doubt import ALWAYS, Doubt
from spec_core.drafting import LevelView
from spec_core.features import LEVEL_FEATURES, TREE_FEATURES
from spec_core.learned import level_vector, tree_vector
from spec_core.menu import DEFAULT_MENU, Menu, read_plan
from spec_core.pair import Pair
from spec_core.plan import AUTOREGRESSIVE, Plan
from spec_core.session import Observation, Session
from spec_core.tree import Tree
from spec_core.verifiers.base import Verifier

Array = NDArray[np.float32]
Actions = NDArray[np.int64]
Mask = NDArray[np.bool_]
CHAIN = "chain-12"
BUDGETS = (1, 2, 3, 5, 7, 9, 13)


class Head(Protocol):
    """One kind of decision; arrays are in the order of the session's rows."""

    name: str
    levels: bool | Doubt  # the cycle asks after each draft level, or after those in doubt
    trims: bool  # the cycle asks how much of a tree to verify
    per_cycle: bool  # an episode is one cycle, not one text
    choices: int
    extra: int  # features besides those known before a plan

    def settled(self, question: Question) -> Answer | None:
        """The answer to what is not the learner's to decide; None: it is."""

    def view(self, question: Question, known: Array) -> Array:
        """The features [B, F] that the learner decides on, as exported policies see them."""

    def answer(self, actions: Actions) -> Answer:
        """What the actions say."""

    def allowed(self, question: Question, session: Session) -> Mask:
        """[B, choices]: actions worth taking; where only one is, there is nothing to decide."""


class MenuHead:
    """Action i: the i-th plan of the menu, once per cycle."""

    name = "menu"
    levels: bool | Doubt = False
    trims = per_cycle = False
    extra = 0

    def __init__(self, menu: Menu) -> None:
        self.menu, self.choices = menu, len(menu)
        self.depths = np.array([plan.depth for plan in menu.plans])

    def settled(self, question: Question) -> Answer | None:
        """Nothing."""
        return None

    def view(self, question: Question, known: Array) -> Array:
        """What is known before a plan."""
        return known

    def answer(self, actions: Actions) -> Answer:
        """Plans."""
        return [self.menu.plans[i] for i in actions.tolist()]

    def allowed(self, question: Question, session: Session) -> Mask:
        """Plans that the end of the text or of the draft's context leaves as they are."""
        deepest = Plan(int(self.depths.max()), budget=2)
        room = [plan.depth for plan in session.fit([deepest] * len(session.rows))]
        return self.depths <= np.array(room)[:, None]


class StopHead:
    """After each level in doubt of one plan, action 1 stops drafting and 0 goes on."""

    name = "stop"
    per_cycle = True
    trims = False
    choices, extra = 2, len(LEVEL_FEATURES)

    def __init__(self, plan: Plan, doubt: Doubt = ALWAYS) -> None:
        self.plan, self.doubt = plan, doubt
        self.levels: bool | Doubt = doubt

    def settled(self, question: Question) -> Answer | None:
        """The plan is always the same."""
        return [self.plan] * question.batch if isinstance(question, Observation) else None

    def view(self, question: Question, known: Array) -> Array:
        """What is known after a level."""
        assert isinstance(question, LevelView)
        return level_vector(known, question)

    def answer(self, actions: Actions) -> Answer:
        """Who stops."""
        return [action == 1 for action in actions.tolist()]

    def allowed(self, question: Question, session: Session) -> Mask:
        """Stopping is a choice in doubt, while there is something to expand and a level to come."""
        assert isinstance(question, LevelView)
        return _if(np.array(question.asked), 2)


class VerifyHead:
    """Action i: verify the i-th number of nodes of a drafted tree, the root included."""

    name = "verify"
    levels: bool | Doubt = False
    per_cycle = False
    trims = True
    extra = len(TREE_FEATURES)

    def __init__(self, plan: Plan, budgets: list[int]) -> None:
        self.plan, self.budgets, self.choices = plan, budgets, len(budgets)

    def settled(self, question: Question) -> Answer | None:
        """The plan is always the same."""
        return [self.plan] * question.batch if isinstance(question, Observation) else None

    def view(self, question: Question, known: Array) -> Array:
        """What is known after drafting."""
        assert isinstance(question, Tree)
        return tree_vector(known, question)

    def answer(self, actions: Actions) -> Answer:
        """Node counts."""
        return [self.budgets[i] for i in actions.tolist()]

    def allowed(self, question: Question, session: Session) -> Mask:
        """A tree of one node leaves no choice."""
        assert isinstance(question, Tree)
        return _if(np.array(question.counts) > 1, self.choices)


def _if(active: Mask, choices: int) -> Mask:
    """Everything where active, elsewhere the first action."""
    return active[:, None] | (np.arange(choices) == 0)


HEADS = ("menu", "stop", "verify")


def unknown_head(name: str) -> ValueError:
    """What to say of a name that is none."""
    return ValueError(f"no head {name!r}; known: {', '.join(HEADS)}")


def make_head(
    name: str, pair: Pair, verifier: Verifier, temperature: float, max_nodes: int,
    menu: Menu | Sequence[Any] = DEFAULT_MENU, plan: Plan | str | None = None,
    budgets: Sequence[int] | None = None, doubt: Doubt | Sequence[float] = ALWAYS,
) -> Head:  # fmt: skip
    """The head of a name, checked against what can be run."""
    if name not in HEADS:
        raise unknown_head(name)
    vocabulary = pair.target.vocab_size
    if name == "menu":
        menu = menu if isinstance(menu, Menu) else Menu.of(menu)
        menu.check(max_nodes, vocabulary)
        return MenuHead(menu)
    if pair.drafter is None:
        raise ValueError(f"the {name} head needs a pair with a draft; take the menu head")
    plan = base_plan(name, plan)
    Menu((AUTOREGRESSIVE, plan)).check(max_nodes, vocabulary)
    if name == "stop":
        return StopHead(plan, Doubt.of(doubt))
    if verifier.sampled and temperature > 0:
        raise ValueError("the verify head drops drawn nodes: take verifier=Coupled() (the default)")
    return VerifyHead(plan, node_counts(budgets))


def base_plan(name: str, plan: Plan | str | None) -> Plan:
    """The plan of the heads "stop" and "verify"; refuses one that leaves nothing to decide."""
    plan = plan if isinstance(plan, Plan) else read_plan(plan or CHAIN)
    least = 2 if name == "stop" else 1
    if plan.depth < least or plan.budget <= least:
        raise ValueError(f"the {name} head needs a plan of {least} levels or more, such as {CHAIN}")
    return plan


def node_counts(budgets: Sequence[int] | None) -> list[int]:
    """What the verify head chooses from."""
    budgets = BUDGETS if budgets is None else budgets
    if len(budgets) == 0 or min(budgets) < 1:
        raise ValueError("budgets must be node counts from 1 (the root) on, such as [1, 3, 5, 9]")
    return list(budgets)
