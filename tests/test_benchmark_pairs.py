"""Benchmarks refuse recordings of another pair than the one they measure."""

from __future__ import annotations

import argparse
import json

import pytest
from traces import lettered, meta_of, prompts

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


def test_a_predicted_run_is_of_the_recorded_pair(tiny):
    run = tiny / "run"
    run.mkdir()
    pair = {"target": None, "draft": None, "recall": None}
    config = {"traces": str(tiny), "cost": "none", "pair": pair, "device": "cpu"}
    (run / "config.yaml").write_text(json.dumps(config))
    (run / "results.json").write_text("{}")
    with pytest.raises(ValueError, match="another pair"):
        predicted.compared(run)
