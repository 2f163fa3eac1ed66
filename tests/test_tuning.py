"""Tuning on tiny models: the best plan, spread prompts, and what Sequoia has measured for it."""

from __future__ import annotations

import json

import pytest
from benches import PROMPTS, bench
from omegaconf import OmegaConf
from small import Letters, pair_of

from harness.build import Tuner, check_unseen, make_prompts, measured
from harness.evaluation import Bench, Workload
from harness.tuning import tune, tune_static
from policies.rules import make_rule
from spec_core import Fixed, Plan
from spec_core.prompts import spread


class Clocked(Bench):
    """A bench whose seconds are those of a made-up machine: one per cycle, so cycles decide."""

    def measure(self, policy, prompts):
        rows = super().measure(policy, prompts)
        return [{**row, "seconds": float(row["cycles"])} for row in rows]


def test_tuning_finds_the_plan_of_fewest_cycles():
    at = Clocked(pair_of("same", tokenizer=Letters()), Workload(max_new_tokens=16))
    best, found = tune_static(at, PROMPTS, ("ar", "chain-1", "chain-3", "chain-7", "chain-2"))
    assert best.plan_.depth == 7
    assert found["chain-7"] == 8.0 and max(found.values()) == 8.0
    candidates = {
        name: (lambda d=depth: Fixed(Plan(d))) for name, depth in {"x": 1, "y": 3}.items()
    }
    assert tune(at, candidates, PROMPTS)[0] == "y"


def test_prompts_are_spread_over_domains():
    assert [p["id"] for p in spread(PROMPTS, 2)] == ["a-0", "b-0", "a-1", "b-1"]
    assert [p["id"] for p in spread(PROMPTS, 9)] == ["a-0", "b-0", "a-1", "b-1", "a-2"]


def test_sequoia_is_given_rates_and_seconds_that_were_measured():
    rates, costs = measured(bench(max_nodes=12, max_new_tokens=24), PROMPTS)
    assert rates and all(0 <= rate <= 1 for rate in rates)
    sizes, seconds = zip(*costs["verify"], strict=True)
    assert {1, 2, 12} <= set(sizes) and max(sizes) == 12
    assert 0 < seconds[0] and list(seconds) == sorted(seconds) and costs["draft"][0][1] > 0
    assert make_rule("sequoia", acceptance=rates, costs=costs).plan_.budget <= 12


def test_sequoia_is_tuned_with_and_without_costs():
    at = bench(max_nodes=12)
    tuner = Tuner(at, PROMPTS, (1,), lambda said: None)
    best = tuner("sequoia", [{"budget": 3}, {"budget": 5}])
    tried = [json.loads(name) for name in tuner.found["sequoia"]["speeds"]]
    assert sorted(tried[i]["budget"] for i in range(3)) == [3, 5, 12] and best in tried
    assert ["costs" in arguments for arguments in tried].count(True) == 1


def test_a_policy_is_not_compared_on_what_it_has_learned_from(tmp_path):
    about = {"data": {"kind": "embedded"}, "policy": {"kind": "learner"}}
    train, test = (make_prompts(OmegaConf.create(about), split) for split in ("train", "test"))
    file = tmp_path / "config.yaml"
    for content, bad in (
        (about, True),
        (about | {"policy": {"kind": "rule"}}, False),
        (about | {"data": {"kind": "jsonl", "path": "gone.jsonl"}}, False),
        (about | {"traces": "gone", "env": {"name": "replay"}}, False),
        ({"policy": "ppo"}, False),
    ):
        OmegaConf.save(OmegaConf.create(content), file)
        check_unseen(str(tmp_path / "policy"), test)
        check_unseen("chain-4", train)
        if bad:
            with pytest.raises(ValueError, match="has learned from the prompt"):
                check_unseen(str(tmp_path), [*test, {"id": "other", "prompt": train[3]["prompt"]}])
        else:
            check_unseen(str(tmp_path), train)
