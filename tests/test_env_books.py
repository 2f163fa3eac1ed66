"""The engine behind the live environments: no token and no second is lost; bad input is named."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest
from live import (
    MENU,
    NEW,
    OPTIONS,
    PROMPTS,
    heads,
    random_actions,
    several,
    single,
    texts,
    ticking,
)
from small import VOCAB, pair_of, target

from envs.live import SpecDecodeVectorEnv
from envs.rewards import TokensPerSecond
from spec_core import Pair
from spec_core.features import NAMES
from spec_core.menu import read_name
from spec_core.verifiers.rejection import Rejection

assert texts and ticking  # fixtures


@heads
@pytest.mark.parametrize("price", [0.0, 0.5])
def test_the_books_balance(head, price, ticking, texts):
    plan = {"stop": "chain-6@0.2", "verify": "chain-6@0.2"}.get(head)
    env = several(head, num_envs=1, plan=plan, decision_seconds=price)
    engine, looks = env.engine, count()
    settled = engine.head.settled

    def look(question):
        answer = settled(question)
        if answer is not None or not price or head == "verify":  # a price is all that it costs
            next(looks)
        return answer

    engine.head.settled = look
    env.reset(seed=1)
    sums, episodes, steps, silent = np.zeros(3), np.zeros(1), 0, 0
    for actions in random_actions(env):
        _, _, over, _, info = env.step(actions)
        steps += 1
        sums += [info["tokens"][0], info["seconds"][0], info["cycles"][0]]
        episodes += info["tokens"]
        silent += info["cycles"][0] > 1
        assert over[0] or head != "stop" or not info["tokens"][0]  # paid when the cycle is over
        if over[0] and head != "stop":
            assert episodes[0] % NEW == 0 and episodes[0] > 0
            episodes[:] = 0
        if len(texts) == 6:
            break
    left = engine.books.figures.sum(0)[:, 0]  # of the text under way
    spent = engine.session.seconds
    features = (next(looks) - len(engine.looks)) / 1000
    right = spent.draft + spent.verify + spent.commit + features + price * steps
    assert sums[1] + left[1] == pytest.approx(right, abs=1e-9)
    now_under_way = len(engine.session.active[0].new)
    assert sums[0] + left[0] == 6 * NEW + now_under_way
    assert sums[2] + left[5] == engine.session.cycles
    assert silent > 1 or head == "menu"


def test_a_batch_shares_its_seconds(ticking):
    env = several()
    env.reset(seed=1)
    total = 0.0
    for actions, _ in zip(random_actions(env), range(20), strict=False):
        info = env.step(actions)[4]
        assert len(set(info["seconds"])) == 1
        total += info["seconds"].sum()
    spent = env.engine.session.seconds
    assert total == pytest.approx(spent.draft + spent.verify + spent.commit + 20 / 1000)


@pytest.mark.parametrize("reward", ["tokens_per_second", "telescoped", "cycle_rate"])
def test_rewards_are_tokens_per_second(reward, ticking):
    env = single(reward=reward)
    env.reset(seed=1)
    rewards, sums, total = [], np.zeros(2), np.zeros(2)
    for actions, _ in zip(random_actions(env), range(120), strict=False):
        _, paid, over, _, info = env.step(actions)
        step = np.array([info["tokens"], info["seconds"]])
        rewards, sums, total = [*rewards, paid], sums + step, total + step
        if reward == "cycle_rate":
            assert paid == pytest.approx(step[0] / step[1])
        if over and reward == "telescoped":
            assert sum(rewards) == pytest.approx(sums[0] / sums[1], rel=1e-9)
        if over and reward != "tokens_per_second":
            rewards, sums = [], np.zeros(2)
        if over:
            env.reset()
    assert len(rewards) < 120 or reward == "tokens_per_second"
    if reward == "tokens_per_second":
        assert np.mean(rewards) == pytest.approx(total[0] / total[1], rel=0.1)


def test_stopped_sequences_idle_until_the_others_have():
    env = several("stop", plan="chain-6")
    env.reset(seed=0)
    _, rewards, over, _, info = env.step(np.array([0, 1, 0]))
    assert not over.any() and not rewards.any() and not info["tokens"].any()
    assert info["active"].tolist() == [True, False, True] and info["outcome"][0] is None
    assert env.action_masks().tolist() == [[True, True], [True, False], [True, True]]
    _, rewards, over, _, info = env.step(np.array([1, 0, 0]))  # what the idle one says is nothing
    assert info["active"].tolist() == [False, False, True] and not rewards.any()
    _, rewards, over, _, info = env.step(np.array([0, 0, 1]))
    assert over.all() and rewards.all() and info["active"].all()
    assert info["drafted"].tolist() == [2, 1, 3] and (info["tokens"] >= 1).all()
    assert info["outcome"][0] is info["outcome"][2]
    assert all(final is not None for final in info["final_obs"])


def test_a_batch_of_chains_is_cut():
    env = several("verify", plan="chain-6")
    env.reset(seed=0)
    for action, nodes in ((1, 1), (3, 4), (0, 0)):
        assert env.step(np.full(3, action))[4]["drafted"].tolist() == [nodes] * 3


def test_an_episode_of_the_stop_head_is_a_cycle():
    env, lengths = single("stop"), []
    name = env.reset(seed=0)[1]["prompt_id"]
    for _ in range(4):
        _, _, over, _, info = env.step(1)
        assert over and info["drafted"] == 1
        features, info = env.reset()  # goes on with the same text
        lengths.append(features[NAMES.index("length")])
        assert info["prompt_id"] == name
    assert lengths == sorted(set(lengths))


def test_a_reset_within_an_episode_takes_the_next_prompts():
    env = single("verify", shuffle=False)
    assert [env.reset()[1]["prompt_id"] for _ in range(3)] == ["p0", "p1", "p2"]
    env.step(0)
    features, info = env.reset()
    assert info["prompt_id"] == "p3" and features[NAMES.index("first")] == 1


def test_masks_leave_what_fits():
    env = single(max_new_tokens=4)
    env.reset(seed=0)
    assert env.action_masks().tolist() == [plan.depth <= 3 for plan in MENU.plans]
    env.step(0)
    assert env.action_masks().tolist() == [plan.depth <= 2 for plan in MENU.plans]


def test_memory_does_not_grow_with_texts(texts):
    env = several(max_new_tokens=3)
    env.reset(seed=0)
    for actions in random_actions(env):
        env.step(actions)
        if len(texts) > 30:
            break
    engine = env.engine
    assert set(engine.extractor.requests) <= set(engine.session.rows)
    assert sum(len(s.tokens) > 0 for s in engine.session.sequences) == 3 == len(engine.places)


LONG = {"id": "long", "domain": "d", "prompt": [1] * 200}
BAD = {
    "there are no prompts": {"prompts": []},
    "prompt long: the prompt has 200 tokens, the model's context is 128": {"prompts": [LONG]},
    "prompt p: a prompt token is not in": {"prompts": [{"id": "p", "prompt": [VOCAB]}]},
    "a prompt is an object": {"prompts": ["text"]},
    "plan chain-20 verifies 21 nodes, 16 are the most": {"menu": ["ar", "chain-20"]},
    "the menu lacks the plain": {"menu": ["chain-2"]},
    "no head 'tree'; known: menu, stop, verify": {"head": "tree"},
    "no reward 'speed'; known: tokens": {"reward": "speed"},
    "num_envs must be at least 1": {"num_envs": 0},
    "max_new_tokens must be at least 1": {"max_new_tokens": 0},
    "temperature must be": {"temperature": -1.0},
    "the stop head needs a plan of 2 levels": {"head": "stop", "plan": "chain-1"},
    "the verify head needs a plan of 1 levels": {"head": "verify", "plan": "ar"},
    "budgets must be node counts": {"head": "verify", "budgets": [0, 2]},
    "the verify head drops drawn nodes": {
        "head": "verify", "verifier": Rejection(), "temperature": 1.0,
    },
    "needs a pair with a draft": {"head": "stop", "pair": Pair(target(), None)},
    "render_mode must be": {"render_mode": "human"},
}  # fmt: skip


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named(message):
    options = {"pair": pair_of("near"), "prompts": PROMPTS, **OPTIONS, **BAD[message]}
    with pytest.raises(ValueError, match=message):
        SpecDecodeVectorEnv(**options)


def test_bad_calls_are_named():
    env = several("stop", plan=None)
    assert env.engine.head.plan == read_name("chain-12")
    env.reset()
    for actions in ([0, 1], [0, 0, 2], [-1, 0, 0]):
        with pytest.raises(ValueError, match="action"):
            env.step(np.array(actions))
    with pytest.raises(ValueError, match="without a mask"):
        env.reset(options={"reset_mask": np.ones(3, bool)})
    with pytest.raises(ValueError, match="raise max_new_tokens"):
        several("stop", max_new_tokens=2).reset()


def test_a_reward_object_may_be_given():
    reward = TokensPerSecond(3, start_rate=200.0)
    assert several(reward=reward).engine.books.reward is reward
