"""Published rules by name: they give the plain text, and come back from files as they were."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from forging import forged
from ruling import CASES, COSTS, STOPPING, Asks, observation, plain, run

import policies
from policies.rules import RULES, make_rule
from policies.rules.costs import Costs, Staircase
from spec_core import load_policy
from spec_core.verifiers.rejection import Rejection


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", RULES)
def test_every_rule_gives_the_plain_text(name, temperature):
    rule = make_rule(name, **CASES[name])
    for batch in (3, 1):  # what was learned on one is used on the next
        tokens, drafted = run(rule, batch, temperature)
        assert tokens == plain(batch, temperature)
        assert (drafted > 0) == (name != "autoregressive")


@pytest.mark.parametrize("name", RULES)
def test_every_rule_runs_under_rejection(name):
    rule = make_rule(name, **CASES[name])
    assert run(rule, 3, 0.0, Rejection())[0] == plain(3, 0.0)
    assert [len(text) for text in run(rule, 3, 1.0, Rejection())[0]] == [14] * 3


def test_learned_costs_drive_the_marginal_rule():
    rule = make_rule("marginal")
    for batch in (3, 1):
        assert run(rule, batch, 0.0)[0] == plain(batch, 0.0)
    assert rule.costs.verify_seconds(64) > 0


def test_the_rules_do_stop_and_do_go_on():
    for name in STOPPING:
        rule = make_rule(name, **CASES[name])
        for _ in range(3):  # the marginal rule first learns what a level is worth
            run(rule, 3, 0.0)
        asks = Asks(rule)
        run(asks, 3, 0.0)
        assert {True, False} <= set(asks.answers), name


def test_every_rule_has_defaults():
    for name in RULES:
        assert len(make_rule(name).plan(observation(2))) == 2


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("opttree", {}, "did you mean 'opt_tree'.*autoregressive, chain"),
        ("zzz", {}, "there are autoregressive"),
        ("chain", {"dept": 3}, "dept.*depth=4"),
        ("autoregressive", {"depth": 3}, "takes nothing"),
        ("chain", {"depth": -1}, "at least 0"),
        ("chain", {"depth": 2.5}, "whole numbers"),
        ("opt_tree", {"budget": 1}, "at least 2"),
        ("confidence", {"threshold": 1.5}, "probability"),
        ("template", {"parents": [3], "ranks": [0]}, "precede"),
        ("marginal", {"costs": {"draft": [[1, 1.0]]}}, "verify"),
        ("marginal", {"costs": {"draft": [[1, 1.0]], "verify": [[2, 1], [1, 1]]}}, "rise"),
        ("thompson", {"edges": [0.5, 0.2]}, "rise"),
        ("sequoia", {"acceptance": [1.5]}, "probabilities"),
        ("ddd", {"checks": [99]}, "below the depth"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_line(name, arguments, said):
    with pytest.raises(ValueError, match=said) as caught:
        make_rule(name, **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_comes_back_from_its_folder_and_decides_the_same(name, tmp_path: Path):
    rule = make_rule(name, **CASES[name])
    for seed in range(2):
        run(rule, 3, float(seed))
    rule.save(tmp_path)
    read = load_policy(tmp_path)
    assert type(read) is type(rule) and read.plan_ == rule.plan_
    answers = []
    for policy in (rule, read):
        asks = Asks(policy)
        run(asks, 3, 1.0)
        answers.append(asks.answers)
    assert answers[0] == answers[1] and bool(answers[0]) == (name in STOPPING)
    if name in STOPPING:
        assert json.dumps(rule.state()) == json.dumps(read.state())


def test_learned_state_is_written(tmp_path: Path):
    for name, arguments in (("thompson", {}), ("marginal", {}), ("marginal", {"costs": COSTS})):
        rule, fresh = make_rule(name, **arguments), make_rule(name, **arguments)
        run(rule, 3, 0.0)
        assert rule.state() != fresh.state()
        rule.save(tmp_path)
        assert load_policy(tmp_path).state() == rule.state()


def test_costs_given_as_an_object_are_written(tmp_path: Path):
    costs = Costs(Staircase(COSTS["draft"]), Staircase(COSTS["verify"]))
    make_rule("marginal", costs=costs).save(tmp_path)
    assert load_policy(tmp_path).costs == costs


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"name": None},
        {"arguments": {"hue": 1}},
        {"arguments": None},
        {"state": {}},
        {"state": {"counts": [[1, 2]], "calibration": {}, "random": {}}},
        *(
            {"state": {"counts": [[1, 2]] * 6, "calibration": {}, "random": random}}
            for random in ({}, [], [1], [0, 5], [2**70, 1], [1.5, 2], 7)
        ),
        *(
            {"state": {"counts": [[1, count]] * 6, "calibration": {}, "random": [1, 2]}}
            for count in (-1, math.nan, math.inf)
        ),
        {"state": [1]},
    ],
)
def test_a_tampered_rule_is_refused(tmp_path: Path, change):
    make_rule("thompson").save(tmp_path)
    forged(tmp_path, lambda content: content.update(change))
    with pytest.raises(ValueError, match="not a valid policy"):
        load_policy(tmp_path)


def test_a_rule_that_was_changed_is_refused(tmp_path: Path):
    make_rule("thompson").save(tmp_path)
    forged(tmp_path, lambda content: content["arguments"].update(depth=3), sealed=False)
    with pytest.raises(ValueError, match="not what was exported"):
        load_policy(tmp_path)


def test_the_page_on_rules_names_every_rule():
    page = (Path(policies.__file__).parent.parent / "docs" / "rules.md").read_text()
    assert [name for name in RULES if f"`{name}`" not in page] == []
