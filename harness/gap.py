"""The oracle of recorded prompts, and how much of its lead over the static plan was closed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

from envs.cost import Costs, price
from envs.oracle import Static, gap_closed, oracle, static
from envs.shapes import pool_of
from envs.shards import digest
from envs.trace import Trace
from harness.evaluation import Bench, Prompt
from spec_core.menu import Menu, read_name


class Recording(NamedTuple):
    """Where the evaluated prompts are recorded, what prices them, and of which pair it must be."""

    traces: str
    costs: str
    pair: str | None = None
    skip_broken: bool = False

    def read(self) -> Trace:
        """The recording, if it is of that pair."""
        return Trace.read(Path(self.traces), pair=self.pair, skip_broken=self.skip_broken)


def leads(
    bench: Bench, source: Recording, prompts: list[Prompt], plan: str
) -> dict[str, Any] | None:
    """Speeds over the static plan's by the cost table: the oracle's and the best static plans'.

    None where the static plan is no part of what was recorded: a comparison goes on without.
    """
    trace, table, traces = source.read(), Costs.read(Path(source.costs)), source.traces
    work, texts = bench.workload, {"max_new_tokens": bench.workload.max_new_tokens}
    trace.meta.check(Path(traces), **bench.recorded_as, **texts)
    if work.temperature > 0:
        trace.meta.check(Path(traces), seed=work.seed)
    if plan not in trace.menu.names:  # as far as the recorded candidates serve it
        if pool_of(read_name(plan), trace.known) < 0:
            print(f"no oracle: {plan} is no part of what {traces} holds", file=sys.stderr)
            return None
        trace = trace.with_menu(Menu.of([*trace.menu.plans, plan]))
    recorded = {text.id: i for i, text in enumerate(trace.texts)}
    missing = [prompt["id"] for prompt in prompts if prompt["id"] not in recorded]
    if missing:
        raise ValueError(
            f"{traces}: {len(missing)} of the evaluated prompts are not recorded there (such as "
            f"{missing[0]!r}); record them with python -m envs.record"
        )
    some = [recorded[prompt["id"]] for prompt in prompts]
    for prompt, text in zip(prompts, [trace.texts[i] for i in some], strict=True):
        if text.digest != digest(prompt["prompt"]):
            raise ValueError(f"{traces}: prompt {prompt['id']!r} was recorded with another text")
    seconds = price(trace, table, work.batch_size).seconds / work.batch_size
    whole, best = static(trace, seconds), oracle(trace, seconds)
    plans = Static(whole.seconds[some], whole.tokens[some], whole.domains[some])
    least = float(best.tokens[some].sum() / best.seconds[some].sum())
    base = plans.speed(trace.menu.names.index(plan))
    gap_closed(base, base, least)  # refuses where the oracle does not lead
    return {
        "oracle": least / base, "pooled": plans.speed() / base,
        "by_domain": plans.speed(plans.by_domain) / base,
        "by_prompt": plans.speed(plans.by_text) / base,
        "costs": str(table.machine.get("device", "unknown")),
    }  # fmt: skip


def shares(lead: dict[str, Any], summary: dict[str, Any], static_name: str) -> dict[str, Any]:
    """The report's oracle: speeds on this clock, and every policy's share of the gap closed."""
    speeds = {name: f["tokens_per_second"]["value"] for name, f in summary["policies"].items()}
    base = speeds[static_name]
    top = base * lead["oracle"]
    return {
        "tokens_per_second": top, "static": base, **{f"lead_{k}": v for k, v in lead.items()},
        "shares": {name: gap_closed(speed, base, top) for name, speed in speeds.items()},
    }  # fmt: skip
