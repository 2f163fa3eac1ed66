"""What the tests of rules share: small arguments, texts, watched answers, made-up cycles."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from small import pair_of

from policies.rules import make_rule
from spec_core import AUTOREGRESSIVE, Fixed, Observation, Outcome, SpeculativeDecoder
from spec_core.clock import Seconds
from spec_core.tree import NOTHING, Tree
from spec_core.verifiers.coupled import Coupled

PROMPTS = [[1, 2, 3], [5], [7, 8, 9, 10, 11]]
COSTS = {"draft": [[1, 0.001], [8, 0.002]], "verify": [[4, 0.01], [8, 0.012], [64, 0.05]]}
CASES = {
    "autoregressive": {},
    "chain": {"depth": 3},
    "beam": {"depth": 3, "width": 3, "budget": 12},
    "template": {},
    "sequoia": {"budget": 8, "costs": COSTS},
    "opt_tree": {"budget": 9, "delta": 0.2},
    "dyspec": {"threshold": 0.02, "depth": 4},
    "dyspec_budget": {"depth": 5, "children": 3, "budget": 12},
    "thompson": {"calibrated": True, "memory": 0.9},
    "ddd": {"checks": [1, 2], "threshold": -0.5, "depth": 4, "width": 3, "budget": 12},
    "svip": {"threshold": 1.2},
    "confidence": {"threshold": 0.2},
    "marginal": {"width": 2, "costs": COSTS},
}
STOPPING = ["opt_tree", "ddd", "svip", "confidence", "thompson", "marginal"]


def run(rule, batch: int, temperature: float, verifier=None):
    """Texts of the first prompts, and how many nodes were drafted."""
    decoder = SpeculativeDecoder(pair_of("near"), rule, verifier or Coupled())
    made = decoder.generate(PROMPTS[:batch], max_new_tokens=14, temperature=temperature, seed=3)
    return made.tokens, made.stats.drafted


@cache
def plain(batch: int, temperature: float) -> list[list[int]]:
    """One token at a time."""
    return run(Fixed(AUTOREGRESSIVE), batch, temperature)[0]


class Asks:
    """Notes a rule's answers."""

    def __init__(self, rule) -> None:
        self.rule, self.answers = rule, []

    def __getattr__(self, name: str):
        return getattr(self.rule, name)

    def stop(self, level):
        mask = self.rule.stop(level)
        self.answers += list(map(bool, mask))
        return mask


def observation(batch: int) -> Observation:
    """Somebody is at work."""
    return Observation(list(range(batch)), [9] * batch, [9] * batch, 0.0, None)


def outcome(scores, paths, parents=None, seconds=None) -> Outcome:
    """A cycle whose trees are these [B, N]; without parents they are chains."""
    scores = torch.tensor(scores)
    batch, nodes = scores.shape
    up = parents or [[max(0, n - 1) for n in range(nodes)]] * batch
    depths = [[0] * nodes for _ in up]
    for row, depth in zip(up, depths, strict=True):
        for node in range(1, nodes):
            depth[node] = depth[row[node]] + 1
    finite = scores.isfinite()
    tree = Tree(torch.where(finite, torch.arange(nodes), NOTHING), torch.tensor(up),
                torch.tensor(depths), scores, torch.full((batch, nodes), -1),
                depth=nodes - 1)  # fmt: skip
    return Outcome(
        list(range(batch)), [make_rule("chain", depth=nodes).plan_] * batch,
        [[1] * (len(path) + 1) for path in paths], [len(path) for path in paths],
        (finite.sum(1) - 1).tolist(), tree, paths, [0] * batch, torch.zeros(batch, nodes, 2),
        seconds or Seconds(),
    )  # fmt: skip


def chained(*steps: float) -> list[float]:
    """Path log probabilities of a chain whose tokens have these probabilities."""
    return np.log([1.0, *np.cumprod(steps)]).tolist()


def drawn(random, rates, length: int, trust: float):
    """A chain's scores under a draft of this confidence, and the path that a target accepts."""
    steps = random.uniform(trust, 0.99, length)
    accepted = 0
    while accepted < length and random.random() < rates(steps[accepted]):
        accepted += 1
    return chained(*steps), list(range(1, accepted + 1))
