"""Policies on prompts, interleaved and paired; does not know where policies come from."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from harness.decisions import decided, drawn
from spec_core.decoder import Generation, SpeculativeDecoder
from spec_core.pair import Pair
from spec_core.policy import Policy
from spec_core.prompts import spread
from spec_core.verifiers.base import Verifier

Row = dict[str, Any]
Prompt = dict[str, str]
WATCHED = 3  # prompts per domain whose decisions are shown


@dataclass(frozen=True)
class Workload:
    """What is generated: the same for every policy that is compared."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int = 128
    batch_size: int = 1
    seed: int = 0
    max_nodes: int = 64


class Bench:
    """A pair under a workload: runs one policy on one batch of prompts, with the real clock."""

    def __init__(self, pair: Pair, workload: Workload, verifier: Verifier | None = None) -> None:
        self.pair, self.workload = pair, workload
        self.decoder = SpeculativeDecoder(pair, None, verifier, workload.max_nodes)

    def run(self, policy: Policy, prompts: list[Prompt], **watching: Any) -> Generation:
        """Generate for prompts that are decoded together."""
        work, self.decoder.policy = self.workload, policy
        return self.decoder.generate(
            [p["prompt"] for p in prompts], ids=[p["id"] for p in prompts], seed=work.seed,
            max_new_tokens=work.max_new_tokens, temperature=work.temperature,
            top_k=work.top_k, top_p=work.top_p, **watching,
        )  # fmt: skip

    @property
    def recorded_as(self) -> dict[str, Any]:
        """What a recording's description must say for its drafts to be like the ones here."""
        work, verifier = self.workload, self.decoder.verifier
        if work.temperature == 0:
            return {"temperature": work.temperature}
        if verifier.sampled:
            raise ValueError("recordings are of the coupled verifier: take verifier=coupled")
        sampling = {name: getattr(work, name) for name in ("temperature", "top_k", "top_p")}
        return {**sampling, "coupled": getattr(verifier, "coupled", True)}

    def batches(self, prompts: list[Prompt]) -> list[list[Prompt]]:
        """The prompts in groups that are decoded together; a last group may be smaller."""
        size = self.workload.batch_size
        return [prompts[i : i + size] for i in range(0, len(prompts), size)]


def rows_of(name: str, prompts: list[Prompt], made: Generation, repeat: int) -> list[Row]:
    """One row per prompt; the seconds of a batch are shared out evenly."""
    stats, count = made.stats, len(prompts)
    phases = {phase: seconds / count for phase, seconds in asdict(stats.phases).items()}
    return [
        {
            "policy": name, "prompt_id": prompt["id"], "domain": prompt["domain"],
            "repeat": repeat, "new_tokens": len(tokens), "seconds": stats.seconds / count,
            "cycles": stats.cycles / count, "drafted": stats.drafted / count,
            "accepted": stats.accepted / count, "phases": phases, "output_tokens": tokens,
        }
        for prompt, tokens in zip(prompts, made.tokens, strict=True)
    ]  # fmt: skip


def interleaved(
    bench: Bench, policies: dict[str, Policy], prompts: list[Prompt], repeats: int, seed: int
) -> Iterator[tuple[str, list[Prompt], Generation, int]]:
    """Every policy on every batch of prompts, policies in random order at each."""
    chance, names = random.Random(seed), list(policies)
    for repeat in range(repeats):
        for batch in bench.batches(prompts):
            for name in chance.sample(names, len(names)):
                yield name, batch, bench.run(policies[name], batch), repeat


def evaluate(
    bench: Bench, policies: dict[str, Policy], prompts: list[Prompt], repeats: int = 1,
    seed: int = 0, tick: Callable[[], None] = lambda: None,
) -> dict[str, Any]:  # fmt: skip
    """Rows of every policy and prompt, what learned policies chose, and some drawn trees."""
    if not prompts:
        raise ValueError("there are no prompts to evaluate on")
    for policy in policies.values():  # caches and lazy imports are not the first prompt's
        bench.run(policy, bench.batches(prompts)[0])
    rows: list[Row] = []
    for name, batch, made, repeat in interleaved(bench, policies, prompts, repeats, seed):
        rows += rows_of(name, batch, made, repeat)
        tick()
    decisions = decided(bench, policies, spread(prompts, WATCHED))
    trees = [drawn(bench, name, policy, prompts[0]) for name, policy in policies.items()]
    return {"rows": rows, "decisions": decisions, "trees": [tree for tree in trees if tree]}


def speed(rows: list[Row]) -> float:
    """Tokens per second: the ratio of sums."""
    return float(sum(r["new_tokens"] for r in rows) / np.sum([r["seconds"] for r in rows]))
