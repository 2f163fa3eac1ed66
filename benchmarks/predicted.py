"""What a recording and a cost table promise of policies, against what was seen live."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import save
from envs.cost import Costs
from envs.runs import run_fixed, run_policy
from envs.trace import Trace
from harness.recordings import pair_of
from spec_core import Fixed, Menu, load_policy
from spec_core.learned import Chosen
from spec_core.menu import plan_name, read_name

BASELINE, STATIC = "autoregressive", "best_static"


def candidates(config: Any, static: str) -> dict[str, Any]:
    """The run's policies that can be replayed, by their names in its results."""
    found: dict[str, Any] = {BASELINE: Fixed(read_name("ar")), STATIC: Fixed(read_name(static))}
    for item in config.policies:
        for path in (Path(item) / "policy", Path(item)):
            if (path / "policy.json").is_file():
                found[Path(item).name] = load_policy(path)
                break
    return {name: p for name, p in found.items() if isinstance(p, Chosen | Fixed)}


def promised(trace: Trace, costs: Costs, policy: Any) -> float:
    """Tokens per second by the prices."""
    if isinstance(policy, Fixed):
        menu = Menu.of(dict.fromkeys(["ar", plan_name(policy.plan_)]))
        served = trace.with_menu(menu)
        totals = run_fixed(served, costs, menu.names.index(plan_name(policy.plan_)))
    else:
        totals = run_policy(trace, costs, policy)
    return float(totals.tokens.sum() / totals.seconds.sum())


def ranks(values: list[float]) -> np.ndarray:
    """Places in rising order."""
    return np.argsort(np.argsort(values))


def compared(run: Path) -> dict[str, Any]:
    """One run of evaluate.py, by batch 1."""
    from omegaconf import OmegaConf

    config: Any = OmegaConf.load(run / "config.yaml")
    results = json.loads((run / "results.json").read_text())
    whole = Trace.read(Path(config.traces), pair=pair_of(config))
    costs = Costs.read(Path(config.cost))
    evaluated = {row["prompt_id"] for row in results["rows"]}
    trace = whole.part([i for i, text in enumerate(whole.texts) if text.id in evaluated])
    figures = results["summary"]["policies"]
    live = {name: f["tokens_per_second"]["value"] for name, f in figures.items()}
    policies = candidates(config, results["settings"]["static_plan"])
    found = {name: promised(trace, costs, p) for name, p in policies.items() if name in live}
    rows = {name: {"live": live[name], "predicted": speed} for name, speed in found.items()}
    absolute = [abs(r["predicted"] / r["live"] - 1) for r in rows.values()]
    base = rows[STATIC]
    relative = [
        abs((r["predicted"] / base["predicted"]) / (r["live"] / base["live"]) - 1)
        for name, r in rows.items() if name != STATIC
    ]  # fmt: skip
    one, other = (ranks([r[key] for r in rows.values()]) for key in ("live", "predicted"))
    return {
        "policies": rows, "rank": float(np.corrcoef(one, other)[0, 1]),
        "absolute": {"median": float(np.median(absolute)), "most": max(absolute)},
        "relative": {"median": float(np.median(relative)), "most": max(relative)},
    }  # fmt: skip


def main() -> None:
    """Write results/predicted.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders of evaluate.py with traces")
    options = parser.parse_args()
    found = {}
    for run in options.runs:
        settings = json.loads((run / "results.json").read_text())["settings"]
        name = f"T = {settings['temperature']:g}, {settings['prompts']} prompts"
        found[name] = compared(run)
    save("predicted", {"runs": found})


if __name__ == "__main__":
    main()
