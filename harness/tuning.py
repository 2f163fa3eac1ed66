"""The best of many candidates on dev prompts: interleaved, halved as the prompts grow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from harness.evaluation import Bench, Prompt, interleaved, speed
from spec_core.menu import read_name
from spec_core.policy import Fixed, Policy
from spec_core.prompts import spread

# Brackets the optimum of pairs whose draft is right from a third to nearly all of the time.
STATIC_GRID = (
    "ar", "chain-1", "chain-2", "chain-3", "chain-4", "chain-6", "chain-8", "chain-12", "chain-16",
    "chain-6@0.3", "chain-8@0.1", "chain-8@0.3", "chain-8@0.5", "chain-12@0.05", "chain-12@0.1",
    "chain-12@0.2", "chain-16@0.05", "chain-16@0.1", "chain-16@0.15", "chain-20@0.03",
    "chain-20@0.05", "chain-20@0.1", "chain-20@0.15", "chain-24@0.1", "beam-2x2n4", "beam-4x2n8",
    "beam-6x2n12", "beam-8x2n16", "beam-4x3n12", "beam-6x2n8@0.1", "beam-8x2n12@0.1",
    "beam-6x2n10@0.05", "beam-6x3n10@0.05", "beam-8x2n10@0.05",
)  # fmt: skip
KEPT = 0.34  # of the candidates, after each round


def speeds(
    bench: Bench, policies: dict[str, Policy], prompts: list[Prompt],
    tick: Callable[[], None] = lambda: None,
) -> dict[str, float]:  # fmt: skip
    """Tokens per second of every policy, interleaved on the prompts; a tick after each run."""
    for policy in policies.values():
        bench.measure(policy, bench.batches(prompts)[0])
        tick()
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in policies}
    for found in interleaved(bench, policies, prompts, 1, 0):
        rows[found[0]["policy"]] += found
        tick()
    return {name: speed(own) for name, own in rows.items()}


def tune(
    bench: Bench, candidates: Mapping[str, Callable[[], Policy]], prompts: list[Prompt],
    rounds: tuple[int, ...] = (1, 3), say: Callable[[str], None] = lambda said: None,
    tick: Callable[[], None] = lambda: None,
) -> tuple[str, dict[str, float]]:  # fmt: skip
    """The fastest candidate, and the last round's tokens per second; rounds: prompts per domain."""
    if not prompts:
        raise ValueError("there are no dev prompts to tune on")
    names = list(candidates)
    found: dict[str, float] = {}
    for i, per_domain in enumerate(rounds if len(names) > 1 else rounds[-1:]):
        say(f"tuning {len(names)} candidates, {per_domain} prompts per domain")
        made = {name: candidates[name]() for name in names}
        found = speeds(bench, made, spread(prompts, per_domain), tick)
        names = sorted(names, key=lambda name: -found[name])
        if i + 1 < len(rounds):
            names = names[: max(3, round(KEPT * len(names)))]
    return names[0], {name: found[name] for name in names}


def tune_static(
    bench: Bench, prompts: list[Prompt], grid: tuple[str, ...] = STATIC_GRID,
    rounds: tuple[int, ...] = (1, 3), say: Callable[[str], None] = lambda said: None,
    tick: Callable[[], None] = lambda: None,
) -> tuple[Fixed, dict[str, float]]:  # fmt: skip
    """The best static plan of a grid, and the speeds of the last round."""
    plans = {name: read_name(name) for name in grid}
    fitting = {
        name: plan for name, plan in plans.items() if plan.budget <= bench.workload.max_nodes
    }
    candidates = {name: partial(Fixed, plan) for name, plan in fitting.items()}
    best, found = tune(bench, candidates, prompts, rounds, say, tick)
    return Fixed(plans[best]), found
