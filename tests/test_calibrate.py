"""Calibration: fair rounds within a budget, cells that can occur, and nothing half written."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from traces import lettered, recorded

from envs import calibrate, rounds
from envs.calibrate import few, measure, shapes_of, sizes_for
from envs.cost import Costs, price
from envs.probes import learned
from envs.provenance import device_name
from envs.rounds import LEAST, TAKES, Rounds, spread
from envs.staircase import next_larger, rising
from envs.stand import stands
from spec_core import Fixed, Menu, Plan
from spec_core.menu import DEFAULT_MENU

LEAN = Menu.of(["ar", "chain-2", "chain-6@0.2", "beam-3x2n4"])
SLOW, QUICK, MIDDLE = ("slow",), ("quick",), ("middle",)
TOOK = {SLOW: 10.0, QUICK: 0.4, MIDDLE: 5.0}


def clocked(monkeypatch, seconds: float, most: int = 100) -> tuple[Rounds, list]:
    """Rounds over cells that take known seconds on a clock of their own; and who had its turn."""
    time, turns = [0.0], []
    monkeypatch.setattr(rounds, "now", lambda: time[0])

    def cell(key):
        def run() -> float:
            time[0] += TOOK[key]
            turns.append(key)
            return TOOK[key]

        return run

    made = Rounds({key: cell(key) for key in TOOK}, lambda *said: None, 0.0, seconds)
    made.run(most)
    return made, turns


@pytest.mark.parametrize("seconds", [80, 150, 1000])
def test_every_cell_has_its_turn_in_every_round_and_the_time_is_kept(monkeypatch, seconds):
    made, turns = clocked(monkeypatch, seconds)
    quick = TAKES * TOOK[QUICK] + TOOK[MIDDLE] + TOOK[SLOW]
    assert made.number == int((seconds - sum(TOOK.values())) / quick) >= LEAST
    counts = {key: len(values) for key, values in made.found.items()}
    assert counts == {SLOW: made.number, QUICK: TAKES * made.number, MIDDLE: made.number}
    size = TAKES + 2
    for begin in range(len(TOOK), len(turns), size):  # behind the round that warms up
        assert Counter(turns[begin : begin + size]) == {SLOW: 1, QUICK: TAKES, MIDDLE: 1}


def test_a_few_rounds_are_made_at_any_rate_and_no_more_than_asked(monkeypatch):
    assert clocked(monkeypatch, 0)[0].number == LEAST
    assert clocked(monkeypatch, 1e6, 7)[0].number == 7
    assert clocked(monkeypatch, 0, 1)[0].number == 1


def test_the_expected_end_is_that_of_the_rounds_that_still_fit(monkeypatch):
    made, _ = clocked(monkeypatch, 1000)
    assert made.expected == pytest.approx(made.spent)
    assert spread([1.0, 1.0, 1.0]) == 0 and spread([1.0, 2.0, 3.0]) == pytest.approx(0.7413)


def test_only_drafts_that_can_occur_are_measured():
    shapes = shapes_of(DEFAULT_MENU)
    assert (1, 20) in shapes and (2, 8) in shapes and (2, 9) not in shapes
    sizes = sizes_for(DEFAULT_MENU, 1024, [1, 64])
    assert sizes["nodes"] == [*range(1, 18), 21]  # chain-20 is the largest tree of all
    assert few(sizes["nodes"], 1) == sizes["nodes"]
    assert few(sizes["nodes"], 64) == [1, 2, 3, 4, 5, 7, 9, 13, 17, 21]
    assert sizes_for(Menu.of(["ar"]), 1024, [1])["nodes"] == [1]
    assert sizes["contexts"] == [64, 256, 512]
    assert sizes_for(LEAN, 200, [1])["contexts"] == [64, 200]


def test_a_size_that_was_left_out_costs_what_the_next_larger_does():
    table = np.array([[1.0, np.nan, np.nan, 4.0, np.nan], [np.nan, 2.0, 3.0, np.nan, 5.0]])
    made = next_larger(table)
    np.testing.assert_array_equal(made, [[1, 4, 4, 4, np.nan], [2, 2, 3, 5, 5]])


def test_a_table_prices_its_menu_at_every_batch_and_says_how_often_it_measured(tmp_path):
    pair = lettered()
    trace = recorded(pair, LEAN, count=2)
    sizes = sizes_for(LEAN, 128, [1, 8]) | {"contexts": [16, 40]}
    costs = measure(pair, sizes, repeats=2, shapes=shapes_of(LEAN))
    costs.save(tmp_path / "costs.json")
    read = Costs.read(tmp_path / "costs.json")
    for batch in (1, 8):
        assert (price(trace, read, batch).seconds > 0).all()
    assert (np.array(read.measured["line"]["count"])[:, :7] >= 2).all() and (read.line > 0).all()
    counts = np.array(read.measured["draft"]["count"])
    assert counts.shape == read.draft.shape
    wide, deep = sizes["widths"].index(2), sizes["levels"].index(6)
    assert (counts[:, :, wide, deep] == 0).all() and np.isnan(read.draft[:, :, wide, deep]).all()
    assert (counts[0, :, 0] >= 2).all()  # chains of any depth, alone
    assert (counts[1, :, 0, :5] >= 2).all() and (counts[1, :, 0, deep] >= 2).all()
    assert np.nanmin(np.array(read.measured["verify"]["spread"], float)) >= 0
    assert read.machine["rounds"] == [2, 2]


@pytest.mark.parametrize("kind", ["near", "short"])
def test_texts_up_to_the_pairs_limit_can_be_priced(kind):
    pair = lettered(kind)  # the short one's draft reads 24 tokens
    trace, limit = recorded(pair, LEAN, count=2, max_new_tokens=999), pair.target.max_context
    assert trace.lengths.max() == limit - 1
    costs = measure(pair, sizes_for(LEAN, limit, [1]), repeats=1, shapes=shapes_of(LEAN))
    assert costs.contexts == [64, limit] and (price(trace, costs).seconds > 0).all()


@torch.no_grad()
def test_stands_share_the_targets_cache_and_leave_texts_as_they_were():
    made = stands(lettered(), 3, [8, 30], 5, 0.0)
    assert [stand.context for stand in made] == [30, 8]
    assert made[0].session.store is made[1].session.store
    for stand in made:
        texts = [list(s.tokens) for s in stand.session.sequences]
        assert [len(text) for text in texts] == [stand.context] * 3
        for work in (
            lambda s=stand: s.draft(Plan(3)), lambda s=stand: s.verify(s.tree(4)),
            lambda s=stand: s.verify(s.line(4)),
            lambda s=stand: s.rest(Fixed(Plan(2))), lambda s=stand: s.rest(learned()),
        ):  # fmt: skip
            assert stand.undone(work) > 0
            assert [s.tokens for s in stand.session.sequences] == texts
            assert max(stand.session.drafting.known) < stand.context


def test_what_a_learned_policy_adds_is_that_of_one_that_reads_features():
    assert learned().always is None
    features = np.random.default_rng(0).normal(size=(50, learned().inputs)).astype(np.float32)
    assert (learned().chooser.choose(features) == 1).all()


def test_an_interrupted_calibration_writes_nothing(tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Rounds, "run", interrupted)
    monkeypatch.setattr(calibrate, "load_pair", lambda *_, **recall: lettered())
    file = tmp_path / "costs.json"
    code = calibrate.main(["--out", str(file), "--batches", "1", "--contexts", "16"])
    assert code == 130 and "nothing was written" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_table_on_disk_says_where_it_was_measured(tmp_path, monkeypatch, capsys):
    pair, threads, file = lettered(), list[int](), tmp_path / "costs.json"
    monkeypatch.setattr(calibrate, "load_pair", lambda *_, **recall: pair)
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    words = "--menu ar chain-2 --batches 1 --contexts 16 --repeats 1 --minutes 0.01"
    words += " --threads 3 --temperature 0.7"
    assert calibrate.main(["--out", str(file), *words.split()]) == 0
    machine = Costs.read(file).machine
    assert machine["device"] and machine["device"] == device_name(torch.device("cpu"))
    assert (machine["threads"], machine["temperature"]) == (3, 0.7)
    assert f"wrote {file}" in capsys.readouterr().out


@pytest.mark.parametrize("minutes", ["0", "-1", "nan"])
def test_no_time_is_refused(tmp_path, capsys, minutes):
    assert calibrate.main(["--out", str(tmp_path / "c.json"), "--minutes", minutes]) == 2
    assert "--minutes more than 0" in capsys.readouterr().err


@given(st.lists(st.floats(0.5, 2) | st.just(math.nan), min_size=1, max_size=12))
def test_a_table_never_falls_and_stays_near(row):
    table = np.array([row, row])
    found, known = rising(table), ~np.isnan(table)
    assert (np.isnan(found) == ~known).all() and (found[0][known[0]] == found[1][known[1]]).all()
    steps = found[0][known[0]]
    assert (np.diff(steps) >= -1e-12).all()
    assert math.isclose(steps.sum(), table[0][known[0]].sum(), abs_tol=1e-9)
    again = rising(found)
    assert np.allclose(again, found, equal_nan=True)
    own = np.sort(table[0][known[0]])
    assert np.allclose(rising(own[None])[0], own)
