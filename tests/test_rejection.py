"""Recursive rejection draws the first tokens from exactly the target's distribution."""

import pytest
import torch
from scipy.stats import chisquare
from small import build, load

from spec_core import Fixed, Pair, Plan, SpeculativeDecoder
from spec_core.drafters.lm import ModelDrafter
from spec_core.sampling import Sampling
from spec_core.verifiers.rejection import Rejection

TINY = {"vocab_size": 7, "initializer_range": 0.15}
PLANS = {
    "chain": Plan(2),
    "beam": Plan(2, width=3, children=2),
    "wide": Plan(2, width=3, budget=7),
    "threshold": Plan(3, width=2, threshold=0.2),
    "best": Plan(3, width=2, threshold=0.3, frontier="best"),
}


class Dropping(Rejection):
    """Broken on purpose: the first draw behind the root is dropped before verification."""

    def accept(self, logits, tree, chance):
        tree.tokens[:, 1] = -1
        return super().accept(logits, tree, chance)


def likelihood(plan: Plan, verifier, top_p: float = 1.0, count: int = 600) -> float:
    """The p-value of the first two tokens of many texts against the exact distribution."""
    module = build(**TINY)
    pair = Pair(load(module), ModelDrafter(load(build(seed=1, **TINY))))
    options = {"max_new_tokens": 2, "temperature": 1.0, "top_p": top_p}
    texts = (
        SpeculativeDecoder(pair, Fixed(plan), verifier).generate([[1, 2]] * count, **options).tokens
    )
    sampling = Sampling(1.0, top_p=top_p)
    with torch.no_grad():
        logits = module(torch.tensor([[1, 2, token] for token in range(7)])).logits
    first, second = (sampling.shape(logits[:, i]).softmax(-1).double() for i in (1, 2))
    exact = (first[0, :, None] * second).flatten()
    found = torch.bincount(torch.tensor([7 * a + b for a, b in texts]), minlength=49).double()
    if found[exact == 0].any():
        return 0.0
    found, exact = found[exact > 0], exact[exact > 0]
    rare = exact * count < 5
    groups = [torch.cat((x[~rare], x[rare].sum()[None])) if rare.any() else x for x in (found, exact * count)]
    return chisquare(groups[0], groups[1] * count / groups[1].sum()).pvalue


@pytest.mark.parametrize("top_p", [1.0, 0.8])
@pytest.mark.parametrize("name", PLANS)
def test_the_first_tokens_follow_the_target(name, top_p):
    assert likelihood(PLANS[name], Rejection(), top_p) > 1e-3


def test_dropping_a_drawn_node_is_noticed():
    assert likelihood(PLANS["beam"], Dropping()) < 1e-6
