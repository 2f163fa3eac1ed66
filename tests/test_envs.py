"""The live environments: lossless, by Gymnasium's rules, texts one after the other."""

from __future__ import annotations

import json
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from live import (
    HEADS,
    MENU,
    NEW,
    OPTIONS,
    PROMPTS,
    heads,
    plain,
    random_actions,
    several,
    single,
    texts,
)
from small import Letters, pair_of

import envs
from envs.live import SpecDecodeVectorEnv
from envs.sb3 import SB3VecEnv
from spec_core import Pair
from spec_core.features import NAMES

assert envs.__doc__ and texts  # imported for what they register


@heads
def test_both_checkers_pass(head):
    from stable_baselines3.common.env_checker import check_env as check_sb3

    env = gymnasium.make(
        "SpecDecode-v0", pair=pair_of("near"), prompts=PROMPTS, head=head, plan=HEADS[head],
        **OPTIONS,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*observation space (min|max)imum value")
        check_env(env.unwrapped)
        check_sb3(env.unwrapped)


def test_made_by_name_with_the_embedded_pair():
    env = gymnasium.make("SpecDecode-v0", max_new_tokens=8)
    env.reset(seed=0)
    assert env.step(1)[4]["tokens"] >= 1
    batch = gymnasium.make_vec("SpecDecode-v0", num_envs=4, max_new_tokens=8)
    assert isinstance(batch, SpecDecodeVectorEnv) and batch.num_envs == 4
    assert batch.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    features, info = batch.reset(seed=0)
    assert features in batch.observation_space and len(set(info["prompt_id"])) == 4
    assert (batch.step(np.full(4, 2))[4]["tokens"] >= 1).all()


@heads
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_random_actions_do_not_change_the_texts(head, temperature, texts):
    env, right = several(head, temperature=temperature), plain(temperature, 4)
    features, _ = env.reset(seed=4)
    for actions in random_actions(env):
        features, *_ = env.step(actions)
        assert np.isfinite(features).all() and features in env.observation_space
        if len(texts) >= 5 + 3 * (temperature == 0):
            break
    first = texts if temperature == 0 else texts[:2]  # sampled texts differ in later passes
    assert [text for _, text in first] == [right[name] for name, _ in first]
    assert len({name for name, _ in texts}) >= 4


@pytest.mark.parametrize("num_envs", [1, 3])
def test_an_environment_belongs_to_one_text_at_a_time(num_envs):
    env, right = several(num_envs=num_envs, shuffle=False), plain(0.0, 0)
    info = env.reset()[1]
    names, made, ended = list(info["prompt_id"]), [[] for _ in range(num_envs)], 0
    for actions in random_actions(env):
        masks = env.action_masks()
        _, _, over, _, info = env.step(actions)
        for i in range(num_envs):
            assert info["prompt_id"][i] == names[i] and info["cycles"][i] == 1
            entry = info["entry"][i]
            asked = info["outcome"][i].plans[entry] == MENU.plans[actions[i]]
            assert asked == masks[i, actions[i]]  # a plan that does not fit is shrunk
            tokens = info["outcome"][i].tokens[entry]
            assert info["tokens"][i] == len(tokens) and over[i] == info["ended"][i]
            assert info["accepted"][i] == info["outcome"][i].accepted[entry]
            made[i] += tokens
            if over[i]:
                assert made[i] == right[names[i]]
                made[i], names[i] = [], env.engine.prompts[i].id
                ended += 1
        if ended > 6:
            break


@pytest.mark.parametrize("action", range(len(MENU)))
def test_a_batch_accepts_what_single_environments_do(action):
    def accepted(env, size: int) -> dict[str, list[tuple[int, int]]]:
        lengths: dict[str, list] = {}
        finished: set[str] = set()
        env.reset(seed=2)
        while len(finished) < len(PROMPTS):
            *_, info = env.step(np.full(size, action))
            for i in range(size):
                name = info["prompt_id"][i]
                if name not in finished:
                    found = lengths.setdefault(f"{name}/{i}", [])
                    found.append((info["accepted"][i], info["tokens"][i], info["depth"][i]))
            finished |= {info["prompt_id"][i] for i in range(size) if info["ended"][i]}
        return {key.split("/")[0]: found for key, found in lengths.items() if complete(found)}

    def complete(found) -> bool:
        return sum(tokens for _, tokens, _ in found) == NEW

    one, three = accepted(several(num_envs=1), 1), accepted(several(), 3)
    assert set(one) == set(three) == {p["id"] for p in PROMPTS}
    assert one == three


def test_an_ended_episode_shows_its_end_and_the_next_beginning():
    env = several()
    env.reset(seed=0)
    for actions in random_actions(env):
        features, _, over, truncated, info = env.step(actions)
        assert not truncated.any() and ("final_obs" in info) == over.any()
        if over.any():
            break
    column = {name: NAMES.index(name) for name in ("first", "remaining", "length")}
    assert (features[over, column["first"]] == 1).all()
    for i in over.nonzero()[0]:
        final = info["final_obs"][i]
        assert final in env.single_observation_space
        assert final[column["remaining"]] == 0 and final[column["first"]] == 0
        assert final[column["length"]] > features[i, column["length"]]
    assert info["_final_info"].tolist() == over.tolist() == info["_final_obs"].tolist()
    assert info["final_info"]["tokens"].tolist() == info["tokens"].tolist()
    as_dicts = gymnasium.wrappers.vector.DictInfoToList(env)
    assert "final_obs" in as_dicts._convert_info_to_list(info)[over.nonzero()[0][0]]


def test_a_single_environment_ends_with_its_own_text():
    env = single()
    env.reset(seed=0)
    over = False
    for action in random_actions(env):
        if over:
            break
        features, _, over, truncated, info = env.step(action)
    assert info["ended"] and not truncated and features[NAMES.index("remaining")] == 0
    assert env.reset()[0][NAMES.index("first")] == 1


def test_a_restored_environment_goes_on_with_the_next_prompts():
    env, other = several(num_envs=2, seed=9), several(num_envs=2)
    env.reset()
    for actions, _ in zip(random_actions(env), range(20), strict=False):
        env.step(actions)
    state = json.loads(json.dumps(env.state()))
    other.restore(state)
    assert other.rate == env.rate > 0
    assert other.engine.books.reward.state() == env.engine.books.reward.state()
    ids = [env.engine.feed.take()[0].id for _ in range(2)]
    assert other.reset()[1]["prompt_id"].tolist() == ids


def test_passes_hold_every_prompt_once():
    feed = several(shuffle=True).engine.feed
    orders = [[feed.take() for _ in PROMPTS] for _ in range(4)]
    names = [[prompt.id for prompt, _ in order] for order in orders]
    assert all(sorted(order) == sorted(names[0]) for order in names) and names[0] != names[1]
    feed.begin(1)
    assert [feed.take()[0].id for _ in PROMPTS] != names[0]
    seeds = {sequence.seed for order in orders for _, sequence in order}
    assert len(seeds) == 4 * len(PROMPTS)


def test_the_last_tree_is_drawn():
    pair = pair_of("near")
    pair = Pair(pair.target, pair.drafter, Letters())
    env = single(pair=pair, render_mode="ansi")
    env.reset(seed=0)
    assert env.render() == ""
    env.step(3)
    lines = env.render().splitlines()
    assert len(lines) >= 10 and sum("+ '" in line for line in lines) == 1
    assert single().render() is None
    batch = several(render_mode="ansi")
    batch.reset(seed=0)
    *_, info = batch.step(np.array([0, 1, 2]))
    drawings = batch.render()
    assert [d.count("\n") for d in drawings] == [1, 3, 5]
    assert [d.count("* ") for d in drawings] == info["accepted"].tolist()


def test_sb3_sees_ends_and_beginnings():
    env, plain_env = SB3VecEnv(several()), several()
    env.seed(7)
    assert (env.reset() == plain_env.reset(seed=7)[0]).all()
    ends = 0
    for actions in random_actions(plain_env):
        features, rewards, done, infos = env.step(actions)
        right, _, over, _, info = plain_env.step(actions)
        assert (features == right).all() and (done == over).all() and rewards.shape == (3,)
        for i in range(3):
            assert infos[i]["TimeLimit.truncated"] is False
            assert ("terminal_observation" in infos[i]) == over[i]
            assert infos[i]["tokens"] == info["tokens"][i]
            whole = infos[i]["outcome"], infos[i]["entry"]
            assert whole[0].accepted[whole[1]] == infos[i]["accepted"]
            if over[i]:
                assert (infos[i]["terminal_observation"] == info["final_obs"][i]).all()
                ends += 1
        if ends > 3:
            break
    assert env.get_attr("rate", [0, 2]) == [env.env.rate] * 2


def test_sb3_learns_and_masks():
    from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
    from stable_baselines3 import PPO

    env = SB3VecEnv(several("stop"))
    assert is_masking_supported(env)
    PPO("MlpPolicy", env, n_steps=4, batch_size=12, n_epochs=1, device="cpu").learn(12)
    assert get_action_masks(env).shape == (3, 2)
    with pytest.raises(ValueError, match="same step"):
        SB3VecEnv(gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync"))
