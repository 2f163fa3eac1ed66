"""The stop and the verify head over recordings: step by step what live decoding does."""

from __future__ import annotations

import json
import warnings
from functools import cache

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from small import Letters
from test_replay import Rounds
from traces import costs_of, lettered, prompts, recorded

import envs  # noqa: F401  (registers the environments)
from envs.cost import price
from envs.live import SpecDecodeVectorEnv
from envs.market import Batches
from envs.replay import ReplayEnv, ReplayVectorEnv
from envs.replay_heads import make_head
from envs.rewards import CycleRate
from envs.runs import run_fixed, run_policy
from envs.sb3 import SB3VecEnv
from envs.trace import Trace
from policies.learners import make_learner
from spec_core import Menu, Pair, SpeculativeDecoder
from spec_core.doubt import Doubt
from spec_core.features import FEATURES, LEVEL_FEATURES, TREE_FEATURES
from spec_core.learned import StopPolicy, TrimPolicy
from spec_core.menu import read_name

MENU = Menu.of(["ar", "chain-6@0.2", "beam-4x2n8"])
BUDGETS, COUNT = [1, 2, 3, 5], 6
STOP = ["chain-6", "chain-4", "chain-6@0.2", "chain-6n3", "beam-4x2n6", "beam-3x2n8@0.1"]
VERIFY = ["chain-5", "chain-6@0.2", "beam-4x2n8", "beam-3x2n8@0.1"]
KINDS = [*[("stop", plan) for plan in STOP], *[("verify", plan) for plan in VERIFY]]
QUICK = [KINDS[i] for i in (0, 2, 4, 7, 8)]
EXTRA = {"stop": len(LEVEL_FEATURES), "verify": len(TREE_FEATURES)}
TOLD = ("tokens", "accepted", "drafted", "depth", "cycles", "ended", "prompt_id", "domain")
heads = pytest.mark.parametrize(("head", "plan"), [("stop", "chain-6"), ("verify", "beam-4x2n8")])


@cache
def on(kind: str, temperature: float = 0.0, eos: tuple[int, ...] = (), new: int = 12):
    """A pair and a recording of six texts."""
    pair = lettered(kind, eos)
    return pair, recorded(pair, MENU, COUNT, temperature=temperature, max_new_tokens=new)


BANDS = [(0.0, 1.0), (0.05, 0.4), (0.0, 0.3), (0.15, 1.0)]


def both(pair: Pair, trace: Trace, head: str, plan: str, size: int, doubt=(0, 1)):
    """The live environment and the replayed one on the same texts in the same order."""
    order = np.random.default_rng((5, 0)).permutation(COUNT)
    texts = [prompts(COUNT)[i] for i in order]
    options = {"head": head, "plan": plan, "budgets": BUDGETS, "seed": 5, "doubt": doubt}
    how = {"temperature": trace.meta.temperature, "max_new_tokens": trace.meta.max_new_tokens}
    live = SpecDecodeVectorEnv(pair, texts, size, shuffle=False, **options, **how)
    costs = costs_of((size,), contexts=[100, 999])
    return live, ReplayVectorEnv(trace, costs, size, loads=(size,), **options)


def draw(masks: np.ndarray, chance: np.random.Generator, going: float) -> np.ndarray:
    """Actions that are allowed; the first one more often than not."""
    anything = np.array([chance.choice(row.nonzero()[0]) for row in masks])
    return np.where(chance.random(len(masks)) < going, 0, anything)


def same_features(mine: np.ndarray, its: np.ndarray, unknown: np.ndarray) -> None:
    """Within rounding; the draft's doubt where nothing is left to decide was not recorded."""
    right = its.copy()
    right[unknown, -1] = mine[unknown, -1]
    np.testing.assert_allclose(mine, right, atol=1e-4)


def compare(pair: Pair, trace: Trace, head: str, plan: str, size: int, doubt=(0, 1)) -> int:
    """The same actions in both, until two texts end at once or all are taken; steps compared."""
    live, replay = both(pair, trace, head, plan, size, doubt)
    chance, taken, steps = np.random.default_rng(0), size, 0
    (its, its_info), (mine, info) = live.reset(), replay.reset()
    while True:
        masks = replay.action_masks()
        waiting = masks.sum(1) == 1
        same_features(mine, its, waiting & (head == "stop"))
        assert (masks == live.action_masks()).all()
        assert (info["active"] == ~waiting).all() and (its_info["active"] == ~waiting).all()
        actions = draw(masks, chance, 0.6)
        its, _, its_over, _, its_info = live.step(actions)
        mine, _, over, truncated, info = replay.step(actions)
        steps += 1
        ends = live.engine.feed.taken - taken
        taken += ends
        if (ends > 1 and size > 1) or taken >= COUNT:
            return steps
        assert (over == its_over).all() and not truncated.any()
        for name in TOLD:
            assert info[name].tolist() == its_info[name].tolist(), name
            assert info[name].dtype == its_info[name].dtype
        for one, other in zip(
            info.get("final_obs", ()), its_info.get("final_obs", ()), strict=True
        ):
            assert (one is None) == (other is None)
            if one is not None:
                np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(("head", "plan"), QUICK)
def test_replay_is_live_decoding_step_by_step(head, plan, temperature):
    assert compare(*on("near", temperature), head, plan, 1) > 20
    assert compare(*on("near", temperature), head, plan, 3) > 5


@pytest.mark.parametrize("doubt", BANDS[1:])
@pytest.mark.parametrize("plan", ["chain-6", "chain-6@0.2", "beam-4x2n6"])
def test_replay_is_live_decoding_where_only_doubt_is_asked_about(plan, doubt):
    pair, trace = on("near", 1.0)
    assert sum(compare(pair, trace, "stop", plan, size, doubt) for size in (1, 3)) > 15


@pytest.mark.slow
@pytest.mark.parametrize("eos", [(), (7, 30, 41)])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["near", "same", "short", "other"])
def test_replay_is_live_decoding_for_every_pair(kind, temperature, eos):
    pair, trace = on(kind, temperature, eos, 28)
    for head, plan in KINDS:
        for doubt in BANDS if head == "stop" else BANDS[:1]:
            steps = [compare(pair, trace, head, plan, size, doubt) for size in (1, 2, 4)]
            assert sum(steps) > (30 if doubt == BANDS[0] else 3)


def test_a_batch_waits_for_those_who_go_on():
    trace = recorded(lettered(), MENU, count=4)
    env = ReplayVectorEnv(
        trace, costs_of((1, 3)), num_envs=4, loads=(1, 3), head="stop", plan="chain-6"
    )
    env.reset(seed=0)
    at = env.engine.at.copy()
    _, rewards, over, _, info = env.step([0, 0, 1, 0])
    assert not over.any() and not rewards.any() and not info["tokens"].any()
    assert info["active"].tolist() == [True, True, False, True]
    assert env.action_masks()[2].tolist() == [True, False]
    _, rewards, over, _, info = env.step([1, 1, 0, 0])  # what the idle one says is nothing
    assert over.tolist() == [True, False, False, False] and info["drafted"].tolist() == [2, 0, 0, 0]
    assert info["seconds"][0] > 0 and not info["seconds"][1:].any() and not rewards[1:].any()
    _, _, over, _, info = env.step([0, 0, 0, 1])
    assert over.tolist() == [False, True, True, True]
    assert info["drafted"].tolist() == [0, 2, 1, 3]
    costs, contexts = costs_of((1, 3)), trace.lengths[at]
    draft = costs.drafting(1, 3, contexts[1:], 3).max()
    whole = (
        draft + costs.verifying(4, contexts[1:].max(), 3) + 0.25 + 3 * 0.03
    )  # a question per level
    assert info["seconds"][1:] == pytest.approx(whole / 3)


def test_a_tree_that_was_trimmed_was_drafted_whole():
    trace, costs = recorded(lettered(), MENU, count=3), costs_of()
    options = {"head": "verify", "plan": "beam-4x2n8", "budgets": BUDGETS}
    env = ReplayVectorEnv(trace, costs, num_envs=3, reward=CycleRate(3), **options)
    env.reset(seed=0)
    whole = price(trace.with_menu(Menu.of(["ar", "beam-4x2n8"])), costs).draft[:, 1]
    at = env.engine.at.copy()
    _, rewards, _, _, info = env.step([0, 2, 3])
    assert info["drafted"].tolist() == [0, 2, 4] and info["cycles"].tolist() == [1, 1, 1]
    drafted = info["drafted"]
    verify = costs.verifying(drafted + 1, trace.lengths[at], branched=drafted > 0)
    assert info["seconds"] == pytest.approx(whole[at] + verify + 0.25 + 0.03)
    assert rewards == pytest.approx(info["tokens"] / info["seconds"])


class Counted(Rounds):
    """The same, where texts follow each other."""

    def admit(self) -> None:
        self.state.admit()


@pytest.mark.parametrize("doubt", BANDS[:2])
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("plan", ["chain-6", "chain-6@0.2", "beam-4x2n8", "beam-4x2n8@0.1"])
def test_the_rounds_that_are_paid_are_those_that_are_run(plan, size, doubt):
    (near, trace), chance = on("near"), np.random.default_rng(1)
    counted = Counted(near.drafter)
    live, replay = both(Pair(near.target, counted, Letters()), trace, "stop", plan, size, doubt)
    engine, paid = replay.engine, list[int]()
    close = engine._close

    def closing(done):
        cells = np.zeros(size, int), engine.at, engine.head.cycles.drafts
        paid.append(int(engine.market.draft[cells].max() // (1000 * size)))
        close(done)

    engine._close = closing
    counted.rounds = 0
    live.reset()
    replay.reset()
    taken = size
    while live.engine.feed.taken <= min(taken + 1, 5):  # where two texts end at once, places differ
        assert counted.rounds == sum(paid) + engine.head.level[0]
        assert live.engine.session.cycles == len(paid)
        actions, taken = draw(replay.action_masks(), chance, 0.7), live.engine.feed.taken
        live.step(actions)
        replay.step(actions)
    assert len(paid) > 3


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


@pytest.mark.parametrize(
    ("name", "head", "plan", "doubt"),
    [
        ("specdec_pp", "stop", "chain-6", (0, 1)),
        ("specdec_pp", "stop", "chain-6", (0.1, 0.5)),
        ("full_information", "stop", "chain-6", (0.1, 0.5)),
        ("ppo", "stop", "beam-4x2n8", (0.05, 0.3)),
        ("a2c", "stop", "chain-6", (0.0, 0.3)),
        ("dqn", "stop", "chain-6", (0.1, 1.0)),
        ("ppo", "verify", "chain-6", (0, 1)),
    ],
)
def test_what_is_learned_is_what_is_exported_and_what_it_decides_live(name, head, plan, doubt):
    pair = lettered()
    trace = recorded(pair, MENU, count=5, max_new_tokens=20)
    env = ReplayVectorEnv(
        trace, costs_of(), num_envs=8, head=head, plan=plan, budgets=BUDGETS, doubt=doubt
    )
    small = {"ppo": {"rollout": 16, "batch_size": 64}, "a2c": {}, "dqn": {}}
    learner = make_learner(name, env, 0, **small.get(name, {"updates": 50}))
    learner.learn(env, 600, lambda progress: None)
    policy = learner.policy()
    assert isinstance(policy, StopPolicy if head == "stop" else TrimPolicy)
    assert head != "stop" or policy.doubt == Doubt(*doubt)
    features = env.reset(seed=1)[0]
    for _ in range(20):
        actions = policy.chooser.choose(features)
        assert actions.tolist() == learner.best(features).tolist()
        features = env.step(actions)[0]
    totals = run_policy(trace, costs_of(), policy)
    for i, prompt in enumerate(prompts(5)):
        sums = np.zeros(3, int)

        def watch(outcome, sums=sums) -> None:
            sums += [len(outcome.tokens[0]), outcome.drafted[0], outcome.accepted[0]]

        decoder = SpeculativeDecoder(pair, policy)
        decoder.generate([prompt["prompt"]], watch, ids=[prompt["id"]], seed=5, max_new_tokens=20)
        assert [totals.tokens[i], totals.drafted[i], totals.accepted[i]] == sums.tolist()


def test_a_fixed_depth_is_a_static_plan():
    trace, costs = recorded(lettered(), MENU, count=5), costs_of()

    class After:
        kind, inputs, outputs = "after", 0, 2

        def choose(self, features):
            return (features[:, len(FEATURES)] > 0.3).astype(np.int64)  # behind the third level

    found = run_policy(trace, costs, StopPolicy(read_name("chain-6"), After()), learned=False)
    static = run_fixed(trace.with_menu(Menu.of(["ar", "chain-3"])), costs, 1)
    assert found.seconds == pytest.approx(static.seconds)
    for name in ("tokens", "cycles", "drafted", "accepted"):
        assert getattr(found, name).tolist() == getattr(static, name).tolist()


def test_sb3_takes_it():
    trace = recorded(lettered(), MENU)
    env = SB3VecEnv(ReplayVectorEnv(trace, costs_of(), num_envs=4, head="stop", plan="chain-6"))
    assert env.reset().shape == (4, len(FEATURES) + EXTRA["stop"])
    _, _, done, infos = env.step(np.ones(4, int))
    assert done.all() and all("terminal_observation" in info for info in infos)


def test_cycles_that_ask_nothing_are_charged_once_and_counted_with_the_next():
    trace, costs = on("near")[1], costs_of()
    env = ReplayEnv(trace, costs, head="stop", plan="chain-6@0.2")
    engine, right, silent, sums = env.engine, 0.0, 0, np.zeros(2)
    close = engine._close

    def closing(done):
        nonlocal right, silent
        at, cycles = engine.at[0], engine.head.cycles
        plan, asked = int(cycles.plans[0]), int(cycles.asked[0])
        right += engine.market.draft[0, at, int(cycles.drafts[0])] + 0.25 + 0.03 * asked
        nodes = engine.trace.shapes["drafted"][at, plan] + 1
        right += float(costs.verifying(nodes, trace.lengths[at], branched=False))
        silent += not asked
        close(done)

    engine._close = closing
    env.reset(seed=0)
    chance, several = np.random.default_rng(0), 0
    for _ in range(60):
        info = env.step(int(draw(engine.masks, chance, 0.5)[0]))[4]
        sums += [info["seconds"], info["cycles"]]
        several += info["cycles"] > 1
    left = engine.books.figures.sum(0)[[1, 5], 0]
    assert silent > 3 and several
    assert (sums + left)[0] == pytest.approx(right)


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


@pytest.mark.parametrize("price", [1.0, 1000.0])
def test_one_more_level_saves_its_token_and_costs_its_seconds(price):
    trace, costs = on("near")[1], costs_of(draft=price * costs_of().draft / 1000)
    env = ReplayVectorEnv(trace, costs, num_envs=5, head="stop", plan="chain-6")
    env.reset(seed=0)
    chance, engine, seen = np.random.default_rng(0), env.engine, 0
    for _ in range(60):
        head, market = engine.head, engine.market
        for i, (more, none) in enumerate(env.savings()):
            level, at, text = head.level[i], engine.at[i], engine.texts[i]
            verify = market.verify[0, 0, market.bucket[at], market.nodes[at] - 1]
            seconds, tokens = market.draft[0, at] + verify, engine.trace.committed[at]
            gain = market.paces[0, text] * (tokens[level + 1] - tokens[level])
            right = gain - (seconds[level + 1] - seconds[level]) - costs.asking()
            assert none == 0 and more == pytest.approx(right)
            seen += 1
        env.step((chance.random(5) < 0.4).astype(int))
    assert seen == 300


def test_what_is_recorded_of_levels_is_what_the_candidates_say():
    for temperature in (0.0, 1.0):
        trace = recorded(lettered(), MENU, count=4, temperature=temperature)
        for plan, pool in zip(trace.known, trace.pools, strict=True):
            asked = np.arange(1, plan.depth) < trace.rooms[:, None]
            mine = trace.levels(plan)[:, :-1][asked]
            assert len(mine) > 20
            np.testing.assert_allclose(mine, pool["levels"][asked], atol=1e-6)


def test_nothing_is_asked_where_only_a_gpus_padding_was_drafted():
    trace = recorded(lettered(), MENU)
    head = make_head("verify", trace, Batches.turns((1,), 1), False, "chain-6@0.2", BUDGETS)
    room = trace.rooms > 0
    assert (head.asks == room).all() and (room & ~head.drafted).any()
