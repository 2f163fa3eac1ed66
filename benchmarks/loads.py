"""Where drafting stops paying: plans and learned policies at several loads, priced and live.

A load is the number of texts decoded together. Priced: recorded test texts at a cost table, batches
kept full. Live: real batches kept full, policies interleaved.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from time import monotonic
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from benchmarks import prepare
from benchmarks.common import RESULTS, save
from benchmarks.kept import live
from benchmarks.together import BatchEnv, Together
from envs.cost import Costs
from envs.replay import ReplayVectorEnv
from envs.trace import Trace
from policies.learners import make_learner
from spec_core import AUTOREGRESSIVE, Fixed, load_pair
from spec_core.learned import MenuPolicy

LOADS = (1, 4, 16, 64)
LEARNERS = ("full_information", "linucb", "ppo")
ENVS = 256  # texts at once where plans are compared; a multiple of every load
AR, STATIC = "autoregressive", "best static"
Choose = Callable[[NDArray, int], NDArray]  # features [B, F], the load -> places in the menu [B]


def learned(name: str, env: Any, seconds: float) -> MenuPolicy:
    """What a learner has become after so many seconds in an environment of all loads at once."""
    learner: Any = make_learner(name, env)
    start = monotonic()
    learner.learn(env, sys.maxsize, lambda progress: monotonic() - start < seconds)
    return learner.policy()


def replayed(
    trace: Trace, costs: Costs, load: int, choose: Choose, free: bool, cycles: int
) -> dict[str, float]:  # fmt: skip
    """Tokens per second of full batches, and the share of cycles that did not draft.

    free: the policy reads nothing, so deciding costs nothing.
    """
    env = ReplayVectorEnv(trace, costs, max(ENVS // load, 1) * load, loads=(load,),
                          learned=not free)  # fmt: skip
    features, _ = env.reset(seed=0)
    plain = trace.menu.plans.index(AUTOREGRESSIVE)
    tokens, seconds, silent = 0.0, 0.0, []
    for _ in range(cycles):
        plans = choose(features, load)
        features, _, _, _, info = env.step(plans)
        tokens, seconds = tokens + info["tokens"].sum(), seconds + info["seconds"].sum()
        silent.append((plans == plain).mean())
    return {
        "tokens_per_second": float(tokens / seconds),
        "autoregressive_share": float(np.mean(silent)),
    }


def always(plan: int) -> Choose:
    """The same plan for everybody."""
    return lambda features, load: np.full(len(features), plan)


def policies(
    names: list[str], trace: Trace, costs: Costs, worth: dict[int, float], seconds: float
) -> tuple[dict[str, MenuPolicy], dict[str, Choose]]:  # fmt: skip
    """Learners that decide by batch, and the first one again by text: to decode, and to price."""
    loads = tuple(worth)
    made, chooses = dict[str, MenuPolicy](), dict[str, Choose]()
    for name in track(names, f"learning, {seconds:g} s each"):
        rounds = max(1, 256 // sum(loads))
        found = learned(name, BatchEnv(trace, costs, worth, rounds), seconds)
        together = Together(found.chooser)
        made[name], chooses[name] = MenuPolicy(found.menu, together), together.choose
    env = ReplayVectorEnv(trace, costs, rounds * sum(loads), loads=loads)
    alone = f"{names[0]}, each text for itself"
    made[alone] = learned(names[0], env, seconds)
    chooses[alone] = lambda features, load: made[alone].chooser.choose(features)
    return made, chooses


def statics(trace: Trace, costs: Costs, load: int, cycles: int) -> dict[str, float]:
    """Tokens per second of every plan of the menu."""
    made = (replayed(trace, costs, load, always(i), True, cycles) for i in range(len(trace.menu)))
    speeds = [figures["tokens_per_second"] for figures in made]
    return dict(zip(trace.menu.names, speeds, strict=True))


def priced(
    test: Trace, costs: Costs, best: dict[int, str], choosers: dict[str, Choose], cycles: int
) -> dict[str, Any]:  # fmt: skip
    """Every load: the plans, the best static one, and the learned policies, all on test."""
    found = {}
    for load, plan in track(best.items(), "pricing"):
        plans = test.menu.names
        here = {AR: (always(plans.index("ar")), True), STATIC: (always(plans.index(plan)), True)}
        here |= {name: (choose, False) for name, choose in choosers.items()}
        rows = {name: replayed(test, costs, load, *how, cycles) for name, how in here.items()}
        every = statics(test, costs, load, cycles)
        found[str(load)] = {"static_plan": plan, "policies": rows, "plans": every}
    return found


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
    add("--cycles", type=int, default=200, help=f"per figure, of {ENVS} texts at once")
    add("--live", nargs="*", type=int, default=(1, 16), metavar="B", help="loads of the live check")
    add("--repeats", type=int, default=3, help="of the live check")
    add("--new-tokens", type=int, default=64, help="of the live check")
    given = parser.parse_args(arguments)
    if not set(given.live) <= set(given.loads):
        raise ValueError("--live loads must be among --loads")
    return given


def main() -> None:
    """Measure and write results/loads.json and loads.png."""
    given = options()
    torch.set_num_threads(given.threads)
    loads: tuple[int, ...] = tuple(sorted(set(given.loads)))
    train, test = prepare.traces(given)
    costs = prepare.costs(given, [train, test], loads)
    speeds = {load: statics(train, costs, load, given.cycles) for load in track(loads, "plans")}
    best = {load: max(found, key=lambda name: found[name]) for load, found in speeds.items()}
    worth = {load: speeds[load][plan] for load, plan in best.items()}
    made, chooses = policies(given.policies, train, costs, worth, given.seconds)
    found = priced(test, costs, best, chooses, given.cycles)
    compared = {}
    for load in given.live:
        plan = train.menu.plans[train.menu.names.index(best[load])]
        fixed = {AR: Fixed(AUTOREGRESSIVE), STATIC: Fixed(plan)}
        compared[load] = {**fixed, given.policies[0]: made[given.policies[0]]}
    settings = prepare.origin(train, test, costs)
    settings |= {"seconds_of_learning": given.seconds, "new_tokens": given.new_tokens}
    content = {"settings": settings, "replay": found}
    content["live"] = live(load_pair(), compared, given.repeats, given.new_tokens)
    save("loads", content)
    draw(content, RESULTS / "loads.png")


if __name__ == "__main__":
    prepare.told(main)
