"""Where drafting stops paying: plans and learned policies at several loads, priced and live.

A load is the number of texts decoded together. Priced: recorded test texts at a cost table, batches
kept full. Live: real batches kept full, policies interleaved.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from benchmarks import prepare, tables
from benchmarks.common import RESULTS, save
from benchmarks.kept import live
from envs.cost import Costs
from envs.replay import ReplayVectorEnv
from envs.trace import Trace
from policies.learners import make_learner
from spec_core import AUTOREGRESSIVE, Fixed, load_pair, load_policy
from spec_core.learned import MenuPolicy

LOADS = (1, 4, 16, 64)
LEARNERS = ("full_information", "table", "ppo", "linucb")
BATCHES = 256  # that learn at once; of all loads alike
TEXTS = 256  # at once where plans are compared; a multiple of every load
AR, STATIC, HINDSIGHT = "autoregressive", "best static", "best static in hindsight"
Choose = Callable[[NDArray], NDArray]  # features [B, F] to places in the menu [B]


def learned(name: str, env: Any, seconds: float) -> MenuPolicy:
    """What a learner has become after so many seconds in an environment of all loads at once."""
    learner: Any = make_learner(name, env)
    start = monotonic()
    learner.learn(env, sys.maxsize, lambda progress: monotonic() - start < seconds)
    return learner.policy()


def replayed(
    trace: Trace, costs: Costs, load: int, choose: Choose, cycles: int, free: bool = False,
    together: bool = True,
) -> dict[str, float]:  # fmt: skip
    """Tokens per second of full batches, and the share of cycles that did not draft.

    free: the policy reads nothing of the past, so deciding costs next to nothing.
    """
    batches = max(TEXTS // load, 1)
    env = ReplayVectorEnv(trace, costs, batches if together else batches * load, loads=(load,),
                          learned=not free, together=together)  # fmt: skip
    features, _ = env.reset(seed=0)
    plain = trace.menu.plans.index(AUTOREGRESSIVE)
    tokens, seconds, silent = 0.0, 0.0, []
    for _ in range(cycles):
        plans = choose(features)
        features, _, _, _, info = env.step(plans)
        tokens, seconds = tokens + info["tokens"].sum(), seconds + info["seconds"].sum()
        silent.append((plans == plain).mean())
    return {
        "tokens_per_second": float(tokens / seconds),
        "autoregressive_share": float(np.mean(silent)),
    }


def always(plan: int) -> Choose:
    """The same plan for everybody."""
    return lambda features: np.full(len(features), plan)


def policies(
    names: list[str], trace: Trace, costs: Costs, loads: tuple[int, ...], seconds: float
) -> dict[str, MenuPolicy]:
    """Learners that decide by batch, and the first one again by text."""
    made = dict[str, MenuPolicy]()
    for name in track(names, f"learning, {seconds:g} s each"):
        env = ReplayVectorEnv(trace, costs, BATCHES, loads=loads, together=True)
        made[name] = learned(name, env, seconds)
    rounds = max(1, BATCHES // sum(loads))
    env = ReplayVectorEnv(trace, costs, rounds * sum(loads), loads=loads)
    made[f"{names[0]}, each text for itself"] = learned(names[0], env, seconds)
    return made


def statics(trace: Trace, costs: Costs, load: int, cycles: int) -> dict[str, float]:
    """Tokens per second of every plan of the menu."""
    plans = range(len(trace.menu))
    made = (replayed(trace, costs, load, always(plan), cycles, free=True) for plan in plans)
    speeds = [figures["tokens_per_second"] for figures in made]
    return dict(zip(trace.menu.names, speeds, strict=True))


def priced(
    test: Trace, costs: Costs, best: dict[int, str], made: dict[str, MenuPolicy], cycles: int
) -> dict[str, Any]:  # fmt: skip
    """Every load: the plans, the best static ones, and the learned policies, all on test."""
    found = {}
    for load, plan in track(best.items(), "pricing"):
        every = statics(test, costs, load, cycles)
        fixed = {AR: "ar", STATIC: plan, HINDSIGHT: max(every, key=lambda name: every[name])}
        rows = {
            name: {"tokens_per_second": every[plan], "autoregressive_share": float(plan == "ar")}
            for name, plan in fixed.items()
        }
        for name, policy in made.items():
            how = {"free": not policy.lagged, "together": policy.together}
            rows[name] = replayed(test, costs, load, policy.chooser.choose, cycles, **how)
        found[str(load)] = {"static_plan": plan, "policies": rows, "plans": every}
    return found


def exported(policy: MenuPolicy) -> Any:
    """The policy as it comes back from disk."""
    with TemporaryDirectory() as folder:
        policy.save(Path(folder))
        return load_policy(Path(folder))


def draw(content: dict, file: Any) -> None:
    """Speed over the autoregressive plan, and how seldom policies draft, by load."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.6))
    loads, rows = [int(load) for load in content["replay"]], list(content["replay"].values())
    for plan in rows[0]["plans"]:
        axes[0].plot(loads, [r["plans"][plan] / r["plans"]["ar"] for r in rows], color="#dddddd")
    for name in rows[0]["policies"]:
        mine = [row["policies"][name] for row in rows]
        plain = [row["policies"][AR]["tokens_per_second"] for row in rows]
        over = [m["tokens_per_second"] / p for m, p in zip(mine, plain, strict=True)]
        line = axes[0].plot(loads, over, marker="o", label=name)[0]
        shares = [100 * m["autoregressive_share"] for m in mine]
        axes[1].plot(loads, shares, marker="o", color=line.get_color())
        for load, found in content["live"].items():
            if name in found:
                ratio = found[name]["median"] / found[AR]["median"]
                axes[0].plot(int(load), ratio, marker="x", ms=9, color=line.get_color())
    for axis, label in zip(
        axes, ("speed / autoregressive", "cycles without a draft, %"), strict=True
    ):
        axis.set_xscale("log", base=2)
        axis.set_xticks(loads, [str(load) for load in loads])
        axis.set_xlabel("texts decoded together (x: live)" if axis is axes[0] else "texts")
        axis.set_ylabel(label)
    axes[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loads", description=__doc__)
    prepare.add_options(parser, train=21, test=7, minutes=2.5)
    add = parser.add_argument
    add("--loads", nargs="+", type=int, default=LOADS, metavar="B")
    add("--policies", nargs="+", default=LEARNERS, metavar="NAME", help="learners on replay")
    add("--seconds", type=float, default=20.0, help="of learning, each")
    add("--cycles", type=int, default=200, help=f"per figure, of {TEXTS} texts at once")
    add("--live", nargs="*", type=int, default=(16, 64), metavar="B",
        help="loads of the live check, of the first two policies")  # fmt: skip
    add("--repeats", type=int, default=3, help="of the live check")
    add("--new-tokens", type=int, default=128, help="of the live check")
    add("--name", default="loads", help="of the files of results")
    given = parser.parse_args(arguments)
    if not set(given.live) <= set(given.loads):
        raise ValueError("--live loads must be among --loads")
    return given


def main() -> None:
    """Measure, write results/loads.json and loads.png (or so named), and say what was found."""
    given = options()
    torch.set_num_threads(given.threads)
    loads: tuple[int, ...] = tuple(sorted(set(given.loads)))
    train, test = prepare.traces(given)
    if given.live and train.meta.temperature > 0:
        raise ValueError("the live check decodes greedily: give --live without loads")
    costs = prepare.costs(given, [train, test], loads)
    speeds = {load: statics(train, costs, load, given.cycles) for load in track(loads, "plans")}
    best = {load: max(found, key=lambda name: found[name]) for load, found in speeds.items()}
    made = policies(given.policies, train, costs, loads, given.seconds)
    found = priced(test, costs, best, made, given.cycles)
    compared = {}
    for load in given.live:
        plan = train.menu.plans[train.menu.names.index(best[load])]
        fixed = {AR: Fixed(AUTOREGRESSIVE), STATIC: Fixed(plan)}
        compared[load] = fixed | {name: exported(made[name]) for name in given.policies[:2]}
    settings = prepare.origin(train, test, costs)
    settings |= {"seconds_of_learning": given.seconds, "new_tokens": given.new_tokens}
    content = {"settings": settings, "replay": found}
    content["live"] = live(load_pair(), compared, given.repeats, given.new_tokens)
    save(given.name, content)
    draw(content, RESULTS / f"{given.name}.png")
    print(tables.load(given.name))


if __name__ == "__main__":
    prepare.told(main)
