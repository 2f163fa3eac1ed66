"""Loads: decisions by batch carry their own price, learned ones leave drafting where it loses."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from small import Mixed
from traces import costs_of, invented, lettered, prompts

from benchmarks import common, kept, loads, tables
from benchmarks.kept import Kept
from benchmarks.loads import always, exported, policies, priced, replayed, statics
from policies.learners import full
from policies.learners.networks import fit
from spec_core import Fixed, Plan

LOADS = (1, 4)


def trace_of(texts: int = 6, plans: int = 3):
    """Texts where plan m accepts m tokens or fewer."""
    chance = np.random.default_rng(0)
    counts = chance.integers(20, 30, texts)
    most = np.arange(plans)
    return invented([np.minimum(chance.integers(0, 4, (n, 1)), most) for n in counts])


def bound_by_arithmetic():
    """Verifying costs the same whatever the nodes at one text, and by the node at four."""
    costs = costs_of(LOADS, early=False)
    verify = np.ones_like(costs.verify)
    verify[1] = 100.0 * np.array(costs.nodes)
    return replace(costs, draft=np.full_like(costs.draft, 0.01), verify=verify, line=verify[0])


def test_the_price_of_a_plan_at_a_load_is_that_of_full_batches():
    trace, costs = trace_of(), bound_by_arithmetic()
    plain = replayed(trace, costs, 4, always(0), 20, free=True)
    assert plain == {"tokens_per_second": pytest.approx(4 / 100.5), "autoregressive_share": 1.0}
    drafted = replayed(trace, costs, 4, always(1), 20, free=True)
    assert drafted["autoregressive_share"] == 0 and drafted["tokens_per_second"] < 0.04
    for together in (True, False):
        charged = replayed(trace, costs, 4, always(0), 20, together=together)
        assert charged["tokens_per_second"] == pytest.approx(4 / 100.75)


def test_learned_policies_draft_only_where_it_pays(monkeypatch, tmp_path):
    trace, costs = trace_of(), bound_by_arithmetic()
    speeds = {load: statics(trace, costs, load, 20) for load in LOADS}
    best = {load: max(found, key=found.get) for load, found in speeds.items()}
    assert best == {1: "chain-2", 4: "ar"}
    monkeypatch.setattr(full, "fit", lambda *a: fit(*a[:-1], 400))  # the last: updates
    made = policies(["full_information", "table"], trace, costs, LOADS, 0.5)
    assert list(made) == ["full_information", "table", "full_information, each text for itself"]
    assert [policy.together for policy in made.values()] == [True, True, False]
    assert [exported(policy).lagged for policy in made.values()] == [True, False, True]
    found = priced(trace, costs, best, made, 20)
    for name in ("full_information", "table"):
        rows = [found[str(load)]["policies"][name] for load in LOADS]
        assert rows[0]["autoregressive_share"] < 0.1 and rows[1]["autoregressive_share"] > 0.9
        for load, row in zip(LOADS, rows, strict=True):  # and all but the price of deciding is left
            least = 0.8 if name == "full_information" and load == 1 else 0.99
            assert row["tokens_per_second"] > least * speeds[load][best[load]]
    monkeypatch.setattr(common, "RESULTS", tmp_path / "benchmarks" / "results")
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "benchmarks" / "results")
    (tmp_path / "benchmarks").mkdir()
    live = {"4": {"autoregressive": {"median": 2.0, "p10": 1.0, "p90": 3.0}}}
    assert tables.loads() == tables.absent("loads")
    common.save("loads", {"replay": found, "live": live})
    lines = tables.loads().splitlines()
    assert lines[0] == "| tokens/s, priced, T = 0 | load 1 | load 4 |"
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
