"""The cycle: plan, draft, verify, accept. Written once, here; knows no models."""

from __future__ import annotations

from collections.abc import Generator

from spec_core.clock import now
from spec_core.doubt import Doubt
from spec_core.level import LevelView, Stops
from spec_core.plan import Plan
from spec_core.policy import Policy
from spec_core.session import Observation, Outcome, Session
from spec_core.tree import Tree

Question = Observation | LevelView | Tree
Answer = list[Plan] | Stops | list[int]


def conversation(
    session: Session, levels: bool | Doubt = False, trims: bool = False
) -> Generator[Question, Answer, Outcome]:
    """One round of everybody: plan, draft, verify. The only place where it is written.

    It asks for what it needs: an Observation wants a plan per sequence; a LevelView (after all
    levels, or those in doubt) a mask [B] of who stops drafting; a Tree (only if trims) a budget
    per sequence.
    """
    clock = session.clock
    start = clock.mark()
    plans = yield session.observe()
    planned, waits = clock.mark(), []
    growing = session.draft(plans, levels)  # type: ignore[arg-type]
    try:
        view = next(growing)
        while True:
            asked = clock.mark()
            stopping = yield view
            waits.append((asked, clock.mark()))
            view = growing.send(stopping)  # type: ignore[arg-type]
    except StopIteration as grown:
        tree = grown.value
    drafted = clock.mark()
    if trims and tree.nodes > 1:
        tree = tree.cut((yield tree))
    trimmed = clock.mark()
    outcome = session.verify(tree)
    waited = sum(clock.between(*wait) for wait in waits)
    outcome.seconds.draft = clock.between(planned, drafted) - waited
    decided = clock.between(start, planned) + clock.between(drafted, trimmed)
    outcome.seconds.decide = decided + waited
    session.count(outcome)
    return outcome


def cycle(session: Session, policy: Policy) -> Outcome:
    """One round in which a policy answers, and learns from the outcome."""
    talk = conversation(session, policy.levels, policy.trims)
    question = next(talk)
    try:
        while True:
            question = talk.send(_answer(policy, question))
    except StopIteration as done:
        outcome: Outcome = done.value
    start = now()
    policy.update(outcome)
    learning = now() - start
    outcome.seconds.decide += learning
    session.seconds.decide += learning
    return outcome


def _answer(policy: Policy, question: Question) -> Answer:
    if isinstance(question, Observation):
        return policy.plan(question)
    return policy.stop(question) if isinstance(question, LevelView) else policy.trim(question)
