"""Recordings and cost tables that runs make for themselves, without making any."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from traces import invented

from envs.calibrate import parser
from envs.trace import Trace
from harness import recordings as made
from spec_core.menu import DEFAULT_MENU


@pytest.mark.parametrize(
    ("longest", "contexts"), [(20, [64, 256, 512]), (800, [64, 256, 512, 1024])]
)
def test_costs_are_measured_up_to_the_longest_recorded_text(
    monkeypatch, tmp_path, longest, contexts
):
    ran = []
    trace = invented([np.zeros((longest, 2), np.uint8)])
    monkeypatch.setattr(Trace, "read", lambda *_, **options: trace)
    monkeypatch.setattr(made, "_run", lambda words, stop: ran.append(words))
    pair = SimpleNamespace(target=None, draft=None, recall=None)
    config = SimpleNamespace(
        runs=tmp_path, traces=tmp_path, cost=None, pair=pair, device="cpu", dtype=None,
        temperature=0.0, threads=1, skip_broken=False,
    )  # fmt: skip
    made.recordings(config, DEFAULT_MENU, [1, 4], lambda: False)
    (words,) = ran
    asked = parser().parse_args(list(map(str, words[1:])))
    assert asked.contexts == contexts and asked.batches == [1, 4]
