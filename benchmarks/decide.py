"""What a learned policy costs at batch 1: its decisions and its features, alone and in a decode.

Called in a row, code and data are warm. Within a decode the models' forwards push both out of the
caches: that is what a user pays, counted by the decoder itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter

import numpy as np
import torch

from benchmarks.common import pick, quartiles, save
from envs.stand import stands
from spec_core import (
    DEFAULT_MENU,
    Fixed,
    MenuPolicy,
    Network,
    Pair,
    Plan,
    SpeculativeDecoder,
    StopPolicy,
    Table,
    load_pair,
)
from spec_core.clock import Seconds
from spec_core.doubt import ALWAYS, Doubt
from spec_core.extractor import Extractor
from spec_core.features import FEATURES, LEVEL_FEATURES
from spec_core.learned import Chosen
from spec_core.session import Observation, Outcome

LEVELS = 6  # of the plan that is asked about after each level but the last
NEVER = Doubt(0.0, 0.0)  # a band in which no draft is, all are above


def layers(*sizes: int) -> Network:
    """Random layers; seconds do not depend on the weights."""
    chance = np.random.default_rng(0)
    pairs = list(zip(sizes[1:], sizes, strict=False))
    weights = [chance.normal(size=pair).astype(np.float32) for pair in pairs]
    return Network(weights, [np.zeros(o, np.float32) for o, _ in pairs])


def timed(action: Callable[[int], object], repeats: int = 3000) -> dict[str, float]:
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


def in_decode(pair: Pair, policy: Chosen, repeats: int = 5) -> dict:
    """A policy's microseconds per cycle within a decode, and its share of the seconds."""
    decoder = SpeculativeDecoder(pair, policy)
    cycles, shares = list[Seconds](), list[float]()
    for repeat in range(1 + repeats):
        found = list[Seconds]()

        def watch(outcome: Outcome, found: list[Seconds] = found) -> None:
            found.append(outcome.seconds)

        for prompt in pick("test", 1):
            decoder.generate(prompt["prompt"], watch, max_new_tokens=48)
        if repeat == 0:  # the first one warms up
            continue
        cycles += found
        shares.append(sum(s.decide for s in found) / sum(s.total for s in found))
    return {
        "policy": quartiles([seconds.decide * 1e6 for seconds in cycles]),
        "cycle": quartiles([seconds.total * 1e6 for seconds in cycles]),
        "share": quartiles(shares), "cycles": len(cycles), "repeats": repeats,
    }  # fmt: skip


class Python(Network):
    """A network that drafting cannot ask by itself."""


@torch.no_grad()
def questions(pair: Pair, repeats: int = 200) -> dict:
    """What a question after a level adds to a draft, by turns with a policy that asks none."""
    room, plan = len(LEVEL_FEATURES), Plan(LEVELS, budget=LEVELS + 1)
    like = layers(len(FEATURES) + room, 64, 64, 2)
    like.biases[-1][0] = 1e6  # never stops, so that all drafts are the same
    cases = {"none": (Network, NEVER), "within drafting": (Network, ALWAYS),
             "by Python": (Python, ALWAYS)}  # fmt: skip
    policies = {
        name: StopPolicy(plan, kind(like.weights, like.biases), doubt=doubt)
        for name, (kind, doubt) in cases.items()
    }
    stand = stands(pair, 1, [256], LEVELS + 1, 0.0)[0]
    spent: dict[str, list[float]] = {name: [] for name in cases}
    for repeat in range(10 + repeats):
        for name, policy in policies.items():
            took = stand.undone(partial(stand.asked, policy, policy.levels))
            spent[name] += [took * 1e6] if repeat >= 10 else []  # the first ones warm up
    usual = {name: quartiles(values) for name, values in spent.items()}
    each = {
        name: (usual[name]["median"] - usual["none"]["median"]) / (LEVELS - 1)
        for name in cases if name != "none"
    }  # fmt: skip
    quiet = in_decode(pair, policies["none"])
    return {"not asked": quiet, "draft": usual, "per question": each, "repeats": repeats}


def main() -> None:
    """Measure and write results/decide.json."""
    torch.set_num_threads(1)
    pair = load_pair()
    inputs, plans = len(FEATURES), len(DEFAULT_MENU)
    watching, outcomes = Watching(Plan(6, budget=7)), list[Outcome]()
    decoder = SpeculativeDecoder(pair, watching)
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
        name: timed(lambda i, c=chooser: c.decide(features[i % len(features)]))
        for name, chooser in choosers.items()
    }

    def observe(i: int) -> None:
        extractor.seen = None  # as if the outcome were new
        extractor.look(known[i % len(known)])

    save("decide", {
        "unit": "microseconds", "decision": found, "features": timed(observe),
        "in a decode": in_decode(pair, MenuPolicy(DEFAULT_MENU, layers(inputs, 64, plans))),
        "64, 64 in a decode": in_decode(
            pair, MenuPolicy(DEFAULT_MENU, layers(inputs, 64, 64, plans))
        ),
        "stop in a decode": questions(pair),
    })  # fmt: skip


if __name__ == "__main__":
    main()
