"""The stop and the verify head over recordings: step by step what live decoding does."""

from __future__ import annotations

import numpy as np
import pytest
from replays import BANDS, BUDGETS, COUNT, MENU, both, draw, on
from traces import costs_of, lettered, prompts, recorded

from envs.market import Batches
from envs.replay import ReplayVectorEnv
from envs.replay_heads import make_head
from envs.runs import run_policy
from envs.trace import Trace
from policies.learners import make_learner
from spec_core import Pair, SpeculativeDecoder
from spec_core.doubt import Doubt
from spec_core.learned import StopPolicy, TrimPolicy

STOP = ["chain-6", "chain-4", "chain-6@0.2", "chain-6n3", "beam-4x2n6", "beam-3x2n8@0.1"]
VERIFY = ["chain-5", "chain-6@0.2", "beam-4x2n8", "beam-3x2n8@0.1"]
KINDS = [*[("stop", plan) for plan in STOP], *[("verify", plan) for plan in VERIFY]]
PAIRS = ["near", "same", "short", "other"]
QUICK = [KINDS[i] for i in (0, 2, 4, 7, 8)]
TOLD = ("tokens", "accepted", "drafted", "depth", "cycles", "ended", "prompt_id", "domain")


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
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("kind", PAIRS)
def test_replay_is_live_decoding_for_every_pair(kind, temperature):
    """Every pair and temperature; texts that end early with each pair, and at each temperature."""
    ends = (PAIRS.index(kind) + (temperature > 0)) % 2
    pair, trace = on(kind, temperature, (7, 30, 41) if ends else (), 28)
    for head, plan in KINDS:
        for doubt in BANDS if head == "stop" else BANDS[:1]:
            steps = [compare(pair, trace, head, plan, size, doubt) for size in (1, 2, 4)]
            assert sum(steps) > (30 if doubt == BANDS[0] else 3)


@pytest.mark.parametrize(
    ("name", "head", "plan", "doubt"),
    [
        ("specdec_pp", "stop", "chain-6", (0, 1)),
        ("fitted_marginal", "stop", "chain-6", (0, 1)),
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
