"""Prompts, samplings and plans of every family; how they make texts, and the plain text."""

from __future__ import annotations

import random
from functools import cache

from small import pair_of

from spec_core import AUTOREGRESSIVE, Fixed, Plan, SpeculativeDecoder, Template
from spec_core.verifiers.coupled import Coupled

BACKENDS = ["compiled", "fast", "hf"]
DRAFTERS = ["other", "near", "same"]
PROMPTS = [[1, 2, 3], [5], [7, 8, 9, 10, 11]]
IDS = ["a", "b", "c"]
SAMPLINGS = {
    "greedy": {},
    "greedy nucleus": {"top_p": 0.8},
    "warm": {"temperature": 0.7},
    "hot": {"temperature": 1.0},
    "nucleus": {"temperature": 1.0, "top_p": 0.8},
    "warm nucleus": {"temperature": 0.7, "top_p": 0.8},
    "few": {"temperature": 0.7, "top_k": 5},
}


def some_template(seed: int, nodes: int = 9) -> Plan:
    """A shape by chance; ranks of siblings count from 0."""
    chance, parents, ranks = random.Random(seed), list[int](), list[int]()
    for node in range(nodes):
        parents.append(chance.randint(0, node))
        ranks.append(parents[:-1].count(parents[-1]))
    return Plan.of(Template(tuple(parents), tuple(ranks)))


PLANS = {
    "autoregressive": AUTOREGRESSIVE,
    "chain": Plan(4),
    "beam": Plan(4, width=3, budget=40),
    "pruned beam": Plan(4, width=3, children=2, budget=6),
    "template": Plan.of(Template((0, 0, 1, 1, 2, 3, 6), (0, 1, 0, 1, 0, 0, 1))),
    "random template": some_template(3),
    "threshold": Plan(4, width=4, threshold=0.1),
    "threshold chain": Plan(6, budget=7, threshold=0.2),
    "nothing passes": Plan(3, threshold=1.0),
    "best": Plan(5, width=2, budget=10, frontier="best"),
    "best above threshold": Plan(5, width=3, threshold=0.05, frontier="best"),
}
EVERY = list(PLANS.values())


def run(pair, policy, prompts=PROMPTS, coupled=True, **options):
    """Generate, without an end of text where none is asked for."""
    options = {"max_new_tokens": 16, "ids": IDS[: len(prompts)], "seed": 3, **options}
    return SpeculativeDecoder(pair, policy, Coupled(coupled)).generate(prompts, **options)


@cache
def plain(backend: str, sampling: str, prompt: int) -> list[int]:
    """One prompt alone, one token at a time."""
    options = {**SAMPLINGS[sampling], "ids": [IDS[prompt]]}
    return run(
        pair_of("other", backend), Fixed(AUTOREGRESSIVE), [PROMPTS[prompt]], **options
    ).tokens[0]
