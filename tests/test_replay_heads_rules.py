"""The stop and the verify head over recordings: Gymnasium's rules, states, bad options."""

from __future__ import annotations

import json
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from replays import BUDGETS, EXTRA, MENU, draw, heads
from traces import costs_of, lettered, recorded

import envs  # noqa: F401  (registers the environments)
from envs.replay import ReplayEnv, ReplayVectorEnv
from envs.sb3 import SB3VecEnv
from spec_core.features import FEATURES


@heads
def test_both_checkers_pass(head, plan):
    from stable_baselines3.common.env_checker import check_env as check_sb3

    env = gymnasium.make(
        "SpecDecodeReplay-v0", trace=recorded(lettered(), MENU), costs=costs_of(), head=head,
        plan=plan, budgets=BUDGETS,
    )  # fmt: skip
    assert env.observation_space.shape == (len(FEATURES) + EXTRA[head],)
    assert env.action_space.n == {"stop": 2, "verify": 4}[head]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*observation space (min|max)imum value")
        check_env(env.unwrapped, skip_render_check=True)
        check_sb3(env.unwrapped)


@heads
def test_ended_episodes_begin_anew_in_the_same_step(head, plan):
    env = gymnasium.make_vec(
        "SpecDecodeReplay-v0", num_envs=8, trace=recorded(lettered(), MENU), head=head, plan=plan,
        costs=costs_of((1, 3)), loads=(1, 3), budgets=BUDGETS,
    )  # fmt: skip
    features, info = env.reset(seed=3)
    chance, ended, tokens = np.random.default_rng(0), 0, 0
    for _ in range(120):
        masks = env.unwrapped.action_masks()
        assert masks[:, 0].all() and (info["active"] == (masks.sum(1) > 1)).all()
        features, rewards, over, truncated, info = env.step(draw(masks, chance, 0.5))
        assert features in env.observation_space and not truncated.any()
        assert ("final_obs" in info) == over.any() and np.isfinite(rewards).all()
        if over.any():
            assert [last is not None for last in info["final_obs"]] == over.tolist()
            assert info["_final_info"].tolist() == over.tolist()
            finals = np.stack([last for last in info["final_obs"] if last is not None])
            assert not finals[:, len(FEATURES) :].any() and not finals[:, len(FEATURES) - 1].any()
        if head == "verify":
            assert (over == info["ended"]).all()
        else:
            assert (info["cycles"] >= over).all() and not rewards[~over].any()
        ended, tokens = ended + info["ended"].sum(), tokens + info["tokens"].sum()
    assert ended > 8 and tokens > 10 * ended
    left = env.unwrapped.engine.books.figures.sum(0)[0].sum()  # of cycles that were not paid yet
    engine = env.unwrapped.engine
    assert tokens + left == 10 * (engine.taken - 8) + engine.trace.place[engine.at].sum()


@heads
def test_a_state_goes_on(head, plan):
    trace = recorded(lettered(), MENU, count=5)
    options = {"num_envs": 3, "noise": True, "head": head, "plan": plan}

    def play(env, steps: int, seed: int | None = None) -> list:
        env.reset(seed=seed)
        seen = [env.step(np.arange(3) % 2) for _ in range(steps)]
        return [(s[0].tolist(), s[1].tolist(), s[4]["seconds"].tolist()) for s in seen]

    one, other = (ReplayVectorEnv(trace, costs_of(), **options) for _ in range(2))
    assert play(one, 20, seed=4) == play(other, 20, seed=4) != play(one, 20, seed=5)
    state = json.loads(json.dumps(one.state()))
    other.restore(state)
    one.restore(state)
    assert play(one, 10) == play(other, 10)


def test_a_single_environment_goes_on_with_its_text():
    trace = recorded(lettered(), MENU)
    env = ReplayEnv(trace, costs_of(), head="stop", plan="chain-6")
    name = env.reset(seed=0)[1]["prompt_id"]
    for _ in range(3):
        _, _, over, _, info = env.step(1)
        assert over and info["drafted"] == 1 and env.reset()[1]["prompt_id"] == name


def test_sb3_takes_it():
    trace = recorded(lettered(), MENU)
    env = SB3VecEnv(ReplayVectorEnv(trace, costs_of(), num_envs=4, head="stop", plan="chain-6"))
    assert env.reset().shape == (4, len(FEATURES) + EXTRA["stop"])
    _, _, done, infos = env.step(np.ones(4, int))
    assert done.all() and all("terminal_observation" in info for info in infos)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"head": "tree"}, "no head 'tree'; known: menu, stop, verify"),
        ({"head": "stop", "plan": "chain-9"}, "chain-9 is no part of what was recorded"),
        ({"head": "stop"}, "chain-12 is no part of what was recorded"),
        ({"head": "verify", "plan": "best-4x2n8"}, "chains and beams, not best-4x2n8"),
        ({"head": "stop", "plan": "chain-1"}, "needs a plan of 2 levels"),
        ({"head": "verify", "plan": "ar"}, "needs a plan of 1 levels"),
        ({"head": "verify", "plan": "chain-6", "budgets": [0]}, "budgets must be node counts"),
        ({"head": "stop", "plan": "beam-4x2n99"}, "verifies 100 nodes, 64 are the most"),
    ],
)
def test_what_a_recording_does_not_serve_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        ReplayEnv(recorded(lettered(), MENU), costs_of(), **options)


def test_texts_without_a_decision_and_other_heads_questions_are_refused():
    short = recorded(lettered(), MENU, max_new_tokens=2)
    with pytest.raises(ValueError, match="without a decision"):
        ReplayEnv(short, costs_of(), head="stop", plan="chain-6").reset()
    env = ReplayEnv(recorded(lettered(), MENU), costs_of(), head="verify", plan="chain-6")
    env.reset()
    with pytest.raises(ValueError, match="heads menu and stop"):
        env.savings()
    env = ReplayEnv(recorded(lettered(), MENU), costs_of(), head="stop", plan="chain-6")
    env.reset()
    with pytest.raises(ValueError, match="from 0 to 1"):
        env.step(2)
