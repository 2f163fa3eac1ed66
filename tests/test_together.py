"""One plan for a whole batch: the same live, replayed, in decoding and in export."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from forging import forged
from gymnasium.utils.env_checker import check_env
from small import pair_of
from traces import SMALL, costs_of, lettered, prompts, recorded

import envs  # noqa: F401  (registers the environments)
from envs.cost import price
from envs.live import SpecDecodeVectorEnv
from envs.oracle import static
from envs.replay import ReplayVectorEnv
from spec_core import AUTOREGRESSIVE, Fixed, Menu, Network, SpeculativeDecoder, Table, load_policy
from spec_core.features import FEATURES, NAMES, average, together
from spec_core.learned import MenuPolicy

LOADS, LOAD = (1, 4), NAMES.index("batch")
TOLD = ("tokens", "accepted", "drafted", "depth", "cycles", "ended")
PROMPTS = [[1, 2, 3], [5], [7, 8, 9, 10, 11]]


def network(seed: int = 6) -> Network:
    """Random layers over the features, that choose among the small menu."""
    chance = np.random.default_rng(seed)
    sizes = [(16, len(FEATURES)), (len(SMALL), 16)]
    weights = [chance.normal(0, 2, size).astype(np.float32) for size in sizes]
    return Network(weights, [np.zeros(rows, np.float32) for rows, _ in sizes])


class Kept:
    """A chooser that keeps what it read and chose."""

    def __init__(self, inner) -> None:
        self.inner, self.seen, self.chosen = inner, [], []

    def __getattr__(self, name: str):
        return getattr(self.inner, name)

    def choose(self, features):
        self.seen.append(features.copy())
        self.chosen.append(self.inner.choose(features))
        return self.chosen[-1]

    def decide(self, features):
        return self.choose(features).tolist()


def decoded(policy: MenuPolicy):
    """Texts under a policy, the plans of every cycle, and what its chooser read and chose."""
    plans, inner = [], policy.chooser
    policy.chooser = kept = Kept(inner)
    decoder = SpeculativeDecoder(pair_of("near"), policy)
    made = decoder.generate(PROMPTS, lambda o: plans.append(o.plans), max_new_tokens=24, seed=3)
    policy.chooser = inner
    return made.tokens, plans, kept


def test_all_rows_get_the_plan_that_their_mean_asks_for(tmp_path):
    plain = SpeculativeDecoder(pair_of("near"), Fixed(AUTOREGRESSIVE))
    policy, alone = (MenuPolicy(SMALL, network(), together=whole) for whole in (True, False))
    texts, plans, kept = decoded(policy)
    assert texts == plain.generate(PROMPTS, max_new_tokens=24, seed=3).tokens
    assert all(features.shape == (1, len(FEATURES)) for features in kept.seen)
    asked = [SMALL.plans[int(choice[0])] for choice in kept.chosen]
    assert len(set(asked)) > 1
    for rows, plan in zip(plans, asked, strict=True):  # the end of a text may cut its depth
        assert all(row == plan.within(row.depth, 64) for row in rows)
    own = decoded(alone)[2]
    assert (own.seen[0].mean(0) == pytest.approx(kept.seen[0][0])) and len(own.seen[0]) == 3
    policy.save(tmp_path)
    again = load_policy(tmp_path)
    assert again.together
    for one, other in zip(kept.seen, decoded(again)[2].seen, strict=True):
        assert np.array_equal(one, other)


def test_the_mean_of_a_batch_does_not_depend_on_the_order_of_its_rows():
    chance = np.random.default_rng(0)
    features = (10.0 ** chance.uniform(-6, 2, (64, 5))).astype(np.float32)
    for size in (1, 3, 64):
        mean = together(features[:size])
        assert np.array_equal(mean, together(features[:size][chance.permutation(size)]))
        np.testing.assert_allclose(mean[0], features[:size].mean(0), rtol=1e-5)
        made = np.zeros((1, 5), np.float32)
        average(features[:size], made)
        assert np.array_equal(made, mean)  # decoding's is that of training
    whole = together(features[:9], [0, 4, 5])
    parts = [together(features[a:b])[0] for a, b in ((0, 4), (4, 5), (5, 9))]
    assert np.array_equal(whole, parts)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_replay_is_live_decoding(temperature):
    count, size, how = 7, 3, {"temperature": temperature, "max_new_tokens": 12}
    pair = lettered()
    trace = recorded(pair, SMALL, count, **how)
    texts = [prompts(count)[i] for i in np.random.default_rng((5, 0)).permutation(count)]
    options = {"loads": (size,), "together": True, "seed": 5}
    live = SpecDecodeVectorEnv(pair, texts, 1, SMALL, shuffle=False, **options, **how)
    replay = ReplayVectorEnv(trace, costs_of((size,), contexts=[100, 999]), 1, **options)
    assert live.num_envs == replay.num_envs == 1
    (its, _), (mine, _), steps = live.reset(), replay.reset(), 0
    while True:
        np.testing.assert_allclose(mine, its, atol=1e-4)
        assert mine[0, LOAD] == its[0, LOAD] == np.float32(np.log2(3) / 6)
        assert (replay.action_masks() == live.action_masks()).all()
        its, _, over, _, its_info = live.step([steps % len(SMALL)])
        mine, _, also, _, info = replay.step([steps % len(SMALL)])
        steps += 1
        if info["ended"][0] > 1 / size or live.engine.feed.taken >= count:
            break  # where two texts end at once, places differ
        for name in TOLD:
            assert info[name] == pytest.approx(its_info[name]), name
        assert not over.any() and not also.any() and "final_obs" not in info
    assert steps > 4


def test_a_batch_is_its_texts_under_one_plan():
    trace, costs = recorded(lettered(), SMALL, count=6), costs_of(LOADS)
    whole = ReplayVectorEnv(trace, costs, 2, loads=LOADS, together=True)
    texts = ReplayVectorEnv(trace, costs, 5, loads=LOADS)
    seen, known = whole.reset(seed=1)[0], texts.reset(seed=1)[0]
    differ = 0
    for plans in 4 * ([1, 2], [3, 0], [0, 3], [2, 2]):
        assert np.array_equal(seen, together(known, [0, 1]))
        seen, rewards, over, _, told = whole.step(plans)
        known, paid, _, _, info = texts.step([plans[0], *[plans[1]] * 4])
        for name in (*TOLD, "seconds"):
            each = np.asarray(info[name], np.float64)
            assert told[name] == pytest.approx([each[0], each[1:].mean()])
        assert rewards == pytest.approx([paid[0], paid[1:].mean()]) and not over.any()
        masks = texts.action_masks()
        assert (whole.action_masks() == [masks[0], masks[1:].any(0)]).all()
        differ += (masks[1:] != masks[1]).any()
    assert differ


@pytest.mark.parametrize("plan", [0, 1, 3])
def test_a_batchs_saving_is_what_its_step_then_gives(plan):
    trace, costs = recorded(lettered(), SMALL, count=6), costs_of(LOADS)
    env = ReplayVectorEnv(trace, costs, 4, loads=LOADS, together=True)
    env.reset(seed=3)
    market, batches = env.engine.market, env.engine.batches
    for _ in range(6):
        savings, at, texts = env.savings(), env.engine.at.copy(), env.engine.texts.copy()
        told = env.step(np.full(4, plan))[4]
        worth = batches.means(trace.committed[at, plan] * market.paces[batches.place, texts])
        usual = market.usual[batches.place[batches.starts]]
        np.testing.assert_allclose(savings[:, plan], (worth - told["seconds"]) / usual)


def test_paces_are_those_of_full_batches_under_the_best_static_plan():
    trace, costs = recorded(lettered(), SMALL, count=6), costs_of(LOADS)
    env = ReplayVectorEnv(trace, costs, 2, loads=LOADS, together=True, learned=False)
    market = env.engine.market
    alone = static(trace, price(trace, costs).seconds)
    np.testing.assert_allclose(market.statics[0].T, alone.seconds)
    for place, load in enumerate(LOADS):
        speeds = []
        for plan in range(len(SMALL)):
            one = ReplayVectorEnv(trace, costs, 64, loads=(load,), together=True, learned=False)
            one.reset(seed=0)
            told = [one.step(np.full(64, plan))[4] for _ in range(60)]
            tokens, seconds = (sum(t[name].sum() for t in told) for name in ("tokens", "seconds"))
            speeds.append(tokens / seconds)
        found = trace.count.sum() / market.statics[place].sum(1)
        np.testing.assert_allclose(found, speeds, rtol=0.1)
        assert market.best[place] == np.argmax(found)


def test_a_table_of_the_load_reads_no_past():
    table = Table([LOAD], [[0.1]], np.array([1, 2]))
    policy = MenuPolicy(SMALL, table, together=True)
    _, plans, kept = decoded(policy)
    assert not policy.lagged and not policy.extractor.requests
    assert MenuPolicy(SMALL, network()).lagged and len(plans) == len(kept.seen)
    batches = {len(rows): int(choice[0]) for rows, choice in zip(plans, kept.chosen, strict=True)}
    assert batches[3] == 2 and batches.get(1, 1) == 1


def test_both_environments_are_gymnasiums():
    trace, costs = recorded(lettered(), SMALL), costs_of(LOADS)
    one = gymnasium.make("SpecDecodeReplay-v0", trace=trace, costs=costs, loads=[4], together=True)
    check_env(one.unwrapped, skip_render_check=True)
    made = gymnasium.make_vec(
        "SpecDecode-v0", num_envs=1, pair=lettered(), prompts=prompts(3), loads=(2,), together=True
    )
    assert made.reset()[0].shape == (1, len(FEATURES)) and made.unwrapped.together
    assert made.step(made.action_space.sample())[4]["active"].shape == (1,)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_envs": 2, "loads": (2,), "together": True}, "one session is one batch"),
        ({"num_envs": 1, "together": True}, "one session is one batch"),
        ({"num_envs": 1, "loads": (1, 2), "together": True}, "one session is one batch"),
        ({"num_envs": 2, "loads": (4,)}, "loads are for together=True"),
        ({"num_envs": 1, "loads": (2,), "together": True, "head": "stop"}, "head=menu, not stop"),
    ],
)
def test_bad_options_are_one_line(options, said):
    with pytest.raises(ValueError, match=said) as found:
        SpecDecodeVectorEnv(lettered(), prompts(3), menu=SMALL, **options)
    assert "\n" not in str(found.value)


def test_bad_actions_and_files_are_refused(tmp_path):
    env = ReplayVectorEnv(recorded(lettered()), costs_of(LOADS), 2, loads=LOADS, together=True)
    env.reset()
    for actions in ([0], [0] * 5, [0, 9], [0.5, 1.0]):
        with pytest.raises(ValueError, match="actions must be"):
            env.step(actions)
    with pytest.raises(ValueError, match="head=menu, not verify"):
        ReplayVectorEnv(recorded(lettered()), costs_of(LOADS), 2, loads=LOADS, together=True,
                        head="verify", plan="beam-3x2n4")  # fmt: skip
    MenuPolicy(Menu.of(["ar", "chain-2"]), Table([LOAD], [[]], np.array([1]))).save(tmp_path)
    forged(tmp_path, lambda content: content.update(together="yes"))
    with pytest.raises(ValueError, match="together is true or false, not 'yes'"):
        load_policy(tmp_path)
