"""Live batches that are kept full, policies interleaved; knows no prices."""

from __future__ import annotations

import random
from itertools import count
from typing import Any

import numpy as np
from rich.progress import track

from benchmarks.common import quartiles
from harness.full import kept_full
from spec_core import Pair, SpeculativeDecoder, embedded
from spec_core.decoder import request_seed
from spec_core.plan import Plan
from spec_core.policy import Policy
from spec_core.sequence import Sequence


class Kept:
    """A live batch that is kept full: where a text ends the next one begins."""

    def __init__(self, pair: Pair, load: int, texts: int, new: int) -> None:
        prompts = embedded.prompts("test")
        random.Random(0).shuffle(prompts)
        self.prompts = [prompts[i % len(prompts)]["prompt"] for i in range(texts)]
        self.pair, self.load, self.new = pair, load, new

    def run(self, policy: Policy) -> dict[str, float]:
        """Decode until the first text would find no successor."""
        decoder, new, numbers = SpeculativeDecoder(self.pair, policy), self.new, count(self.load)
        longest = max(len(self.pair.encode(prompt)) for prompt in self.prompts) + new

        def fresh() -> Sequence:
            number = next(numbers)
            seed = request_seed(0, number)
            return decoder.sequence(self.prompts[number], new, seed, ignore_eos=True)

        session = decoder.open(self.prompts[: self.load], new, ignore_eos=True, room=longest)
        tokens, seconds, plans = 0, 0.0, list[Plan]()
        for outcome, spent in kept_full(session, policy, fresh):
            tokens, seconds = tokens + sum(map(len, outcome.tokens)), seconds + spent
            plans += outcome.plans
            if len(session.sequences) - len(session.rows) > len(self.prompts) - self.load:
                break
        silent = sum(plan.depth == 0 or plan.budget == 1 for plan in plans) / len(plans)
        return {"tokens_per_second": tokens / seconds, "autoregressive_share": silent}


def live(
    pair: Pair, policies: dict[int, dict[str, Policy]], repeats: int, new: int
) -> dict[str, Any]:  # fmt: skip
    """Policies interleaved at each load: medians over repeats."""
    kept = {load: Kept(pair, load, max(2 * load, 7), new) for load in policies}
    runs = [(load, name) for load, named in policies.items() for name in named]
    found: dict[tuple[int, str], list[dict[str, float]]] = {run: [] for run in runs}
    for load, named in policies.items():  # caches and lazy imports are not the first one's
        for policy in named.values():
            Kept(pair, load, load, 4).run(policy)
    order = [run for r in range(repeats) for run in random.Random(r).sample(runs, len(runs))]
    for load, name in track(order, "live"):
        found[load, name].append(kept[load].run(policies[load][name]))
    made: dict[str, Any] = {str(load): {} for load in policies}
    for (load, name), rows in found.items():
        speeds = quartiles([row["tokens_per_second"] for row in rows])
        share = float(np.median([row["autoregressive_share"] for row in rows]))
        made[str(load)][name] = {**speeds, "repeats": repeats, "autoregressive_share": share}
    return made
