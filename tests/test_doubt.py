"""Asking in doubt only: the rest of a draft is what the band says, and nobody is asked about it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from forging import forged
from hypothesis import given
from hypothesis import strategies as st
from live import several, single
from small import Counting, Mixed, pair_of

from spec_core import Network, Pair, Plan, SpeculativeDecoder, StopPolicy, load_policy
from spec_core.cycles import conversation
from spec_core.doubt import ALWAYS, Doubt
from spec_core.drafters.lm import ModelDrafter
from spec_core.features import FEATURES, LEVEL_FEATURES
from spec_core.menu import read_name

PATH = len(FEATURES) + [f.name for f in LEVEL_FEATURES].index("path")
TEXTS = [[1, 2, 3], [5], [7, 8, 9, 10, 11]]
BANDS = [(0.1, 0.5), (0.0, 0.4), (0.2, 1.0), (0.3, 0.3), (0.0, 0.0), (1.0, 1.0)]
shares = st.floats(0, 1)


@given(shares, shares, st.lists(st.floats(-30, 0, width=32), min_size=1))
def test_a_path_is_asked_about_or_stops_or_goes_on(one, other, paths):
    doubt = Doubt(min(one, other), max(one, other))
    array = np.array(paths, np.float32)
    asks, stops = doubt.asks(array), doubt.stops(array)
    assert asks.tolist() == [doubt.asks(path) for path in paths]
    assert stops.tolist() == [doubt.stops(path) for path in paths]
    assert not (asks & stops).any() and ALWAYS.asks(array).all()
    for path, ask, stop in zip(paths, asks, stops, strict=True):
        if abs(math.exp(path) - doubt.low) > 1e-6 and abs(math.exp(path) - doubt.high) > 1e-6:
            assert ask == (doubt.low < math.exp(path) < doubt.high)
            assert stop == (math.exp(path) < doubt.low)


class Hashing:
    """A chooser that decides by the bits of the features, or by a band; keeps what it decides."""

    kind, inputs = "hashing", 0
    outputs = 2

    def __init__(self, doubt: Doubt = ALWAYS) -> None:
        self.doubt, self.seen, self.heard = doubt, [], True

    def choose(self, features):
        own = features.view(np.int32).astype(np.int64).sum(1) % 2
        path = 4 * features[:, PATH]
        asks = self.doubt.asks(path)
        self.seen += [row.tobytes() for row in features[asks & self.heard]]
        return np.where(asks, own, self.doubt.stops(path).astype(np.int64))

    def decide(self, features):
        return self.choose(features).tolist()


class Listening(StopPolicy):
    """Tells its chooser whose answers count."""

    def stop(self, level):
        self.chooser.heard = np.array(level.asked)
        return super().stop(level)


def decoded(policy: StopPolicy, batch: int, temperature: float = 0.0):
    """What every cycle drafted, accepted and wrote."""
    made, pair = [], pair_of("near")

    def watch(outcome) -> None:
        depths = outcome.tree.depths.amax(1).tolist()
        made.append((outcome.rows, depths, outcome.drafted, outcome.accepted, outcome.tokens))

    SpeculativeDecoder(pair, policy).generate(
        TEXTS[:batch], watch, max_new_tokens=20, seed=3, temperature=temperature
    )
    return made


@pytest.mark.parametrize("band", BANDS)
@pytest.mark.parametrize("plan", ["chain-6", "chain-6@0.1", "beam-4x2n7", "best-4x2n8"])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_band_is_a_policy_that_answers_as_the_band_does(band, plan, batch):
    doubt, plan = Doubt(*band), read_name(plan)
    asked, always = Hashing(), Hashing(doubt)
    mine = Listening(plan, asked, doubt=doubt)
    assert decoded(mine, batch, 1.0) == decoded(Listening(plan, always), batch, 1.0)
    assert bool(asked.seen) == bool(always.seen) == (band[0] < band[1])
    assert asked.seen == always.seen


@pytest.mark.parametrize("batch", [1, 3])
def test_levels_without_doubt_are_not_shown(batch):
    doubt, policy = Doubt(0.1, 0.5), Mixed([Plan(8, budget=9), Plan(4, width=2)], levels=True)
    policy.levels, answer, views = doubt, policy.stop, []

    def stop(level):
        views.append(level)
        return answer(level)

    policy.stop = stop
    decoded(policy, batch)
    for view in views:
        best = view.scores.amax(1)
        assert any(view.asked) and view.numbers == [scores.tolist() for scores in view.pool]
        for asked, now in zip(view.asked, best.tolist(), strict=True):
            assert not asked or math.log(0.1) - 1e-6 < now < math.log(0.5) + 1e-6
    assert len(views) > 2


def test_an_exported_band_is_read_back(tmp_path):
    policy = StopPolicy(Plan(6, budget=7), zeros(), doubt=Doubt(0.05, 0.4))
    policy.save(tmp_path)
    again = load_policy(tmp_path)
    assert again.doubt == again.levels == Doubt(0.05, 0.4)
    assert decoded(again, 3) == decoded(policy, 3)
    assert json.loads((tmp_path / "policy.json").read_text())["doubt"] == [0.05, 0.4]
    for band in ([0.4, 0.05], [0.1], [0.1, 2], None, ["a", "b"]):
        forged(tmp_path, lambda content, band=band: content.update(doubt=band))
        with pytest.raises(ValueError, match=r"not a valid policy.*doubt is"):
            load_policy(tmp_path)
    forged(tmp_path, lambda content: content.pop("doubt"))
    assert load_policy(tmp_path).doubt == ALWAYS


def zeros() -> Network:
    """A network that stops nowhere."""
    size = len(FEATURES) + len(LEVEL_FEATURES)
    return Network([np.zeros((2, size), np.float32)], [np.array([1, 0], np.float32)])


@pytest.mark.parametrize("left", [1, 2])  # the bonus is all that may come, or a level more
@pytest.mark.parametrize("plan", ["chain-6", "beam-6x2n9", "chain-6@0.0001"])
def test_a_row_at_its_end_keeps_nobody_drafting(plan, left):
    near = pair_of("near")
    model = Counting(near.drafter.model)
    decoder = SpeculativeDecoder(Pair(near.target, ModelDrafter(model)))
    for ends in ([0], [1, 2]):
        session = decoder.open(TEXTS, 20, seed=3)
        for row in ends:
            sequence = session.sequences[row]
            sequence.limit = len(sequence.tokens) + left
        talk = conversation(session, levels=True)
        next(talk)
        view = talk.send([read_name(plan)] * 3)
        assert view.asked == [row not in ends for row in range(3)]
        assert view.depth == 1
        rounds = len(model.queries)
        with pytest.raises(StopIteration) as done:
            talk.send([row not in ends for row in range(3)])  # the ended ones say: draft on
        assert len(model.queries) == rounds and max(done.value.value.drafted) <= 2


@pytest.mark.parametrize("make", [single, several])
def test_an_environment_steps_in_doubt_only(make):
    env = make("stop", plan="chain-6", doubt=(0.1, 0.5))
    assert env.doubt == Doubt(0.1, 0.5)
    features, info = env.reset(seed=1)
    chance, seen = np.random.default_rng(0), 0
    for _ in range(80):
        rows, active = np.atleast_2d(features), np.atleast_1d(info["active"])
        path = np.exp(4 * rows[:, PATH])
        assert active.any() and (active <= ((path > 0.0999) & (path < 0.5001))).all()
        seen += active.sum()
        features, _, over, _, info = env.step(chance.integers(0, 2, size=len(active)))
        if make is single and over:
            features, info = env.reset()
    assert seen >= 80


def test_a_band_that_never_asks_is_named():
    with pytest.raises(ValueError, match="without a decision"):
        several("stop", doubt=(0.0, 0.0)).reset()
    for bad in ((0.5, 0.1), (-0.1, 0.5), 0.3, "ab"):
        with pytest.raises(ValueError, match="doubt is"):
            several("stop", doubt=bad)
