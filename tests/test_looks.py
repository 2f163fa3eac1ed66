"""Looks at what is learned: texts held out of a recording, and the best that was seen is kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from recalled import longest
from small import Letters
from test_trace import same
from traces import costs_of, grained, invented, lettered, meta_of, prompts, recorded

from envs.cost import price
from envs.oracle import static
from envs.recorder import Recorder
from envs.runs import run_policy
from envs.trace import assemble
from harness.leaning import Lean, leans
from harness.looks import OnRecordings
from spec_core import Menu, MenuPolicy, Network, Table
from spec_core.features import FEATURES
from spec_core.rows import SURE


def always(trace, plan: int) -> MenuPolicy:
    """A policy that takes one plan."""
    return MenuPolicy(trace.menu, Table([0], [[]], np.array([plan])))


def test_a_part_is_what_was_recorded_of_those_texts():
    whole = recorded(lettered(), count=4)
    assert same(whole.part([0, 1, 2]), recorded(lettered(), count=3))
    turned = whole.part([2, 0])
    assert [text.id for text in turned.texts] == ["p2", "p0"]
    assert turned.visited(1).size == sum(whole.part([i]).visited(1).size for i in (0, 2))


def test_one_text_of_so_many_of_each_domain_is_held_out():
    trace = invented([np.zeros((3 + i, 2), np.uint8) for i in range(11)])
    kept, held = trace.fold(5)
    assert [text.id for text in held.texts] == ["t8", "t9"]  # the fifth of each domain
    assert {t.id for t in kept.texts} | {"t8", "t9"} == {text.id for text in trace.texts}
    assert len(kept) + len(held) == len(trace)
    assert trace.part([0, 1, 2]).fold(5) is None


def test_a_look_at_recordings_is_by_the_prices_of_texts_held_out():
    costs, trace = costs_of(contexts=[16, 999]), recorded(lettered(), count=10)
    kept, held = trace.fold(5)
    assert [text.id for text in held.texts] == ["p8", "p9"]
    look = OnRecordings(kept, held, costs)
    best = static(kept, price(kept, costs, 1).seconds).pooled
    speeds = [run_policy(held, costs, always(trace, m)).speed for m in range(4)]
    assert [look(always(trace, m))[1] for m in range(4)] == speeds and len(set(speeds)) == 4
    assert look(always(trace, 0))[2] > speeds[best]  # which is charged nothing for deciding


def test_levels_that_the_past_drafts_alone_are_recorded_and_cost_no_round():
    pair, menu = lettered(), Menu.of(["ar", "chain-6", "beam-3x2n4"])
    prompt, meta = "01234" * 6, meta_of(pair, menu, max_new_tokens=10)
    loop = {"id": "loop", "prompt": prompt}
    trace = assemble(meta, list(Recorder(pair, meta).record([loop, *prompts(2)])))
    own, levels = Letters().encode(prompt), trace.shapes["levels"][:, 1].astype(int)
    text, spared = own + trace.tokens[: trace.told_count[0]].tolist(), trace.shapes["spared"][:, 1]
    path = list[int]()
    while longest(own, path)[1] == SURE and len(path) < 6:
        path.append(longest(own, path)[0])
    assert len(path) == levels[0] == spared[0] == 6
    at = next(i for i in range(1, 5) if longest(text[: len(own) + i], [])[1] < SURE)
    assert spared[at] < levels[at]
    assert not spared[trace.first[1] :].any() and not trace.shapes["spared"][:, [0, 2]].any()
    cheap = costs_of((1, 4), contexts=[16, 999], recall=0.125)
    drafts = price(trace, cheap).draft[:, 1]
    lengths = grained(trace.lengths)
    assert drafts[0] == 0.125 and drafts[at] == cheap.drafting(1, levels - spared, lengths)[at]
    assert price(trace, cheap, 4).draft[0, 1] == cheap.drafting(1, 6, lengths[0], 4)
    with pytest.raises(ValueError, match="calibrate --recall"):
        price(trace, costs_of(contexts=[16, 999], recall=None))
    cut = Menu.of(["ar", "chain-6n4"])  # drafted as trees are, by the model
    assert not trace.with_menu(cut).shapes["spared"].any()


def random_network(menu: Menu, seed: int) -> MenuPolicy:
    """A policy that chooses by chance."""
    weight = np.random.default_rng(seed).normal(size=(len(menu), len(FEATURES))).astype(np.float32)
    return MenuPolicy(menu, Network([weight], [np.zeros(len(menu), np.float32)]))


def test_a_policy_that_leans_goes_back_to_the_plan_as_often_as_is_said():
    menu = Menu.of(["ar", "chain-1", "chain-2"])
    features = np.random.default_rng(1).normal(size=(4000, len(FEATURES))).astype(np.float32)
    policy = random_network(menu, 0)
    plain, *more = leans(policy, 2, features)
    assert plain(policy) is policy
    before = (policy.chooser.choose(features) == 2).mean()
    for lean, share in zip(more, (0.25, 0.5, 0.75, 0.9, 1.0), strict=True):
        after = (lean(policy).chooser.choose(features) == 2).mean()
        assert after == pytest.approx(before + share * (1 - before), abs=0.01)
    table = always(recorded(lettered(), count=1), 1)
    assert Lean(0, 5.0)(table) is table


def test_a_look_leans_as_is_fastest_and_never_loses_to_the_plan_but_for_deciding():
    trace, costs = recorded(lettered("same"), count=5), costs_of()
    look = OnRecordings(
        trace.part([0, 1, 2]), trace.part([3, 4]), replace(costs, decide=np.zeros(1))
    )
    for seed in range(4):
        kept, speed, base = look(random_network(trace.menu, seed))
        assert speed >= base * (1 - 1e-9)
        assert run_policy(look.held, look.costs, kept).speed == speed
        assert speed >= run_policy(look.held, look.costs, random_network(trace.menu, seed)).speed
