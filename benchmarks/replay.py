"""What replay costs: cycles per second, recording, the oracle, learning, bytes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import torch
from rich.progress import track

from benchmarks import prepare
from benchmarks.common import pick, quartiles, save
from envs.cost import Costs, price
from envs.live import SpecDecodeEnv
from envs.oracle import oracle
from envs.provenance import pair_key
from envs.recorder import Recorder
from envs.replay import ReplayVectorEnv
from envs.runs import run, run_fixed
from envs.shards import Meta
from envs.trace import Trace
from policies.learners import make_learner
from spec_core import AUTOREGRESSIVE, Fixed, Menu, Pair, SpeculativeDecoder, load_pair
from spec_core.menu import DEFAULT_MENU

MENUS = {  # by the widest plan; what is recorded besides the plain step
    "chains (width 1)": ("chain-2", "chain-4", "chain-8", "chain-12@0.1", "chain-20@0.05"),
    "trees of width 2": ("beam-4x2n8", "beam-8x2n12@0.08", "beam-8x2n16"),
    "trees of width 4": ("beam-4x4n12", "beam-6x4n16"),
    "default menu": tuple(name for name in DEFAULT_MENU.names if name != "ar"),
}
WITHIN = 0.99  # of the plateau


def interleaved(runs: dict[str, Callable[[], float]], repeats: int, said: str) -> dict[str, dict]:
    """Quartiles of what each run says; all of them take turns, one round is not counted."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in track(range(repeats + 1), said):
        for name, measure in runs.items():
            found[name].append(measure())
    return {name: quartiles(values[1:]) for name, values in found.items()}


def replaying(trace: Trace, costs: Costs, num_envs: int, plan: int, seconds: float) -> Any:
    """A run that says how many cycles per second so many environments make under one plan."""
    env = ReplayVectorEnv(trace, costs, num_envs)
    env.reset(seed=0)
    actions = np.full(num_envs, plan)

    def measure() -> float:
        start, cycles = perf_counter(), 0
        while perf_counter() - start < seconds:
            env.step(actions)
            cycles += num_envs
        return cycles / (perf_counter() - start)

    return measure


def living(pair: Pair, menu: Menu, new: int, plan: int, seconds: float) -> Any:
    """The same of the live environment, at batch 1; reading prompts counts, as it does there."""
    env = SpecDecodeEnv(pair=pair, prompts=pick("train", 2), menu=menu, max_new_tokens=new)
    env.reset(seed=0)

    def measure() -> float:
        start, cycles = perf_counter(), 0
        while perf_counter() - start < seconds:
            if env.step(plan)[2]:
                env.reset()
            cycles += 1
        return cycles / (perf_counter() - start)

    return measure


def speeds(trace: Trace, costs: Costs, pair: Pair, options: argparse.Namespace) -> dict[str, Any]:
    """Cycles per second, replayed and live, in the same run."""
    totals = [run_fixed(trace, costs, plan).speed for plan in range(len(trace.menu))]
    plan = int(np.argmax(totals))
    runs = {str(n): replaying(trace, costs, n, plan, options.window) for n in options.num_envs}
    runs["live"] = living(pair, trace.menu, trace.meta.max_new_tokens, plan, 2 * options.window)
    found = interleaved(runs, options.repeats, "cycles per second")
    live = found.pop("live")
    return {
        "plan": trace.menu.names[plan], "replay_cycles_per_second": found,
        "live_cycles_per_second": live,
        "ratio": {n: row["median"] / live["median"] for n, row in found.items()},
    }  # fmt: skip


def oracles(trace: Trace, costs: Costs, repeats: int) -> dict[str, Any]:
    """Milliseconds per position of pricing a recording and of its oracle."""

    def each(work: Callable[[], Any]) -> Callable[[], float]:
        def measure() -> float:
            start = perf_counter()
            work()
            return 1e3 * (perf_counter() - start) / len(trace)

        return measure

    seconds = price(trace, costs).seconds
    runs = {"pricing": lambda: price(trace, costs), "oracle": lambda: oracle(trace, seconds)}
    return interleaved({name: each(work) for name, work in runs.items()}, repeats, "oracle")


def recording(pair: Pair, prompts: list[dict], new: int, repeats: int) -> dict[str, Any]:
    """Seconds of recording over those of plain generation of the same texts."""
    reach = pair.drafter.max_context if pair.drafter else 0
    decoder, texts = SpeculativeDecoder(pair, Fixed(AUTOREGRESSIVE)), [p["prompt"] for p in prompts]

    def generate(batch: int) -> float:
        start = perf_counter()
        for i in range(0, len(texts), batch):
            decoder.generate(texts[i : i + batch], max_new_tokens=new, ignore_eos=True)
        return perf_counter() - start

    def record(names: tuple[str, ...]) -> float:
        meta = Meta(Menu.of(["ar", *names]), pair_key(), reach=reach, max_new_tokens=new)
        start = perf_counter()
        list(Recorder(pair, meta).record(prompts))
        return perf_counter() - start

    runs: dict[str, Callable[[], float]] = {
        "plain, one by one": lambda: generate(1), "plain, together": lambda: generate(len(texts)),
    }  # fmt: skip
    runs |= {name: lambda names=names: record(names) for name, names in MENUS.items()}
    found = interleaved(runs, repeats, "recording")
    one, many = (found[f"plain, {how}"]["median"] for how in ("one by one", "together"))
    ratios = {
        name: {"over_one_by_one": found[name]["median"] / one,
               "over_together": found[name]["median"] / many}
        for name in MENUS
    }  # fmt: skip
    return {"seconds": found, "texts": len(texts), "new_tokens": new, "ratios": ratios}


def learning(trace: Trace, costs: Costs, seconds: float, every: float) -> dict[str, Any]:
    """PPO's speed on the recording it learns from, by seconds of learning; probes not counted.

    The plateau is the best probe of the whole run, which is to be much longer than what it takes.
    """
    env = ReplayVectorEnv(trace, costs, 256)
    learner, curve = make_learner("ppo", env), list[dict[str, float]]()
    spent, clock = 0.0, perf_counter()

    def watch(progress: Any) -> bool:
        nonlocal spent, clock
        spent, clock = spent + perf_counter() - clock, perf_counter()
        if not curve or spent - curve[-1]["seconds"] >= every:
            policy = learner.policy()
            speed = run(trace, costs, policy.chooser.choose).speed
            curve.append({"seconds": spent, "steps": progress.steps, "tokens_per_second": speed})
            clock = perf_counter()
        return spent < seconds

    print(f"PPO learns for {seconds:g} s", file=sys.stderr)
    learner.learn(env, sys.maxsize, watch)
    plateau = max(point["tokens_per_second"] for point in curve)
    near = [p for p in curve if p["tokens_per_second"] >= WITHIN * plateau]
    return {
        "plateau": plateau, "seconds": near[0]["seconds"], "steps": near[0]["steps"],
        "share_of_later_probes_within": float(np.mean([
            p["tokens_per_second"] >= WITHIN * plateau
            for p in curve if p["seconds"] >= near[0]["seconds"]
        ])), "curve": curve,
    }  # fmt: skip


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay", description=__doc__)
    prepare.add_options(parser, train=21, test=7, minutes=0.7)
    add = parser.add_argument
    add("--num-envs", nargs="+", type=int, default=(64, 256, 1024, 4096), metavar="N")
    add("--repeats", type=int, default=5)
    add("--window", type=float, default=0.5, help="seconds of one speed measurement")
    add("--record-prompts", type=int, default=1, help="per domain, where recording is timed")
    add("--record-repeats", type=int, default=2)
    add("--record-tokens", type=int, default=64)
    add("--ppo-seconds", type=float, default=75.0, help="of learning, in all")
    add("--probe-every", type=float, default=2.0)
    return parser.parse_args(arguments)


def main() -> None:
    """Measure and write results/replay.json."""
    given = options()
    torch.set_num_threads(given.threads)
    train, test = prepare.traces(given)
    costs, pair = prepare.costs(given, [train, test], (1,)), load_pair()
    files = prepare.place(given, "train").glob("*.safetensors")
    content = {
        "settings": prepare.origin(train, test, costs),
        "bytes_per_position": sum(file.stat().st_size for file in files) / len(train),
        "speed": speeds(train, costs, pair, given),
        "oracle_ms": oracles(train, costs, given.repeats),
        "recording": recording(
            pair, pick("train", given.record_prompts), given.record_tokens, given.record_repeats
        ),
        "ppo": learning(train, costs, given.ppo_seconds, given.probe_every),
    }
    save("replay", content)


if __name__ == "__main__":
    prepare.told(main)
