"""The replay benchmark in miniature: every part says what it should of a tiny pair."""

from __future__ import annotations

import pytest
from traces import SMALL, costs_of, lettered, prompts, recorded

from benchmarks import common, replay, tables


@pytest.fixture(scope="module")
def pair():
    """A tiny pair."""
    return lettered()


@pytest.fixture(scope="module")
def trace(pair):
    """A recording of it."""
    return recorded(pair, SMALL, count=6)


def test_runs_take_turns_and_the_first_round_is_not_counted():
    turns: list[str] = []

    def run(name: str):
        return lambda: turns.append(name) or float(len(turns))

    found = replay.interleaved({"a": run("a"), "b": run("b")}, 3, "testing")
    assert turns == ["a", "b"] * 4
    assert found["a"]["median"] == 5 and found["b"]["median"] == 6


def test_the_table_of_miniature_results(monkeypatch, tmp_path, pair, trace):
    monkeypatch.setattr(replay, "pick", lambda split, per_domain: prompts(3))
    monkeypatch.setattr(replay, "MENUS", {"all": ("chain-2", "beam-3x2n4")})
    monkeypatch.setattr(common, "RESULTS", tmp_path / "benchmarks" / "results")
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "benchmarks" / "results")
    (tmp_path / "benchmarks").mkdir()
    options = replay.options(["--num-envs", "2", "8", "--window", "0.01", "--repeats", "2"])
    costs = costs_of()
    speed = replay.speeds(trace, costs, pair, options)
    assert set(speed["replay_cycles_per_second"]) == set(speed["ratio"]) == {"2", "8"}
    assert speed["plan"] in SMALL.names and speed["live_cycles_per_second"]["median"] > 0
    recording = replay.recording(pair, prompts(3), 6, 1)
    one = recording["seconds"]
    ratio = one["all"]["median"] / one["plain, together"]["median"]
    assert recording["ratios"]["all"]["over_together"] == pytest.approx(ratio)
    ppo = replay.learning(trace, costs, 0.3, 0.05)
    near = [p for p in ppo["curve"] if p["tokens_per_second"] >= 0.99 * ppo["plateau"]]
    assert ppo["seconds"] == near[0]["seconds"] and ppo["curve"]
    assert [p["seconds"] for p in ppo["curve"]] == sorted(p["seconds"] for p in ppo["curve"])
    content = {
        "bytes_per_position": 12.3, "speed": speed, "recording": recording, "ppo": ppo,
        "oracle_ms": replay.oracles(trace, costs, 2),
    }  # fmt: skip
    common.save("replay", content)
    lines = tables.replay().splitlines()
    assert "| bytes per position | 12 | 4096 |" in lines and len(lines) == 11
    assert any("(2)" in line and "(8)" in line and "300,000" in line for line in lines)
