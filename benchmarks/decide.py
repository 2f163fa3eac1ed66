"""Microseconds of a decision: exported choosers, and the features they read, at batch 1."""

from __future__ import annotations

from time import perf_counter

import numpy as np
import torch

from benchmarks.common import pick, quartiles, save
from spec_core import Fixed, Network, Plan, SpeculativeDecoder, Table, load_pair
from spec_core.features import FEATURES, Extractor
from spec_core.menu import DEFAULT_MENU
from spec_core.session import Observation, Outcome


def layers(*sizes: int) -> Network:
    """Random layers; seconds do not depend on the weights."""
    chance = np.random.default_rng(0)
    pairs = list(zip(sizes[1:], sizes, strict=False))
    weights = [chance.normal(size=pair).astype(np.float32) for pair in pairs]
    return Network(weights, [np.zeros(o, np.float32) for o, _ in pairs])


def timed(action, repeats: int = 3000) -> dict[str, float]:
    """Quartiles of an action's microseconds, called again and again."""
    seconds = []
    for i in range(repeats):
        start = perf_counter()
        action(i)
        seconds.append((perf_counter() - start) * 1e6)
    return quartiles(seconds[100:])


class Watching(Fixed):
    """Keeps observations."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.seen: list[Observation] = []

    def plan(self, observation: Observation) -> list[Plan]:
        self.seen.append(observation)
        return super().plan(observation)


def main() -> None:
    """Measure and write results/decide.json."""
    torch.set_num_threads(1)
    inputs, plans = len(FEATURES), len(DEFAULT_MENU)
    watching, outcomes = Watching(Plan(6, budget=7)), list[Outcome]()
    decoder = SpeculativeDecoder(load_pair(), watching)
    decoder.generate([pick("dev", 1)[0]["prompt"]], max_new_tokens=128, watch=outcomes.append)
    known, extractor = watching.seen[1:], Extractor()
    features = [extractor.observe(observation) for observation in watching.seen]
    choosers = {
        "linear": layers(inputs, plans),
        "network of 64": layers(inputs, 64, plans),
        "network of 64, 64": layers(inputs, 64, 64, plans),
        "table": Table([7, 15], [[0.2, 0.4], [0.3, 0.6]], np.arange(9).reshape(3, 3)),
    }
    found = {
        name: timed(lambda i, c=chooser: c.choose(features[i % len(features)]))
        for name, chooser in choosers.items()
    }

    def observe(i: int) -> None:
        extractor.seen = None  # as if the outcome were new
        extractor.observe(known[i % len(known)])

    save("decide", {"unit": "microseconds", "decision": found, "features": timed(observe)})


if __name__ == "__main__":
    main()
