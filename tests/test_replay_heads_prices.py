"""What the stop and the verify head's decisions cost over recordings, and what they save."""

from __future__ import annotations

import numpy as np
import pytest
from replays import BANDS, BUDGETS, MENU, Rounds, both, draw, on
from small import Letters
from traces import costs_of, grained, lettered, recorded

from envs.cost import price
from envs.replay import ReplayEnv, ReplayVectorEnv
from envs.rewards import CycleRate
from envs.runs import run_fixed, run_policy
from spec_core import Menu, Pair
from spec_core.features import FEATURES
from spec_core.learned import StopPolicy
from spec_core.menu import read_name


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
        right += float(costs.verifying(nodes, grained(trace.lengths[at]), branched=False))
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
