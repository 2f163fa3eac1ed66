"""Policies compared: measured in turns, checked, summarised, written down and shown."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console
from tqdm import tqdm

from harness.evaluation import Bench, Prompt, evaluate
from harness.folder import RunFolder
from harness.gap import Recording, leads, shares
from harness.loggers import Logger
from harness.machine import machine
from reports.html import write_report
from reports.statistics import check_lossless, summarise
from reports.table import table
from spec_core.policy import Fixed, Policy

BASELINE, STATIC = "autoregressive", "best_static"


def compare(
    config: Any, bench: Bench, policies: dict[str, Policy], prompts: list[Prompt],
    folder: RunFolder, logger: Logger, learned: list[str], oracle: Recording | None = None,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, Any]:  # fmt: skip
    """Evaluate, check that nothing was lost, and write results.json and report.html.

    oracle: a recording of these prompts and a cost table, where there are such; tick is called
    after every run, and may end it all.
    """
    static_plan = _plan_of(policies.get(STATIC))
    lead = leads(bench, oracle, prompts, static_plan) if oracle and static_plan else None
    repeats = int(config.get("repeats", 1))
    runs = repeats * len(policies) * len(bench.turns(prompts))
    with tqdm(total=runs, desc="evaluating", file=sys.stderr, mininterval=1) as bar:

        def done() -> None:
            bar.update()
            tick()

        found = evaluate(bench, policies, prompts, repeats, config.seed, done)
    if not bench.decoder.verifier.sampled or bench.workload.temperature == 0:
        check_lossless(found["rows"])
    summary = summarise(found["rows"], BASELINE, STATIC, config.seed)
    settings = {
        "pair": bench.pair.name, "temperature": config.temperature,
        "batch_size": config.batch_size, "max_new_tokens": config.max_new_tokens,
        "seed": config.seed, "verifier": config.verifier.name, "prompts": len(prompts),
        "baseline": BASELINE, "static": STATIC, "learned": learned,
        "static_plan": static_plan,
    }  # fmt: skip
    results = {
        "settings": settings, "summary": summary, **found,
        "machine": machine(),
    }  # fmt: skip
    if lead:
        results["oracle"] = shares(lead, summary, STATIC)
    folder.write("results.json", results)
    write_report(results, folder.path / "report.html")
    Console(stderr=False, width=None).print(table(summary, results.get("oracle")))
    print(f"report: {folder.path / 'report.html'}")
    logger.finish(_numbers(summary), _comparison(summary), folder.path)
    folder.status("done")
    return summary


def _plan_of(policy: Policy | None) -> str | None:
    from spec_core.menu import plan_name

    return plan_name(policy.plan_) if isinstance(policy, Fixed) else None


def _numbers(summary: dict[str, Any]) -> dict[str, float]:
    """The headline numbers, flat."""
    return {
        f"eval/{name}/tokens_per_second": figures["tokens_per_second"]["value"]
        for name, figures in summary["policies"].items()
    }


def _comparison(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per policy for a logger's table."""
    return [
        {
            "policy": name,
            **{key: figures["tokens_per_second"][key] for key in ("value", "low", "high")},
        }
        for name, figures in summary["policies"].items()
    ]
