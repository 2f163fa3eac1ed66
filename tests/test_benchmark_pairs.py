"""Benchmarks refuse recordings of another pair than the one they measure."""

from __future__ import annotations

import argparse

import pytest
from traces import lettered, meta_of, prompts, recorded

from benchmarks import predicted, prepare
from envs import record
from envs.provenance import pair_key


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A recording of the tiny pair."""
    pair = lettered()
    monkeypatch.setitem(record._loaded, "pair", pair)
    record.work(({}, meta_of(pair), tmp_path, prompts(1)))
    record.prepare(tmp_path, meta_of(pair), [])
    return tmp_path


def test_a_given_recording_is_of_the_embedded_pair(monkeypatch, tiny):
    options = argparse.Namespace(train=tiny)
    with pytest.raises(ValueError, match=rf"another pair \(tiny, here {pair_key()}\)"):
        prepare.trace(options, "train")
    monkeypatch.setattr(prepare, "pair_key", lambda: "tiny")
    assert len(prepare.trace(options, "train").texts) == 1


def test_predictions_are_of_the_recorded_pair(tiny):
    with pytest.raises(ValueError, match="another pair"):
        predicted.measured(lettered(), [str(tiny), "chain-4"], 1, 1)


def test_prices_and_policies_are_measured_by_turns():
    pair = lettered()
    trace, policies = recorded(pair, count=2), predicted.candidates("chain-5", [])
    live, costs = predicted.by_turns(pair, trace, policies, prompts(2), 2)
    counts = costs.measured["overhead"]["count"][0]
    assert min(counts) >= 4  # a round at every prompt, in every repeat
    made = {name: predicted.promised(trace, costs, policy) for name, policy in policies.items()}
    assert set(live) == set(made) == {"autoregressive", "static"}
    assert min(live.values()) > 0 and min(made.values()) > 0


def test_how_far_off_prices_are():
    live = {"autoregressive": 50.0, "static": 100.0, "ppo": 110.0}
    found = predicted.compared(live, {"autoregressive": 60.0, "static": 120.0, "ppo": 120.0})
    assert found["absolute"] == pytest.approx({"median": 0.2, "most": 0.2})
    assert found["relative"] == pytest.approx({"median": 1 / 22, "most": 1 / 11})
    assert found["rank"] == 1
    turned = predicted.compared(live, {"autoregressive": 60.0, "static": 50.0, "ppo": 40.0})
    assert turned["rank"] == -1
