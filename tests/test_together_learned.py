"""One plan for a whole batch: what learners make of it, load by load."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from traces import SMALL, costs_of, invented, lettered, prompts, recorded

from envs.live import SpecDecodeEnv
from envs.replay import ReplayVectorEnv
from envs.rewards import TokensPerSecond
from policies.learners import make_learner
from spec_core import AUTOREGRESSIVE, Fixed, SpeculativeDecoder, load_policy

LOADS = (1, 4)


def accepting(texts: int = 40, plans: int = 4):
    """Texts where plan m accepts m tokens or fewer."""
    chance, most = np.random.default_rng(0), np.arange(plans)
    counts = chance.integers(20, 30, texts)
    lengths = [np.maximum(chance.integers(-3, 4, (n, 1)), 0) for n in counts]
    return invented([np.minimum(length, most) for length in lengths])


def bound_at(load: int, cheap: float = 0.01):
    """Drafts that cost little, and verifying that costs by the node at one load only."""
    costs = costs_of(LOADS, early=False)
    verify = np.ones_like(costs.verify)
    verify[LOADS.index(load)] = np.array(costs.nodes) * 10.0
    return replace(costs, draft=np.full_like(costs.draft, cheap), verify=verify, line=verify[0])


def test_each_load_is_paid_by_its_own_rate():
    env = ReplayVectorEnv(accepting(), bound_at(4), 8, loads=LOADS, together=True, deal_every=0)
    env.reset(seed=0)
    rewards = np.stack([env.step(np.full(8, 3))[1] for _ in range(200)])[50:]
    rate = env.engine.books.reward.values
    assert rate[0] > 2 * rate[1]  # one plan: no load is better than what is usual there
    for load in range(2):
        assert rewards[:, load::2].mean() == pytest.approx(rate.mean(), rel=0.05)


def test_a_texts_tokens_are_worth_what_its_load_pays():
    reward = TokensPerSecond(2, prior=np.inf, loads=np.array([0, 1]))
    all_, tokens, seconds = np.ones(2, bool), np.array([2.0, 2.0]), np.array([1.0, 4.0])
    for _ in range(20):
        made = reward(tokens, seconds, all_, ~all_)
    assert reward.values == pytest.approx([2.0, 0.5]) and made == pytest.approx([1.25, 1.25])
    half = np.array([True, False])
    assert reward(tokens, seconds / 2, half, ~all_)[1] == 0
    other = TokensPerSecond(2, prior=np.inf, loads=np.array([0, 1]))
    other.restore(json.loads(json.dumps(reward.state())))
    assert other.values == pytest.approx(reward.values)


@pytest.mark.parametrize("name", ["table", "full_information", "linucb"])
@pytest.mark.parametrize("dear", [4, 1])
def test_drafting_ends_at_the_load_where_it_does_not_pay(name, dear, tmp_path):
    env = ReplayVectorEnv(accepting(), bound_at(dear), 64, loads=LOADS, together=True)
    learner = make_learner(name, env, 0, **({"updates": 200} if name[0] == "f" else {}))
    learner.learn(env, 20_000, lambda progress: None)
    learner.policy().save(tmp_path)
    policy, seen = load_policy(tmp_path), env.reset(seed=1)[0]
    assert policy.together
    drafts: dict[bool, list[float]] = {True: [], False: []}  # at the load where it is dear, or not
    for _ in range(60):
        plans = policy.chooser.choose(seen)
        assert plans.tolist() == learner.best(seen).tolist()
        at = env.engine.batches.sizes == dear
        for is_dear, mine in ((True, at), (False, ~at)):
            drafts[is_dear].append((plans > 0)[mine].mean())
        seen = env.step(plans)[0]
    assert np.mean(drafts[True]) < 0.1 and np.mean(drafts[False]) > 0.9


@pytest.mark.parametrize("name", ["table", "full_information", "linucb", "ppo"])
def test_what_is_learned_is_what_is_exported_and_what_it_decides_live(name, tmp_path):
    pair, how = lettered(), {"max_new_tokens": 12}
    trace, costs = recorded(pair, SMALL, 7, **how), costs_of((1, 3))
    env = ReplayVectorEnv(trace, costs, 16, loads=(1, 3), together=True)
    small = {"ppo": {"rollout": 16, "batch_size": 64}, "full_information": {"updates": 50}}
    learner = make_learner(name, env, 0, **small.get(name, {}))
    learner.learn(env, 800, lambda progress: None)
    learner.policy().save(tmp_path)
    policy = load_policy(tmp_path)
    live = SpecDecodeEnv(pair, prompts(7), SMALL, loads=(3,), together=True, **how)
    its, _ = live.reset(seed=0)
    chosen = []
    for _ in range(10):
        chosen.append(int(policy.chooser.choose(its[None])[0]))
        assert learner.best(its[None]).tolist() == chosen[-1:]
        its, *_ = live.step(chosen[-1])
    session = live.engine.session
    assert len(session.rows) == 3
    made = SpeculativeDecoder(pair, policy).generate([p["prompt"] for p in prompts(3)], **how)
    assert made.tokens == SpeculativeDecoder(pair, Fixed(AUTOREGRESSIVE)).generate(
        [p["prompt"] for p in prompts(3)], **how
    ).tokens  # fmt: skip
