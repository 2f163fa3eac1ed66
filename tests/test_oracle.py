"""The oracle against brute force; static plans and the share of the gap that was closed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from traces import costs_of, invented, lettered, recorded

from envs.cost import price
from envs.oracle import gap_closed, oracle, static
from envs.replay import ReplayVectorEnv
from envs.runs import run, run_fixed


@st.composite
def priced(draw):
    """A tiny recording and seconds for every plan at every position."""
    plans = draw(st.integers(1, 3))
    counts = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    chance = np.random.default_rng(draw(st.integers(0, 10**6)))
    accepted = [chance.integers(0, 4, (count, plans)).astype(np.uint8) for count in counts]
    trace = invented(accepted)
    return trace, chance.uniform(0.1, 3, (len(trace), plans))


def every_way(trace, seconds, at: int, end: int) -> list[tuple[float, list[int]]]:
    """All plan sequences from a position to the end of the text, with their seconds."""
    if at == end:
        return [(0.0, [])]
    ways = []
    for plan in range(seconds.shape[1]):
        onward = min(at + int(trace.shapes["accepted"][at, plan]) + 1, end)
        rest = every_way(trace, seconds, onward, end)
        ways += [(seconds[at, plan] + cost, [plan, *plans]) for cost, plans in rest]
    return ways


@given(priced())
@settings(max_examples=60, deadline=None)
def test_no_sequence_of_plans_is_quicker_than_the_oracle(given_):
    trace, seconds = given_
    best = oracle(trace, seconds)
    for text, (first, end) in enumerate(zip(trace.first[:-1], trace.first[1:], strict=True)):
        ways = every_way(trace, seconds, first, end)
        assert best.seconds[text] == pytest.approx(min(ways)[0], rel=1e-12)
        at, spent = first, 0.0
        while at < end:  # and its plans do take that long
            plan = best.plans[at]
            spent, at = spent + seconds[at, plan], at + trace.committed[at, plan]
        assert spent == pytest.approx(best.seconds[text], rel=1e-12)


@given(priced())
@settings(max_examples=60, deadline=None)
def test_static_plans_are_the_best_in_hindsight_and_never_beat_the_oracle(given_):
    trace, seconds = given_
    found, best = static(trace, seconds), oracle(trace, seconds)
    plans = range(seconds.shape[1])
    for text, (first, end) in enumerate(zip(trace.first[:-1], trace.first[1:], strict=True)):
        for plan in plans:
            same = [w for w in every_way(trace, seconds, first, end) if set(w[1]) == {plan}]
            assert found.seconds[text, plan] == pytest.approx(same[0][0])
    assert found.speed() == pytest.approx(max(found.speed(plan) for plan in plans))
    rising = (found.speed(), found.speed(found.by_domain), found.speed(found.by_text), best.speed)
    assert all(a <= b * (1 + 1e-12) for a, b in pairwise(rising))


def test_the_gap():
    assert gap_closed(11, 10, 14) == 0.25
    assert gap_closed(9, 10, 14) == -0.25
    with pytest.raises(ValueError, match="no gap"):
        gap_closed(11, 10, 10)


def test_running_a_recording_agrees_with_the_sweep_over_it():
    trace, costs = recorded(lettered(), max_new_tokens=12), costs_of()
    found = static(trace, price(trace, costs).seconds)
    for plan in range(len(trace.menu)):
        fixed = run_fixed(trace, costs, plan)
        chosen = run(trace, costs, lambda f, p=plan: np.full(len(f), p), learned=False)
        for totals in (fixed, chosen):
            assert totals.seconds == pytest.approx(found.seconds[:, plan])
            assert totals.speed == pytest.approx(found.speed(plan))
        for name in ("tokens", "cycles", "drafted", "accepted"):
            assert getattr(fixed, name).tolist() == getattr(chosen, name).tolist()
    charged = run(trace, costs, lambda f: np.zeros(len(f), int))
    assert charged.seconds == pytest.approx(found.seconds[:, 0] + 0.25 * charged.cycles)


@pytest.mark.parametrize("loads", [(1,), (2, 4)])
def test_what_is_saved_is_counted_at_the_texts_pace_drawn_towards_that_of_all(loads):
    trace = recorded(lettered())
    env = ReplayVectorEnv(trace, costs_of((1, 2, 4)), num_envs=6, loads=loads, learned=False)
    env.reset(seed=0)
    for _ in range(5):
        engine, saved = env.engine, env.savings()
        for i, load in enumerate(engine.batches.load.astype(int)):
            prices = price(trace, costs_of((1, 2, 4)), int(load)).seconds / load
            plans, text, at = static(trace, prices), engine.texts[i], engine.at[i]
            seconds, tokens = plans.seconds[:, plans.pooled], plans.tokens
            share = tokens[text] / (tokens[text] + 100)
            pace = share * seconds[text] / tokens[text] + (1 - share) * seconds.sum() / tokens.sum()
            assert np.allclose(saved[i], trace.committed[at] * pace - prices[at])
        env.step(np.zeros(6, np.int64))
