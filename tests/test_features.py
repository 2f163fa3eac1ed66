"""Features: facts against a slow reference; each request has its own history."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import Mixed, pair_of

from spec_core import Plan, SpeculativeDecoder, cycle
from spec_core.extractor import Extractor
from spec_core.facts import Facts, stop_logits, told, told_on_device
from spec_core.features import (
    FEATURES,
    HISTORY,
    LEVEL_FEATURES,
    NAMES,
    TREE_FEATURES,
    advance,
    facts,
    fresh,
    known,
    level_features,
    moved,
    target_facts,
    tree_features,
    vector,
)  # fmt: skip
from spec_core.policy import Silent

PROMPTS = [[1, 2, 3], [5], [7, 8, 9, 10, 11]]
PLANS = [Plan(0, budget=1), Plan(3, budget=4), Plan(4, width=2, budget=7), Plan(5, threshold=0.2)]


def outcomes(temperature: float = 0.0, prompts=PROMPTS, seed: int = 0):
    """Outcomes of random plans, with the observation before each."""
    decoder = SpeculativeDecoder(pair_of("near"), Mixed(PLANS, seed))
    session = decoder.open(prompts, max_new_tokens=24, seed=3, temperature=temperature)
    while not session.done:
        before = session.observe()
        yield before, cycle(session, decoder.policy)


def slow(outcome, b: int) -> dict[str, float]:
    """One sequence's facts, one number at a time."""
    tree, path = outcome.tree, outcome.path[b]
    nodes = [n for n in range(1, tree.nodes) if math.isfinite(tree.scores[b, n])]
    stop = path[-1] if path else 0
    children = [n for n in nodes if tree.parents[b, n] == stop]
    logs = outcome.logits[b, stop].double().log_softmax(-1)
    best = logs.sort(descending=True).values
    return {
        "accepted": len(path),
        "drafted": len(nodes),
        "depth": max((int(tree.depths[b, n]) for n in nodes), default=0),
        "expected": sum(math.exp(tree.scores[b, n]) for n in nodes),
        "trust": float(tree.scores[b, stop]) / len(path) if path else 0.0,
        "doubt": max(
            (math.exp(tree.scores[b, n] - tree.scores[b, stop]) for n in children), default=0
        ),
        "top": float(best[0]),
        "margin": float(best[0] - best[1]),
        "entropy": -float((logs.exp() * logs).sum()),
        "surprise": float(logs[outcome.bonus[b]]),
    }  # fmt: skip


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_facts_are_those_of_the_reference(temperature):
    seen = 0
    for _, outcome in outcomes(temperature):
        found = facts(outcome)
        for b in range(len(outcome.rows)):
            for name, value in slow(outcome, b).items():
                assert abs(getattr(found[b], name) - value) < 1e-4, name
            seen += outcome.accepted[b] > 0
    assert seen > 5


def test_a_batch_changes_only_the_batch_feature():
    """Each request has its own history: alone or beside others, the same plans give the same."""
    alone = {row: [] for row in range(3)}
    together = {row: [] for row in range(3)}
    for row, prompt in enumerate(PROMPTS):
        extractor = Extractor()
        for before, _ in outcomes_of(Plan(3, budget=4), [prompt], [row]):
            alone[row].append(extractor.observe(before)[0])
    extractor = Extractor()
    for before, _ in outcomes_of(Plan(3, budget=4), PROMPTS, [0, 1, 2]):
        for row, seen in zip(before.rows, extractor.observe(before), strict=True):
            together[row].append(seen)
    batch = NAMES.index("batch")
    for row in range(3):
        for a, b in zip(alone[row], together[row], strict=True):
            assert np.abs(np.delete(a, batch) - np.delete(b, batch)).max() < 1e-4
    assert together[0][0][batch] > alone[0][0][batch] == 0


def stacked(seen: list[Facts]) -> Facts:
    """Facts of several sequences as arrays."""
    return Facts(*np.array(seen).T)


def outcomes_of(plan: Plan, prompts, ids):
    """Outcomes of one plan."""
    decoder = SpeculativeDecoder(pair_of("near"), Mixed([plan]))
    session = decoder.open(prompts, max_new_tokens=16, seed=3, ids=[str(i) for i in ids])
    while not session.done:
        before = session.observe()
        yield before, cycle(session, decoder.policy)


def test_the_first_cycle_is_told_and_then_never_again():
    extractor, first = Extractor(), NAMES.index("first")
    told = [extractor.observe(before)[:, first].tolist() for before, _ in outcomes()]
    assert told[0] == [1, 1, 1] and not any(any(t) for t in told[1:])
    again = [extractor.observe(before)[:, first].tolist() for before, _ in outcomes()]
    assert again == told  # a new session begins afresh


def test_asking_twice_in_a_cycle_changes_nothing():
    extractor = Extractor(2)
    for before, _ in outcomes():
        assert np.array_equal(extractor.observe(before), extractor.observe(before))


def test_names_are_distinct_and_few():
    names = [f.name for f in (*FEATURES, *LEVEL_FEATURES, *TREE_FEATURES)]
    assert len(set(names)) == len(names) and len(FEATURES) + len(LEVEL_FEATURES) <= 32
    assert {f.known for f in FEATURES} == {"lagged", "before"}
    assert [f.known for f in FEATURES[:HISTORY]] == ["lagged"] * HISTORY


def test_plain_steps_leave_acceptance_as_it_was():
    history = fresh(1)
    for _, outcome in outcomes_of(Plan(3, budget=4), PROMPTS[:1], [0]):
        history = advance(history, stacked(facts(outcome)))
    plain = next(outcome for _, outcome in outcomes_of(Plan(0, budget=1), PROMPTS[:1], [0]))
    after = advance(history, stacked(facts(plain)))
    for name in ("accepted_fast", "accepted_slow", "hit_fast", "hit_slow", "surplus_fast"):
        assert after[0, NAMES.index(name)] == history[0, NAMES.index(name)], name
    assert after[0, NAMES.index("since")] == history[0, NAMES.index("since")] + 1 / 8


def test_a_refused_token_was_tried_and_a_full_tree_refused_none():
    history, hit = fresh(1)[0].tolist(), NAMES.index("hit_fast")
    shares = {(3, 3): 3 / 3, (1, 3): 1 / 2, (0, 3): 0 / 1, (0, 0): 0.5}  # of tried; else as before
    for (accepted, depth), share in shares.items():
        after = moved(history, Facts(accepted, depth, depth, *[0.0] * 7))
        assert after[hit] == 0.5 + 0.5 * (share - 0.5)
        assert after[NAMES.index("full")] == (accepted == depth > 0)


def test_target_facts_bear_infinite_logits():
    logits = np.array([[0.0, -np.inf, 1.0]], np.float32)
    top, margin, entropy, surprise = target_facts(logits, [0])
    right = torch.tensor([0.0, 1.0]).log_softmax(0)
    assert np.allclose([top[0], margin[0], surprise[0]], [right[1], 1.0, right[0]])
    assert np.isclose(entropy[0], -(right.exp() * right).sum())


shares = st.floats(-20, 20, width=32)
cycles = st.tuples(st.integers(0, 9), st.integers(0, 60), st.integers(0, 9), *[shares] * 7)


@given(st.lists(st.lists(cycles, min_size=3, max_size=3), min_size=1, max_size=12))
def test_histories_of_numbers_and_of_arrays_are_the_same_bits(rounds):
    """What decoding does row by row, replay does for thousands of rows."""
    alone, together = fresh(3).tolist(), fresh(3)
    for seen in rounds:
        alone = [moved(h, Facts(*row)) for h, row in zip(alone, seen, strict=True)]
        together = advance(together, Facts(*np.array(seen, np.float32).T))
    assert np.array_equal(np.array(alone), together)


@given(st.lists(st.tuples(*[st.integers(1, 3000)] * 3, st.booleans()), min_size=1), shares)
def test_features_of_numbers_and_of_arrays_are_the_same_bits(rows, temperature):
    history = np.random.default_rng(0).normal(size=(len(rows), HISTORY))
    columns = np.array(rows, np.float32).T
    together = vector(history, *columns[:3], temperature, columns[3])
    alone = [
        [*h, *known(length, remaining, math.log2(batch), temperature, first)]
        for h, (length, remaining, batch, first) in zip(history.tolist(), rows, strict=True)
    ]
    assert np.array_equal(np.array(alone, np.float32), together)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_target_is_read_alike_on_every_device_alone_and_among_others(temperature):
    for _, outcome in outcomes(temperature):
        rows = stop_logits(outcome)
        rows[rows < -1] = -torch.inf
        here = [told(row.numpy(), b) for row, b in zip(rows, outcome.bonus, strict=True)]
        whole = np.stack(target_facts(rows.numpy(), outcome.bonus), 1)
        assert np.array_equal(np.array(here, np.float32), whole)
        there = told_on_device(rows, outcome.bonus)
        assert np.allclose(np.clip(there, -1e3, 1e3), np.clip(here, -1e3, 1e3), atol=1e-4)


class Asking(Silent):
    """Keeps the features of every question."""

    levels = trims = True

    def __init__(self, plan: Plan) -> None:
        self.plan_, self.level, self.tree = plan, [], []

    def plan(self, observation):
        return [self.plan_] * observation.batch

    def stop(self, level):
        self.level.append((level, level_features(level)))
        return torch.zeros(len(level.scores), dtype=torch.bool)

    def trim(self, tree):
        self.tree.append((tree, tree_features(tree)))
        return [tree.nodes] * len(tree.tokens)


@pytest.mark.parametrize("plan", [Plan(5, budget=6), Plan(4, width=3, budget=20)])
@pytest.mark.parametrize("batch", [1, 3])
def test_level_and_tree_features_say_what_they_are_named_for(plan, batch):
    asking = Asking(plan)
    SpeculativeDecoder(pair_of("near"), asking).generate(PROMPTS[:batch], max_new_tokens=12)
    assert asking.level and asking.tree
    for view, found in asking.level:
        assert found.shape == (len(view.scores), len(LEVEL_FEATURES)) and np.isfinite(found).all()
        assert np.allclose(found[:, 0], view.depth / 8)
        assert np.allclose(found[:, 1] * 4, view.scores.amax(1).clamp(min=-20), atol=1e-4)
        total = sum(scores.exp().sum(1) for scores in view.pool[1:]) / 8
        assert np.allclose(found[:, 4], total, atol=1e-4)
    for tree, found in asking.tree:
        whole = (tree.scores[:, 1:].exp().sum(1) / 8).numpy()
        assert np.isfinite(found).all() and (np.diff(found, axis=1) >= -1e-6).all()
        assert (found[:, -1] <= whole + 1e-5).all()
