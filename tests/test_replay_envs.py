"""The environments over recordings: Gymnasium's rules, texts, rewards, the prices of batches."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from live import BUDGETS, HEADS, MENU, heads, several, single
from test_replay import written
from traces import costs_of, grained, invented, lettered, prompts, recorded

import envs  # noqa: F401  (registers the environments)
from envs.cost import price
from envs.replay import ReplayEnv, ReplayVectorEnv
from envs.rewards import CycleRate, TokensPerSecond
from spec_core.features import NAMES

LOAD = NAMES.index("batch")


def test_both_environments_are_gymnasiums():
    trace = recorded(lettered())
    env = gymnasium.make("SpecDecodeReplay-v0", trace=trace, costs=costs_of())
    check_env(env.unwrapped, skip_render_check=True)
    many = gymnasium.make_vec("SpecDecodeReplay-v0", num_envs=5, trace=trace, costs=costs_of())
    features, info = many.reset(seed=3)
    assert features in many.observation_space and info["prompt_id"].shape == (5,)
    many.action_space.seed(0)
    for _ in range(30):
        features, rewards, over, truncated, info = many.step(many.action_space.sample())
        assert features in many.observation_space and rewards.shape == (5,)
        assert not truncated.any() and (info["ended"] == over).all()
        if over.any():
            assert [last is not None for last in info["final_obs"]] == over.tolist()
        masks = many.unwrapped.action_masks()
        assert masks[:, 0].all() and (info["active"] == (masks.sum(1) > 1)).all()


def test_the_same_seed_gives_the_same_run_and_a_state_goes_on():
    trace, options = recorded(lettered(), count=5), {"num_envs": 3, "noise": True}

    def play(env, steps: int, seed: int | None = None) -> list:
        env.reset(seed=seed)
        seen = [env.step(np.arange(3) % 4) for _ in range(steps)]
        return [(s[0].tolist(), s[1].tolist(), s[4]["seconds"].tolist()) for s in seen]

    one, other = (ReplayVectorEnv(trace, costs_of(), **options) for _ in range(2))
    assert play(one, 20, seed=4) == play(other, 20, seed=4)
    assert play(one, 20, seed=4) != play(other, 20, seed=5)
    fresh = ReplayVectorEnv(trace, costs_of(), **options)
    fresh.restore(one.state())
    one.restore(one.state())
    assert play(one, 10) == play(fresh, 10)


def test_every_text_comes_once_a_pass():
    trace = invented([np.zeros((1, 2), np.uint8)] * 7)
    env = ReplayVectorEnv(trace, costs_of(), num_envs=2)
    _, info = env.reset(seed=1)
    seen = list(info["prompt_id"])
    for _ in range(6):
        env.step([0, 0])
        seen += list(env.engine.names[env.engine.texts, 0])
    assert len(seen) == 14 and sorted(seen[:7]) == sorted(seen[7:]) == sorted(set(seen))


def test_a_reset_behind_an_end_passes_no_text_over():
    trace = invented([np.zeros((1, 2), np.uint8)] * 7)
    env, seen = ReplayEnv(trace, costs_of()), []
    for _ in range(7):
        seen.append(env.reset()[1]["prompt_id"])
        assert env.step(0)[2]
    assert len(set(seen)) == 7


def test_rewards_are_those_of_the_live_environment():
    trace, costs = recorded(lettered()), costs_of()
    env = ReplayVectorEnv(trace, costs, num_envs=3, reward=CycleRate(3), learned=False)
    env.reset(seed=0)
    for _ in range(10):
        at = env.engine.at.copy()
        _, rewards, _, _, info = env.step([1, 2, 3])
        plans = [1, 2, 3]
        assert info["tokens"].tolist() == trace.committed[at, plans].tolist()
        assert info["seconds"] == pytest.approx(price(trace, costs).seconds[at, plans])
        assert rewards == pytest.approx(info["tokens"] / info["seconds"])


def test_a_batch_waits_for_its_longest_draft_and_its_largest_tree():
    trace = recorded(lettered(), count=4)
    costs = costs_of((1, 3))
    env = ReplayVectorEnv(trace, costs, num_envs=8, loads=(1, 3))  # batches of 1, 3, 1, 3
    features, _ = env.reset(seed=0)
    batch = features[:, -3]
    assert batch == pytest.approx(np.log2([1, 3, 3, 3, 1, 3, 3, 3]) / 6)
    plans = np.array([1, 0, 1, 3, 2, 0, 0, 0])
    for _ in range(12):
        at = env.engine.at.copy()
        info = env.step(plans)[4]
        for group, load in (([0], 1), ([1, 2, 3], 3), ([4], 1), ([5, 6, 7], 3)):
            cells = at[group], plans[group]
            width = np.array([1, 1, 1, 2])[plans[group]]
            levels = trace.shapes["levels"][cells].astype(int)
            contexts = grained(trace.lengths[at[group]])
            draft = costs.drafting(width, levels, contexts, load).max()
            nodes = int(trace.shapes["drafted"][cells].max()) + 1
            whole = draft + costs.verifying(nodes, contexts.max(), load, 3 in plans[group]) + 0.25
            assert info["seconds"][group] == pytest.approx(whole / load)


def dealt_out(deal_every: int, trace, seed: int, steps: int = 60, plans: int = 4):
    """Loads, other features, prompts and rewards of some steps; all plans take turns."""
    env = ReplayVectorEnv(trace, costs_of((1, 3)), 24, loads=(1, 3), deal_every=deal_every)
    features, info = env.reset(seed=seed)
    loads, rest, prompts, seconds = [], [], [], []
    for step in range(steps):
        loads.append(features[:, LOAD].copy())
        rest.append(np.delete(features, LOAD, 1))
        prompts.append(info["prompt_id"].tolist())
        grouped = env.engine.batches
        assert np.array_equal(loads[-1], np.log2(grouped.load) / np.float32(6))
        features, rewards, _, _, info = env.step((np.arange(24) + step) % plans)
        seconds.append(rewards)
        for start, size in zip(grouped.starts, grouped.sizes, strict=True):
            assert len(set(info["seconds"][start : start + size])) == 1  # those of its batch
    return np.array(loads), np.array(rest), prompts, np.array(seconds)


def test_loads_are_dealt_anew_and_texts_go_on_under_them():
    trace = recorded(lettered(), count=4)
    kept, dealt, again, other = (
        dealt_out(*how) for how in ((0, trace, 0), (5, trace, 0), (5, trace, 0), (5, trace, 1))
    )
    assert np.array_equal(kept[1], dealt[1]) and kept[2] == dealt[2]  # texts know nothing of it
    assert all(np.array_equal(*pair) for pair in zip(dealt, again, strict=True))
    assert not np.array_equal(dealt[0], other[0])
    assert (kept[0] == kept[0][0]).all() and np.array_equal(dealt[0][0], kept[0][0])
    assert (np.sort(dealt[0]) == np.sort(kept[0])).all()  # as many of each, always
    moved = (np.diff(dealt[0], axis=0) != 0).any(1)
    assert (np.flatnonzero(moved) % 5 == 4).all() and moved.sum() > 8
    assert (dealt[0].std(0) > 0).all()  # everybody was under either load
    assert not np.array_equal(kept[3], dealt[3])


@pytest.mark.parametrize("head", ["stop", "verify"])
def test_other_heads_keep_their_loads_and_rewards_may_be_objects(head):
    trace, costs = recorded(lettered(), count=4), costs_of((1, 3))
    one = ReplayVectorEnv(trace, costs, 4, loads=(1, 3), head=head, plan="chain-3", deal_every=1)
    assert not one.engine.deal_every
    with pytest.raises(ValueError, match=r"deal_every \(-1\)"):
        ReplayVectorEnv(trace, costs, 4, loads=(1, 3), deal_every=-1)
    reward = TokensPerSecond(4, start_rate=3.0)  # one rate for all loads
    env = ReplayVectorEnv(trace, costs, 4, loads=(1, 3), reward=reward, deal_every=1)
    env.reset(seed=0)
    assert all(np.isfinite(env.step(np.zeros(4, int))[1]).all() for _ in range(9))


def test_where_padding_is_left_out_trees_cost_what_their_mean_does():
    trace, costs = recorded(lettered(), count=4), costs_of((1, 3), packed=True)
    env = ReplayVectorEnv(trace, costs, num_envs=3, loads=(3,), learned=False)
    env.reset(seed=0)
    for plans in ([1, 0, 3], [2, 2, 2], [0, 0, 0], [0, 2, 0], [3, 1, 3]):
        at, plans = env.engine.at.copy(), np.array(plans)
        info = env.step(plans)[4]
        cells, lengths = (at, plans), grained(trace.lengths[at])
        width = np.array([1, 1, 1, 2])[plans]
        levels = trace.shapes["levels"][cells].astype(int)
        draft = costs.drafting(width, levels, lengths, 3).max()
        nodes = trace.shapes["drafted"][cells].mean() + 1
        context = grained(np.array(int((trace.lengths[at] // 16).mean()) * 16))
        low, high = costs.verifying([int(nodes), int(np.ceil(nodes))], context, 3)
        whole = draft + low + (nodes % 1) * (high - low)
        assert info["seconds"] == pytest.approx(whole / 3)


def played(trace, costs, plans: np.ndarray, **options) -> tuple[np.ndarray, np.ndarray]:
    """Positions and seconds [steps, B] under these plans, in batches of 1 and of 3 in turns."""
    env = ReplayVectorEnv(
        trace, costs, num_envs=plans.shape[1], loads=(1, 3), learned=False, deal_every=0, **options
    )
    env.reset(seed=0)
    at, seconds = np.zeros(plans.shape, int), np.zeros(plans.shape)
    for step, chosen in enumerate(plans):
        at[step] = env.engine.at
        seconds[step] = env.step(chosen)[4]["seconds"]
    return at, seconds


def test_seconds_are_the_priced_ones_and_with_noise_they_vary_as_the_measured_ones_did():
    trace, costs = recorded(lettered(), count=4), costs_of((1, 3), spread=0.05)
    plans = np.random.default_rng(0).integers(len(trace.menu), size=(40, 400))
    alone, first = np.s_[:, ::4], np.s_[:, 1::4]  # who is alone, and the first of each three
    at, exact = played(trace, costs, plans)
    priced = price(trace, costs).seconds[at[alone], plans[alone]]
    np.testing.assert_allclose(exact[alone], priced, rtol=1e-12)
    same, noisy = played(trace, costs, plans, noise=True)
    assert (same == at).all()
    noise = np.log(noisy / exact)
    for other in (2, 3):  # a batch has its noise in common
        np.testing.assert_allclose(noise[:, other::4], noise[first], atol=1e-9)
    own = np.hstack((noise[alone], noise[first]))
    assert len(np.unique(own)) == own.size, "every cycle of every batch has its own"
    assert own.std() == pytest.approx(0.05, rel=0.1) and abs(own.mean()) < 0.005


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A recording and prices on disk."""
    made = written(tmp_path_factory.mktemp("recorded"), lettered(), prompts(3), MENU)
    costs_of().save(made / "costs.json")
    return made


def both(folder, head: str) -> tuple[ReplayEnv, ReplayVectorEnv]:
    """The single and the vector environment on what is on disk."""
    files, options = (folder, folder / "costs.json"), {"plan": HEADS[head], "budgets": BUDGETS}
    return ReplayEnv(*files, head=head, **options), ReplayVectorEnv(*files, 3, head=head, **options)


@heads
def test_spaces_are_those_of_the_live_environment(head, folder):
    (one, many), lives = both(folder, head), several(head)
    for mine, its in ((one, single(head)), (many, lives)):
        assert mine.observation_space == its.observation_space
        assert mine.action_space == its.action_space
    assert many.single_observation_space == lives.single_observation_space
    assert many.single_action_space == lives.single_action_space


@heads
def test_what_is_on_disk_is_opened_and_stepped_without_models(head, folder, monkeypatch):
    for place in ("spec_core.pair.load_model", "spec_core.pair.load_pair", "envs.live.load_pair"):
        monkeypatch.setattr(place, lambda *_, **options: pytest.fail("a model was loaded"))
    for env in both(folder, head):
        env.action_space.seed(0)
        env.reset(seed=0)
        tokens = sum(np.sum(env.step(env.action_space.sample())[4]["tokens"]) for _ in range(20))
        assert tokens > 0


def test_bad_actions_and_options_are_refused():
    trace, costs = recorded(lettered()), costs_of()
    env = ReplayVectorEnv(trace, costs, num_envs=2)
    with pytest.raises(ValueError, match="reset the environment first"):
        env.step([0, 0])
    env.reset()
    for actions in ([0], [0, 4], [0, -1], [0.5, 1]):
        with pytest.raises(ValueError, match="actions must be"):
            env.step(actions)
    with pytest.raises(ValueError, match="take a multiple of 4"):
        ReplayVectorEnv(trace, costs_of((1, 3)), num_envs=6, loads=(1, 3))
    with pytest.raises(ValueError, match="batches 3"):
        ReplayVectorEnv(trace, costs, num_envs=3, loads=(3,))
    with pytest.raises(ValueError, match="loads are batch sizes"):
        ReplayVectorEnv(trace, costs, num_envs=3, loads=())
    with pytest.raises(ValueError, match="num_envs"):
        ReplayVectorEnv(trace, costs, num_envs=0)
