"""What a step costs by context, batch and tree size, for target and draft; what a cycle adds."""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import torch

from benchmarks.common import RESULTS, pick, quartiles, save
from spec_core import AUTOREGRESSIVE, Fixed, Plan, SpeculativeDecoder, load_pair
from spec_core.drafters.lm import ModelDrafter
from spec_core.menu import read_name
from spec_core.models.base import Model, View
from spec_core.tensors import causal

CONTEXTS, BATCHES, NODES = (
    (16, 128, 256, 512, 768, 1023),
    (1, 2, 4, 8, 16, 32),
    (1, 2, 4, 8, 16, 32, 64),
)


def step(model: Model, context: int, batch: int, nodes: int):
    """A closure that runs one forward of `nodes` queries per row behind `context` tokens."""
    cache = model.new_cache(batch, context + nodes)
    tokens = torch.randint(0, model.vocab_size, (batch, nodes), device=model.device)
    slots = torch.arange(context, context + nodes, device=model.device).expand(batch, -1)
    full = nodes == 1
    view = View(slots[:, 0], causal(nodes, model.device), span=context + nodes, full=full)
    return lambda: model.forward(tokens, slots, slots, view, cache, keep=nodes)


def interleaved(runs: dict[str, object], repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each run: all of them in random order, again and again."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    shuffled = random.Random(0)
    for _ in range(repeats + 2):
        for name in shuffled.sample(list(runs), len(runs)):
            start = perf_counter()
            runs[name]()  # type: ignore[operator]
            times[name].append((perf_counter() - start) * 1e3)
    return {name: quartiles(values[2:]) for name, values in times.items()}


def curves(model: Model, repeats: int) -> dict:
    """The three curves of one model, in milliseconds."""
    return {
        "context": interleaved({str(c): step(model, c, 1, 1) for c in CONTEXTS}, repeats),
        "batch": interleaved({str(b): step(model, 128, b, 1) for b in BATCHES}, repeats),
        "nodes": interleaved({str(n): step(model, 128, 1, n) for n in NODES}, repeats),
    }


class _Clocked:
    """A model whose forwards' seconds are added up, whatever way they are asked for."""

    def __init__(self, model: Model) -> None:
        self.model, self.seconds = model, 0.0
        for name in ("forward", "straight", "feed", "chain", "chains", "beam", "branch"):
            if hasattr(model, name):
                setattr(self, name, self._clocked(getattr(model, name)))

    def __getattr__(self, name: str):
        return getattr(self.model, name)

    def _clocked(self, call: Callable):
        def run(*arguments, **named):
            start = perf_counter()
            out = call(*arguments, **named)
            self.seconds += perf_counter() - start
            return out

        return run


def outside(plan: Plan, prompts: list[dict]) -> dict[str, float]:
    """Milliseconds per cycle that are not spent in a model's forward, at batch 1."""
    pair = load_pair()
    assert isinstance(pair.drafter, ModelDrafter)
    pair.target, pair.drafter.model = _Clocked(pair.target), _Clocked(pair.drafter.model)
    clocks, values = (pair.target, pair.drafter.model), []
    decoder = SpeculativeDecoder(pair, Fixed(plan))
    for prompt in prompts:
        session = decoder.open([prompt["prompt"]], max_new_tokens=64)
        for clock in clocks:
            clock.seconds = 0.0
        stats = decoder.run(session)
        values.append((stats.seconds - sum(c.seconds for c in clocks)) / stats.cycles * 1e3)
    return quartiles(values)


def throughput(batches: tuple[int, ...], prompts: list[dict], repeats: int) -> dict:
    """Plain decoding, tokens per second by batch."""
    decoder = SpeculativeDecoder(load_pair(), Fixed(AUTOREGRESSIVE))
    found: dict[str, list[float]] = {str(b): [] for b in batches}
    for _ in range(repeats):
        for batch in batches:
            texts = [p["prompt"] for p in prompts[:batch]]
            stats = decoder.generate(texts, max_new_tokens=48, ignore_eos=True).stats
            found[str(batch)].append(stats.tokens_per_second)
    return {batch: quartiles(values) for batch, values in found.items()}


PEAK = """
import resource, subprocess, sys
command = [sys.executable, "-m", "spec_core", "def main():", "--max-new-tokens", "64"]
subprocess.run(command, check=True, capture_output=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""


def peak_megabytes() -> float:
    """Peak memory of `python -m spec_core`, from a small process: a fork counts its parent."""
    command = [sys.executable, "-c", PEAK]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def draw(content: dict, file: Path) -> None:
    """The curves as one picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.6))
    for axis, name in zip(axes, ("context", "batch", "nodes"), strict=True):
        for model in ("target", "draft"):
            points = content[model][name]
            x, middle = [int(k) for k in points], [p["median"] for p in points.values()]
            line = axis.plot(x, middle, marker="o", label=model)[0]
            low, high = [p["p10"] for p in points.values()], [p["p90"] for p in points.values()]
            axis.fill_between(x, low, high, alpha=0.2, color=line.get_color())
        axis.set_xlabel(name)
        axis.set_ylim(bottom=0)
    axes[0].set_ylabel("ms per step")
    axes[0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(file, dpi=110)


@torch.no_grad()
def main() -> None:
    """Measure and write results/curves.json and curves.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pair = load_pair()
    assert isinstance(pair.drafter, ModelDrafter)
    prompts = pick("test", 5)
    plans = {
        "chain of 6": Plan(6, budget=7), "chain-16@0.1": read_name("chain-16@0.1"),
        "beam 6 x 4 of 16": Plan(6, width=4, budget=16),
    }  # fmt: skip
    content = {
        "target": curves(pair.target, options.repeats),
        "draft": curves(pair.drafter.model, options.repeats),
        "outside_ms": {name: outside(plan, prompts[:7]) for name, plan in plans.items()},
        "throughput": throughput((1, 8, 32), prompts, 3),
        "peak_mb": peak_megabytes(),
    }
    save("curves", content)
    draw(json.loads((RESULTS / "curves.json").read_text()), RESULTS / "curves.png")


if __name__ == "__main__":
    main()
