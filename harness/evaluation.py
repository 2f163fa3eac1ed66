"""Policies on prompts, interleaved and paired; does not know where policies come from."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from harness.decisions import decided, drawn
from harness.full import kept_full
from spec_core.clock import Seconds
from spec_core.decoder import Generation, SpeculativeDecoder, request_seed
from spec_core.pair import Pair
from spec_core.policy import Policy
from spec_core.prompts import spread
from spec_core.sequence import Sequence
from spec_core.session import Outcome
from spec_core.verifiers.base import Verifier

Row = dict[str, Any]
Prompt = dict[str, str]
WATCHED = 3  # prompts per domain whose decisions are shown
TURN = 4  # batches: the texts that only keep the last one full are few beside them


@dataclass(frozen=True)
class Workload:
    """What is generated: the same for every policy that is compared."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int = 128
    batch_size: int = 1  # texts decoded together
    seed: int = 0
    max_nodes: int = 64


class Bench:
    """A pair under a workload: runs one policy on one batch of prompts, with the real clock."""

    def __init__(self, pair: Pair, workload: Workload, verifier: Verifier | None = None) -> None:
        self.pair, self.workload = pair, workload
        self.decoder = SpeculativeDecoder(pair, None, verifier, workload.max_nodes)

    def run(self, policy: Policy, prompts: list[Prompt], **watching: Any) -> Generation:
        """Generate for prompts that are decoded together, to the end of each."""
        self.decoder.policy = policy
        return self.decoder.generate(**self._opening(prompts), **watching)

    def measure(self, policy: Policy, prompts: list[Prompt]) -> list[Row]:
        """A row per prompt, decoded in a batch that is kept full until all of them have ended.

        Behind the last they come again, uncounted. A cycle's seconds are shared evenly.
        """
        coming, rows = itertools.cycle(prompts), [_row(prompt) for prompt in prompts]
        first = list(itertools.islice(coming, self.workload.batch_size))
        room = max(self._text(prompt).limit for prompt in prompts)
        session = self.decoder.open(**self._opening(first), room=room)
        texts = session.sequences  # of the prompts first
        for outcome, seconds in kept_full(session, policy, lambda: self._text(next(coming))):
            for place, request in enumerate(outcome.rows):
                if request < len(rows):
                    _count(rows[request], outcome, place, seconds)
            if len(texts) >= len(rows) and all(text.ending for text in texts[: len(rows)]):
                break
        return rows

    def _opening(self, prompts: list[Prompt]) -> dict[str, Any]:
        """What a session on these prompts is opened with."""
        work = asdict(self.workload)
        names = ("seed", "max_new_tokens", "temperature", "top_k", "top_p")
        return {"prompts": [p["prompt"] for p in prompts], "ids": [p["id"] for p in prompts],
                **{name: work[name] for name in names}}  # fmt: skip

    def _text(self, prompt: Prompt) -> Sequence:
        """A prompt as it joins a session."""
        work = self.workload
        seed = request_seed(work.seed, prompt["id"])
        return self.decoder.sequence(prompt["prompt"], work.max_new_tokens, seed)

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

    def batches(self, prompts: list[Prompt], times: int = 1) -> list[list[Prompt]]:
        """The prompts by so many batches at a time; the last of them may be fewer."""
        size = self.workload.batch_size * times
        return [prompts[i : i + size] for i in range(0, len(prompts), size)]

    def turns(self, prompts: list[Prompt]) -> list[list[Prompt]]:
        """The prompts that a policy decodes before it is the next one's turn."""
        return self.batches(prompts, TURN if self.workload.batch_size > 1 else 1)


def _row(prompt: Prompt) -> Row:
    """What is counted of a prompt, before it is decoded."""
    return {
        "prompt_id": prompt["id"], "domain": prompt["domain"], "new_tokens": 0, "seconds": 0.0,
        "cycles": 0, "drafted": 0, "accepted": 0, "phases": asdict(Seconds()), "output_tokens": [],
    }  # fmt: skip


def _count(row: Row, outcome: Outcome, place: int, seconds: float) -> None:
    """Enter a cycle of which a prompt was a part."""
    batch = len(outcome.rows)
    row["output_tokens"] += outcome.tokens[place]
    row["new_tokens"] = len(row["output_tokens"])
    row["seconds"] += seconds / batch
    row["cycles"] += 1
    row["drafted"] += outcome.drafted[place]
    row["accepted"] += outcome.accepted[place]
    for phase, spent in asdict(outcome.seconds).items():
        row["phases"][phase] += spent / batch


def interleaved(
    bench: Bench, policies: dict[str, Policy], prompts: list[Prompt], repeats: int, seed: int
) -> Iterator[list[Row]]:
    """The rows of every policy on all prompts, policies in random order at each turn."""
    chance, names = random.Random(seed), list(policies)
    block = {p["id"]: i // bench.workload.batch_size for i, p in enumerate(prompts)}
    for repeat in range(repeats):
        for turn in bench.turns(prompts):
            for name in chance.sample(names, len(names)):
                rows = bench.measure(policies[name], turn)
                own = {"policy": name, "repeat": repeat}
                yield [{**own, "block": block[row["prompt_id"]], **row} for row in rows]


def evaluate(
    bench: Bench, policies: dict[str, Policy], prompts: list[Prompt], repeats: int = 1,
    seed: int = 0, tick: Callable[[], None] = lambda: None,
) -> dict[str, Any]:  # fmt: skip
    """Rows of every policy and prompt, what learned policies chose, and some drawn trees."""
    if not prompts:
        raise ValueError("there are no prompts to evaluate on")
    for policy in policies.values():  # caches and lazy imports are not the first prompt's
        bench.measure(policy, bench.batches(prompts)[0])
    rows: list[Row] = []
    for found in interleaved(bench, policies, prompts, repeats, seed):
        rows += found
        tick()
    decisions = decided(bench, policies, spread(prompts, WATCHED))
    trees = [drawn(bench, name, policy, prompts[0]) for name, policy in policies.items()]
    return {"rows": rows, "decisions": decisions, "trees": [tree for tree in trees if tree]}


def speed(rows: list[Row]) -> float:
    """Tokens per second: the ratio of sums."""
    return float(sum(r["new_tokens"] for r in rows) / np.sum([r["seconds"] for r in rows]))
