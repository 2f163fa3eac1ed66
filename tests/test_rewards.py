"""Rewards: their means and sums are tokens per second; the obvious one ranks policies wrongly."""

from __future__ import annotations

import json
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.rewards import REWARDS, CycleRate, Rate, Telescoped, TokensPerSecond, make_reward

# A policy is the cycles it makes, over and over: (tokens, seconds) each.
CYCLES = {
    "A: 10 tokens in 50 ms, then 1 in 4 ms": [(10.0, 0.050), (1.0, 0.004)],
    "B: always 5.6 tokens in 26 ms": [(5.6, 0.026)],
    "C: always 1 token in 5 ms": [(1.0, 0.005)],
}
A, B, C = CYCLES
TEXT = 616  # tokens of an episode: 112 cycles of A, 110 of B, 616 of C
steps = st.lists(st.tuples(st.integers(1, 9), st.floats(1e-4, 1.0)), min_size=1, max_size=30)


def episode(name: str) -> np.ndarray:
    """The cycles of one text, [n, 2]."""
    mean = np.mean([tokens for tokens, _ in CYCLES[name]])
    return np.array(list(islice(cycle(CYCLES[name]), round(TEXT / mean))))


def earned(reward, cycles: np.ndarray) -> np.ndarray:
    """The rewards of one episode of one environment."""
    made, counted = [], np.ones(1, bool)
    for i, (tokens, seconds) in enumerate(cycles):
        over = np.array([i + 1 == len(cycles)])
        made.append(reward(np.array([tokens]), np.array([seconds]), counted, over)[0])
    return np.array(made)


def rate(cycles: np.ndarray) -> float:
    """Tokens per second."""
    return cycles[:, 0].sum() / cycles[:, 1].sum()


def discounted(rewards: np.ndarray, discount: float) -> float:
    """An episode's return."""
    return float(rewards @ discount ** np.arange(len(rewards)))


def table() -> list[str]:
    """The table of docs/rewards.md."""
    rows = []
    for name in CYCLES:
        cycles = episode(name)
        paid = earned(CycleRate(1), cycles)
        figures = (
            rate(cycles), paid.mean(), discounted(paid, 0.99), paid.sum(),
            earned(TokensPerSecond(1), cycles).mean(), earned(Telescoped(1), cycles).sum(),
        )  # fmt: skip
        rows.append(f"| {name} | " + " | ".join(f"{figure:.0f}" for figure in figures) + " |")
    return rows


def test_the_table_in_the_docs_is_this_one():
    page = (Path(__file__).parent.parent / "docs" / "rewards.md").read_text()
    for row in table():
        assert row in page, f"docs/rewards.md should hold:\n{row}"


def test_the_cycle_rate_prefers_slower_policies():
    speed = {name: rate(episode(name)) for name in CYCLES}
    assert speed[B] > speed[A] > speed[C]
    paid = {name: earned(CycleRate(1), episode(name)) for name in CYCLES}
    assert paid[A].mean() > paid[B].mean()  # per cycle, the uneven one looks best
    for discount in (1.0, 0.99):  # over an episode, the one that needs most cycles
        returns = {name: discounted(paid[name], discount) for name in CYCLES}
        assert returns[C] > 1.3 * max(returns[A], returns[B])


def test_tokens_per_second_prefers_the_faster_policy():
    reward = TokensPerSecond(3, prior=np.inf)  # a policy each, lambda in common
    counted = np.ones(3, bool)
    sums, length = np.zeros(3), 400
    for i in range(length):
        tokens, seconds = np.array([CYCLES[name][i % len(CYCLES[name])] for name in CYCLES]).T
        sums += reward(tokens, seconds, counted, ~counted)
    a, b, c = sums / length
    assert b > reward.rates[0].value > max(a, c)  # more than lambda is earned by the faster only


EASY, HARD = 0, 1
DRAFTED = [(6.0, 0.020), (1.8, 0.020)]  # in the two texts
PLAIN = (1.0, 0.012)


def lead_of_drafting(prior: float) -> np.ndarray:
    """What drafting earns more than decoding plainly in the two texts, at random for 2000 steps."""
    chance, reward, all_ = (
        np.random.default_rng(0),
        TokensPerSecond(2, prior=prior),
        np.ones(2, bool),
    )
    sums, counts = np.zeros((2, 2)), np.zeros((2, 2))
    for _ in range(2000):
        drafts = chance.random(2) < 0.8
        cycles = [DRAFTED[text] if drafts[text] else PLAIN for text in (EASY, HARD)]
        made = reward(*np.array(cycles).T, all_, ~all_)
        sums[[EASY, HARD], drafts.astype(int)] += made
        counts[[EASY, HARD], drafts.astype(int)] += 1
    return np.diff(sums / counts, axis=1)[:, 0]


def test_a_hard_texts_tokens_are_worth_what_they_cost_there():
    rates = [rate(np.array([cycle])) for cycle in (*DRAFTED, PLAIN)]
    assert rates[EASY] > rates[HARD] > rates[2]  # drafting is faster in both texts
    assert (lead_of_drafting(prior=30.0) > 0).all()
    assert lead_of_drafting(prior=np.inf)[HARD] < 0  # at one price for all it looks slower


def test_a_texts_pace_ends_with_it():
    reward, both = TokensPerSecond(2), np.ones(2, bool)
    slow = np.ones(2), np.array([0.01, 0.1])
    for _ in range(50):
        reward(*slow, both, ~both)
    assert reward._worth()[1] > 2 * reward._worth()[0]
    reward(*slow, both, both)
    assert reward._worth() == pytest.approx(1 / reward.values[0])


def test_with_lambda_at_the_best_policys_rate_no_policy_earns_more():
    best = rate(episode(B))
    for name in CYCLES:
        cycles = episode(name)
        earns = (cycles[:, 0] - best * cycles[:, 1]).mean()
        assert earns < -0.02 if name != B else earns == pytest.approx(0)


@settings(max_examples=6)
@given(steps)
def test_the_mean_of_tokens_per_second_is_the_tokens_per_second(some):
    cycles = np.array(some * (4000 // len(some)), float)
    reward = TokensPerSecond(1, start_rate=rate(cycles))
    paid = earned(reward, cycles)[len(cycles) // 2 :]  # once lambda has forgotten how it began
    assert paid.mean() == pytest.approx(rate(cycles), rel=0.05)
    assert reward.rates[0].value == pytest.approx(rate(cycles), rel=0.05)


def test_with_a_fixed_clock_the_mean_is_the_rate():
    chance = np.random.default_rng(0)
    cycles = np.stack((chance.integers(1, 9, 5000).astype(float), np.full(5000, 0.02)), 1)
    assert earned(TokensPerSecond(1), cycles).mean() == pytest.approx(rate(cycles), rel=1e-2)


@given(steps)
def test_a_telescoped_episode_sums_to_its_tokens_per_second(some):
    reward = Telescoped(1)
    for _ in range(2):  # the second episode knows nothing of the first
        assert earned(reward, np.array(some, float)).sum() == pytest.approx(rate(np.array(some)))


def test_telescoped_environments_are_apart():
    reward = Telescoped(2)
    counted = np.ones(2, bool)
    first = reward(np.array([2.0, 3.0]), np.array([1.0, 1.0]), counted, np.array([True, False]))
    second = reward(np.array([4.0, 3.0]), np.array([1.0, 2.0]), counted, ~counted)
    assert first.tolist() == [2, 3] and second.tolist() == [4, -1]
    reward.begin()
    assert reward(np.ones(2), np.ones(2), counted, ~counted).tolist() == [1, 1]


def test_an_episode_of_one_cycle_is_paid_at_its_end_and_without_the_constant():
    reward = make_reward("tokens_per_second", 2, per_cycle=True, start_rate=100.0)
    nothing, no = np.zeros(2), np.zeros(2, bool)
    assert reward(nothing, nothing, no, no).tolist() == [0, 0]
    made = reward(np.array([3.0, 1.0]), np.full(2, 0.02), ~no, ~no)
    level = reward.rates[0].value
    assert level == pytest.approx(100.0, rel=1e-2)
    assert made == pytest.approx((np.array([3.0, 1.0]) - level * 0.02) / 0.02)
    partly = reward(np.array([3.0, 1.0]), np.full(2, 0.02), np.array([True, False]), no)
    assert partly[0] > 0 and partly[1] == 0


def test_the_rate_forgets():
    running = Rate(horizon=100)
    for value in (1.0, 5.0):
        for _ in range(500):
            running.add(np.array([value, value]), np.array([1.0, 1.0]))
        assert running.value == pytest.approx(value, rel=1e-3)
    assert running.mean_seconds == pytest.approx(1.0)
    assert Rate().value == Rate().mean_seconds == 0


@pytest.mark.parametrize("name", REWARDS)
def test_state_goes_through_json(name):
    chance = np.random.default_rng(1)
    one, other = make_reward(name, 3), make_reward(name, 3)
    no = np.zeros(3, bool)
    for _ in range(5):
        one(chance.random(3), chance.random(3), ~no, no)
    other.restore(json.loads(json.dumps(one.state())))
    last = chance.random(3), chance.random(3), ~no, no
    assert (one(*last) == other(*last)).all()


def test_an_unknown_reward_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="'speed'; known: tokens_per_second, telescoped, cycle"):
        make_reward("speed", 1)
    reward = Telescoped(1)
    assert make_reward(reward, 1) is reward


def test_a_text_that_changes_loads_is_as_much_slower_than_others_as_it_was():
    reward = TokensPerSecond(2, prior=0.1, loads=np.array([0, 1]))
    counted, over, none = np.ones(2, bool), np.zeros(2, bool), np.zeros(2)
    for rate, seconds in zip(reward.rates, (1.0, 10.0), strict=True):
        rate.add(np.full(10_000, 1.0), np.full(10_000, seconds))
    for _ in range(50):  # the first text takes twice its load's seconds, the second half of them
        reward(np.ones(2), np.array([2.0, 5.0]), counted, over)
    reward.regroup(np.array([1, 0]))
    gained = reward(np.ones(2), none, counted, over) - reward(none, none, counted, over)
    worth = gained / reward.values.mean() * np.array([10.0, 1.0])
    assert worth == pytest.approx([20.0, 0.5], rel=0.05)
