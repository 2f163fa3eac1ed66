"""What recordings and prices promise of policies, against what is seen live in the same minutes.

A machine's pace drifts, so prices and policies are measured by turns: at every prompt each cell of
the cost table has a round, and each policy decodes the prompt. Prices are means here, as the clock
sums up all that happens: a median knows nothing of the moments when the machine is slow.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from benchmarks import prepare
from benchmarks.common import pick, save
from envs.calibrate import CONTEXTS, cells_of, shapes_of, sizes_for, table
from envs.cost import Costs
from envs.provenance import pair_key
from envs.rounds import Rounds
from envs.runs import run_fixed, run_policy
from envs.trace import Trace
from harness.evaluation import Bench, Workload
from spec_core import Fixed, Menu, Pair, load_pair, load_policy
from spec_core.clock import now
from spec_core.menu import plan_name, read_name
from spec_core.policy import Policy

BASELINE, STATIC = "autoregressive", "static"


def candidates(static: str, folders: list[Path]) -> dict[str, Policy]:
    """Plain decoding, a static plan and exported policies, by name."""
    fixed: dict[str, Policy] = {name: Fixed(read_name(plan)) for name, plan in
                                ((BASELINE, "ar"), (STATIC, static))}  # fmt: skip
    return fixed | {folder.name: load_policy(folder / "policy") for folder in folders}


def promised(trace: Trace, costs: Costs, policy: Any) -> float:
    """Tokens per second by the prices."""
    if isinstance(policy, Fixed):
        menu = Menu.of(dict.fromkeys(["ar", plan_name(policy.plan_)]))
        place = menu.names.index(plan_name(policy.plan_))
        return run_fixed(trace.with_menu(menu), costs, place).speed
    return run_policy(trace, costs, policy).speed


def ranks(values: list[float]) -> np.ndarray:
    """Places in rising order."""
    return np.argsort(np.argsort(values))


def by_turns(
    pair: Pair, trace: Trace, policies: dict[str, Policy], prompts: list[dict], repeats: int
) -> tuple[dict[str, float], Costs]:
    """Every policy's tokens per second at the prompts, and the prices of these minutes."""
    meta = trace.meta
    sizes = sizes_for(trace.menu, pair.target.max_context, [1])
    sizes["contexts"] = [c for c in CONTEXTS if c < trace.lengths.max()] + [
        next(c for c in (*CONTEXTS, pair.target.max_context) if c >= trace.lengths.max())
    ]
    shapes = shapes_of(trace.menu)
    cells = cells_of(pair, 1, sizes, shapes, meta.temperature)
    rounds = Rounds(cells, lambda *said: None, now(), 0.0)
    rounds.warm_up()
    work = Workload(meta.temperature, meta.top_k, meta.top_p, meta.max_new_tokens, seed=meta.seed)
    bench, chance, sums = Bench(pair, work), random.Random(0), {n: np.zeros(2) for n in policies}
    for policy in policies.values():
        bench.run(policy, prompts[:1])
    for prompt in track(prompts * repeats, f"T = {meta.temperature:g}"):
        rounds.once()
        for name in chance.sample(list(policies), len(policies)):
            stats = bench.run(policies[name], [prompt]).stats
            sums[name] += (stats.new_tokens, stats.seconds)
    return {n: float(t / s) for n, (t, s) in sums.items()}, table(
        rounds.found, sizes, {}, pair, np.mean
    )


def compared(live: dict[str, float], predicted: dict[str, float]) -> dict[str, Any]:
    """How far off the prices are."""
    rows = {name: {"live": live[name], "predicted": predicted[name]} for name in live}
    absolute = [abs(row["predicted"] / row["live"] - 1) for row in rows.values()]
    base = rows[STATIC]
    relative = [
        abs((row["predicted"] / base["predicted"]) / (row["live"] / base["live"]) - 1)
        for name, row in rows.items() if name != STATIC
    ]  # fmt: skip
    one, other = (ranks(list(speeds.values())) for speeds in (live, predicted))
    return {
        "policies": rows, "rank": float(np.corrcoef(one, other)[0, 1]),
        "absolute": {"median": float(np.median(absolute)), "most": max(absolute)},
        "relative": {"median": float(np.median(relative)), "most": max(relative)},
    }  # fmt: skip


def options() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.predicted", description=__doc__)
    add = parser.add_argument
    add("--run", nargs="+", action="append", required=True, metavar="WORD", dest="runs",
        help="recorded test prompts, static plan, run folders; once or more")  # fmt: skip
    add("--per-domain", type=int, default=3, metavar="N", help="prompts; default 3")
    add("--repeats", type=int, default=1, metavar="N")
    add("--threads", type=int, default=1)
    return parser.parse_args()


def measured(
    pair: Pair, words: list[str], per_domain: int, repeats: int
) -> tuple[str, dict[str, Any]]:
    """One recording with its policies; the name of the row and what was found."""
    where, static, *folders = words
    whole = Trace.read(Path(where), pair=pair_key())
    prompts = pick("test", per_domain)
    taken = {prompt["id"] for prompt in prompts}
    trace = whole.part([i for i, text in enumerate(whole.texts) if text.id in taken])
    if len(trace.texts) < len(taken):
        raise ValueError(f"{where} lacks some of the first {per_domain} prompts of every domain")
    policies = candidates(static, list(map(Path, folders)))
    live, costs = by_turns(pair, trace, policies, prompts, repeats)
    predicted = {name: promised(trace, costs, policy) for name, policy in policies.items()}
    name = f"T = {whole.meta.temperature:g}, {len(prompts)} prompts, {static}"
    return name, {**compared(live, predicted), "static_plan": static}


def main() -> None:
    """Write results/predicted.json."""
    given = options()
    torch.set_num_threads(given.threads)
    pair = load_pair()
    found = [measured(pair, words, given.per_domain, given.repeats) for words in given.runs]
    save("predicted", {"runs": dict(found)})


if __name__ == "__main__":
    prepare.told(main)
