"""Loads: decisions by batch carry their own price, learned ones leave drafting where it loses."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from small import Mixed
from traces import SMALL, costs_of, invented, lettered, prompts, recorded

from benchmarks import common, kept, loads, tables
from benchmarks.kept import Kept
from benchmarks.loads import always, policies, priced, replayed, statics
from benchmarks.together import BatchEnv, Together
from envs.replay import ReplayVectorEnv
from spec_core import Fixed, Network, Plan

LOADS = (1, 4)
WORTH = {1: 0.5, 4: 0.02}


def trace_of(texts: int = 6, plans: int = 3):
    """Texts where plan m accepts m tokens or fewer."""
    chance = np.random.default_rng(0)
    counts = chance.integers(20, 30, texts)
    most = np.arange(plans)
    return invented([np.minimum(chance.integers(0, 4, (n, 1)), most) for n in counts])


def dear_at_four():
    """Drafting is nearly free alone, and ruinous for four."""
    costs = costs_of(LOADS, early=False)
    draft = np.full_like(costs.draft, 0.01)
    draft[1] = 1000.0
    return replace(costs, draft=draft, verify=np.ones_like(costs.verify))


@pytest.mark.parametrize("plan", [0, 1, 2])
def test_a_batchs_saving_is_what_its_step_then_gives(plan):
    trace, costs = recorded(lettered(), SMALL, count=6), costs_of(LOADS)
    env = BatchEnv(trace, costs, WORTH, rounds=2)
    env.reset(seed=3)
    for _ in range(6):
        savings = env.savings()
        told = env.step(np.full(env.num_envs, plan))[4]
        worth = np.array([WORTH[load] for load in env.sizes])
        decide = np.array([costs.deciding(load) for load in env.sizes])
        gain = (told["tokens"] - worth * (told["seconds"] - decide)) / env.sizes
        np.testing.assert_allclose(savings[:, plan], gain)


def test_batches_are_the_sums_and_means_of_their_texts():
    trace, costs = recorded(lettered(), SMALL, count=6), costs_of(LOADS)
    env, texts = BatchEnv(trace, costs, WORTH), ReplayVectorEnv(trace, costs, 5, loads=LOADS)
    seen, known = env.reset(seed=1)[0], texts.reset(seed=1)[0]
    for plans in ([1, 2], [3, 0], [0, 3]):
        np.testing.assert_allclose(seen, [known[0], known[1:].mean(0)], rtol=1e-5)
        seen, _, over, _, told = env.step(np.array(plans))
        known, *_, info = texts.step([plans[0], *[plans[1]] * 4])
        for name in ("tokens", "seconds"):
            assert told[name] == pytest.approx([info[name][0], info[name][1:].sum()])
        assert not over.any()


def test_each_load_is_paid_by_its_own_rate():
    env = BatchEnv(trace_of(), dear_at_four(), WORTH, rounds=3)
    env.reset(seed=0)
    means = np.mean([env.step(np.zeros(env.num_envs, int))[1] for _ in range(50)], 0)
    assert np.abs(means).max() < 0.1  # one plan, so none is better than what is usual


def test_all_texts_of_a_batch_get_what_their_mean_says():
    chooser = Network([np.array([[1.0], [-1.0]], np.float32)], [np.zeros(2, np.float32)])
    features = np.array([[3.0], [-1.0], [-2.0], [-3.0], [4.0], [-1.0]], np.float32)
    together = Together(chooser)
    assert together.choose(features, 2).tolist() == [0, 0, 1, 1, 0, 0]
    assert together.choose(features, 1).tolist() == chooser.choose(features).tolist()
    assert together.choose(features[:4]).tolist() == [1, 1, 1, 1] and together.outputs == 2


def test_the_price_of_a_plan_at_a_load_is_that_of_full_batches():
    trace, costs = trace_of(), dear_at_four()
    plain = replayed(trace, costs, 4, always(0), True, 20)
    assert plain == {"tokens_per_second": pytest.approx(4 / 1.5), "autoregressive_share": 1.0}
    drafted = replayed(trace, costs, 4, always(1), True, 20)
    assert drafted["autoregressive_share"] == 0 and drafted["tokens_per_second"] < 0.01
    charged = replayed(trace, costs, 4, always(0), False, 20)["tokens_per_second"]
    assert charged == pytest.approx(4 / 1.75)


def test_a_learned_policy_drafts_only_where_it_pays(monkeypatch, tmp_path):
    trace, costs = trace_of(), dear_at_four()
    speeds = {load: statics(trace, costs, load, 20) for load in LOADS}
    best = {load: max(found, key=found.get) for load, found in speeds.items()}
    assert best == {1: "chain-2", 4: "ar"}
    worth = {load: speeds[load][plan] for load, plan in best.items()}
    made, chooses = policies(["full_information"], trace, costs, worth, 0.5)
    found = priced(trace, costs, best, chooses, 20)
    shares = [found[str(n)]["policies"]["full_information"]["autoregressive_share"] for n in LOADS]
    assert shares[0] < 0.1 and shares[1] > 0.9
    assert list(made) == list(chooses)
    monkeypatch.setattr(common, "RESULTS", tmp_path / "benchmarks" / "results")
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "benchmarks" / "results")
    (tmp_path / "benchmarks").mkdir()
    live = {"4": {"autoregressive": {"median": 2.0, "p10": 1.0, "p90": 3.0}}}
    assert tables.loads() == tables.absent("loads")
    common.save("loads", {"replay": found, "live": live})
    lines = tables.loads().splitlines()
    assert lines[0] == "| tokens/s, priced | load 1 | load 4 |"
    assert any(line.startswith("| full_information |") and "(100%)" in line for line in lines)
    assert "Live at load 4, tokens/s: autoregressive 2.0 (1.0 to 3.0)." in lines


def test_a_live_batch_is_kept_full(monkeypatch):
    monkeypatch.setattr(kept.embedded, "prompts", lambda split: prompts(5))
    pair, seen = lettered(), []

    class Counted(Fixed):
        def plan(self, observation):
            seen.append(observation.batch)
            return super().plan(observation)

    plain = Kept(pair, 3, 7, 6).run(Counted(Plan(0, budget=1)))
    assert set(seen) == {3} and plain["autoregressive_share"] == 1
    assert len(seen) == 12  # 7 texts of 6 tokens, three at a time: 6 cycles, 6 more, then too few
    drafted = Kept(pair, 3, 7, 6).run(Fixed(Plan(2)))
    assert drafted["autoregressive_share"] < 1 and drafted["tokens_per_second"] > 0


def test_policies_are_interleaved_and_each_is_repeated(monkeypatch):
    monkeypatch.setattr(kept.embedded, "prompts", lambda split: prompts(5))
    pair = lettered()
    mixed = Mixed([Plan(0, budget=1), Plan(3)])
    both = {1: {"a": Fixed(Plan(2)), "b": mixed}, 2: {"a": Fixed(Plan(1))}}
    found = kept.live(pair, both, 2, 4)
    assert {load: set(named) for load, named in found.items()} == {"1": {"a", "b"}, "2": {"a"}}
    row = found["1"]["b"]
    assert row["repeats"] == 2 and row["p10"] <= row["median"] <= row["p90"]


def test_the_picture_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    rows = {"tokens_per_second": 2.0, "autoregressive_share": 0.5}
    names = (loads.AR, loads.STATIC, "ppo")
    row = {"policies": dict.fromkeys(names, rows), "plans": {"ar": 1.0, "chain-2": 2.0}}
    live = {"4": {loads.AR: {"median": 1.0}, "ppo": {"median": 2.0}}}
    loads.draw({"replay": {"1": row, "4": row}, "live": live}, tmp_path / "loads.png")
    assert (tmp_path / "loads.png").stat().st_size > 1000


def test_without_results_a_table_says_what_makes_it(monkeypatch, tmp_path):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    for name, table in (("loads", tables.loads), ("replay", tables.replay)):
        assert table() == f"No figures are kept yet; `python -m benchmarks.{name}` makes them."


def test_a_results_file_is_json_of_its_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(common, "RESULTS", tmp_path / "a" / "b")
    (tmp_path / "a").mkdir()
    common.save("x", {"y": 1})
    assert json.loads((tmp_path / "a" / "b" / "x.json").read_text())["machine"]["commit"]
