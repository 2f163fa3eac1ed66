"""The oracle of a tiny recording, counted cycle by cycle, and policies' shares of its lead."""

from __future__ import annotations

from functools import cache

import pytest
from benches import bench
from traces import SMALL, costs_of, lettered, meta_of, prompts

from envs import record
from envs.cost import Costs, price
from envs.trace import Trace
from harness.gap import Recording, leads, shares
from spec_core import Menu

TOKENS = 16


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Recording:
    """A recording of five prompts in two domains, and prices."""
    folder, pair = tmp_path_factory.mktemp("recorded"), lettered()
    record._loaded["pair"] = pair
    meta = meta_of(pair, max_new_tokens=TOKENS, seed=3)
    record.work(({}, meta, folder, record.prepare(folder, meta, prompts(5))))
    del record._loaded["pair"]
    costs = costs_of(draft=costs_of().draft / 1000, contexts=[16, 99])
    costs.save(folder / "costs.json")
    return Recording(str(folder), str(folder / "costs.json"))


def spent(source: Recording, menu: Menu, ids: list[str]) -> dict[str, dict[str, float]]:
    """Per prompt the seconds of every plan and of the quickest way, cycle by cycle."""
    trace = Trace.read(source.traces).with_menu(menu)
    prices, found = price(trace, Costs.read(source.costs)), {}
    for text, about in enumerate(trace.texts):
        end = trace.first[text + 1]

        @cache
        def least(at: int, plans: tuple[int, ...], end: int = end) -> float:
            ways = [
                prices.seconds[at, m] + least(at + trace.committed[at, m], plans) for m in plans
            ] if at < end else [0.0]  # fmt: skip
            return min(ways)

        choices = {name: (m,) for m, name in enumerate(menu.names)}
        choices["oracle"] = tuple(range(len(menu)))
        if about.id in ids:
            found[about.id] = {n: least(trace.first[text], plans) for n, plans in choices.items()}
    return found


@pytest.mark.parametrize("static", ["chain-2", "chain-3"])  # recorded, and read out of chain-5
def test_leads_are_those_of_cycles_counted_one_by_one(source, static):
    some = prompts(5)[1:]
    menu = SMALL if static in SMALL.names else Menu.of([*SMALL.plans, static])
    own = spent(source, menu, [prompt["id"] for prompt in some])
    base = sum(row[static] for row in own.values())
    domains = [[p["id"] for p in some if p["domain"] == d] for d in "ab"]

    def best(groups: list[list[str]]) -> float:
        return sum(min(sum(own[i][n] for i in group) for n in menu.names) for group in groups)

    found = leads(bench(max_new_tokens=TOKENS), source, some, static)
    assert found["pooled"] == pytest.approx(base / best([list(own)]))
    assert found["by_domain"] == pytest.approx(base / best(domains))
    assert found["by_prompt"] == pytest.approx(base / best([[i] for i in own]))
    assert found["oracle"] == pytest.approx(base / sum(row["oracle"] for row in own.values()))
    assert 1 <= found["pooled"] <= found["by_domain"] <= found["by_prompt"] < found["oracle"]


def test_the_static_plan_closes_nothing_and_the_oracle_all(source):
    lead = leads(bench(max_new_tokens=TOKENS), source, prompts(5), "chain-2")
    top = 50 * lead["oracle"]
    speeds = {"best_static": 50.0, "oracle": top, "half": (50 + top) / 2, "slow": 100 - top}
    summary = {"policies": {n: {"tokens_per_second": {"value": v}} for n, v in speeds.items()}}
    found = shares(lead, summary, "best_static")
    assert found["shares"] == pytest.approx(
        {"best_static": 0, "oracle": 1, "half": 0.5, "slow": -1}
    )
    assert found["tokens_per_second"] == pytest.approx(top) and found["static"] == 50
    assert {found[f"lead_{name}"] for name in lead} == set(lead.values())


def test_a_plan_that_is_not_recorded_leaves_a_comparison_without_an_oracle(source, capsys):
    at = bench(max_new_tokens=TOKENS)
    assert leads(at, source, prompts(5), "chain-9") is None
    assert "no oracle: chain-9 is no part of what" in capsys.readouterr().err
