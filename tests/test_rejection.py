"""Recursive rejection draws the first tokens from exactly the target's distribution."""

from functools import cache

import pytest
import torch
from scipy.stats import chisquare
from small import build, load
from torch import Tensor

from spec_core import Fixed, Pair, Plan, SpeculativeDecoder, Template, cycle
from spec_core.drafters.lm import ModelDrafter
from spec_core.sampling import Sampling
from spec_core.tree import NOTHING
from spec_core.verifiers.rejection import Rejection

TINY = {"vocab_size": 7, "initializer_range": 0.2}
PLANS = {
    "chain": Plan(2),
    "beam": Plan(2, width=3, children=2),
    "wide": Plan(2, width=3, budget=7),
    "threshold": Plan(3, width=2, threshold=0.2),
    "best": Plan(3, width=2, threshold=0.3, frontier="best"),
    "template": Plan.of(Template((0, 0, 0, 1, 1, 3), (0, 1, 2, 0, 1, 0))),
}
CASES = [
    *[("chain", 1.0), ("threshold", 1.0), ("best", 0.8), ("beam", 1.0)],
    *[("wide", 1.0), ("wide", 0.8), ("best", 1.0), ("template", 1.0)],
]


class Dropping(Rejection):
    """Broken on purpose: of the draws behind the root only the most probable is kept."""

    def accept(self, logits, tree, chance):
        scores = tree.scores.masked_fill(tree.depths != 1, -torch.inf)
        tree.tokens[(tree.depths == 1) & (scores < scores.amax(1, keepdim=True))] = NOTHING
        return super().accept(logits, tree, chance)


@cache
def models():
    """The target's module, and the pair."""
    module = build(**TINY)
    return module, Pair(load(module), ModelDrafter(load(build(seed=1, **TINY))))


def expected(top_p: float) -> Tensor:
    """The chance of every two tokens behind the prompt, [49]."""
    texts, sampling = torch.tensor([[1, 2, token] for token in range(7)]), Sampling(1, top_p=top_p)
    with torch.no_grad():
        chances = sampling.shape(models()[0](texts).logits).softmax(-1).double()
    pairs = (chances[0, 1][:, None] * chances[:, 2]).flatten()
    return pairs / pairs.sum()


def merged(found: Tensor, right: Tensor, least: float = 5) -> tuple[list[float], list[float]]:
    """Cells with rare ones put together until every expected count is at least `least`."""
    cells, rest = [], [0.0, 0.0]
    for index in right.argsort().tolist():
        rest = [rest[0] + float(found[index]), rest[1] + float(right[index])]
        if rest[1] >= least:
            cells.append(rest)
            rest = [0.0, 0.0]
    cells[-1] = [cells[-1][0] + rest[0], cells[-1][1] + rest[1]]
    return [a for a, _ in cells], [b for _, b in cells]


def likelihood(plan: Plan, verifier, top_p: float = 1.0, count: int = 400) -> float:
    """The p-value of the first two tokens of many texts against the exact distribution."""
    decoder = SpeculativeDecoder(models()[1], Fixed(plan), verifier)
    options = {"max_new_tokens": 5, "temperature": 1.0, "top_p": top_p, "seed": 6}
    with torch.no_grad():
        session = decoder.open([[1, 2]] * count, **options)
        while min(len(s.new) for s in session.sequences) < 2:  # longer texts, or plans would shrink
            cycle(session, decoder.policy)
    texts = torch.tensor([s.new[:2] for s in session.sequences])
    found, right = (7 * texts[:, 0] + texts[:, 1]).bincount(minlength=49), expected(top_p) * count
    assert not found[right == 0].any(), "a token that has no chance was drawn"
    cells = merged(found[right > 0], right[right > 0])
    assert len(cells[0]) > 5
    return chisquare(*cells).pvalue


@pytest.mark.parametrize(("name", "top_p"), [("chain", 1.0), ("best", 0.8)])
def test_the_first_tokens_follow_the_target(name, top_p):
    assert likelihood(PLANS[name], Rejection(), top_p) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(("name", "top_p"), CASES)
def test_the_first_tokens_of_many_texts_follow_the_target(name, top_p):
    assert likelihood(PLANS[name], Rejection(), top_p, count=1000) > 1e-3


def test_dropping_a_drawn_node_is_noticed():
    assert likelihood(PLANS["wide"], Dropping()) < 1e-9
