"""Rules that are one plan, always. `budget` counts the root, as in `Plan`."""

from __future__ import annotations

from collections.abc import Sequence

from policies.rules.base import planned
from spec_core.plan import Plan, Template
from spec_core.policy import Fixed, autoregressive

__all__ = ["autoregressive", "beam", "chain", "dyspec", "dyspec_budget", "template"]


def chain(depth: int = 4, threshold: float = 0.0) -> Fixed:
    """Plain speculative decoding (Leviathan et al., arXiv 2211.17192; Chen et al., 2302.01318).

    Defaults: 4 tokens. threshold: the chain ends where its probability falls below.
    """
    return Fixed(planned(depth=depth, budget=depth + 1, threshold=threshold))


def beam(depth: int = 6, width: int = 10, budget: int = 61) -> Fixed:
    """EAGLE-2 (arXiv 2406.16858): expand each level's best, verify the best of all levels.

    Defaults are the paper's for 7B targets: depth 6, width 10, 60 drafted nodes.
    """
    return Fixed(planned(depth=depth, width=width, budget=budget))


def template(
    parents: Sequence[int] = (0, 0, 1, 1, 3, 5), ranks: Sequence[int] = (0, 1, 0, 1, 0, 0)
) -> Fixed:
    """A static tree (as in Medusa, arXiv 2401.10774): node i + 1 is its parent's ranks[i]-th child.

    Default: a chain of four with a second choice at its first two tokens.
    """
    return Fixed(Plan.of(Template(tuple(parents), tuple(ranks))))


def dyspec(
    threshold: float = 1 / 64, depth: int = 8, width: int = 4, children: int = 4, budget: int = 64
) -> Fixed:
    """DySpec (arXiv 2410.11744), threshold form: draw while the chance of being tried is enough.

    Under rejection verification the chance is the paper's (parent reached, elder siblings refused);
    under the coupled verifier it is the path probability. Default: 1 / nodes, the paper's advice.
    """
    return Fixed(
        planned(depth=depth, width=width, children=children, budget=budget, threshold=threshold)
    )


def dyspec_budget(depth: int = 16, children: int = 4, budget: int = 64) -> Fixed:
    """DySpec (arXiv 2410.11744), budget form: one draft forward per round, for the best open node.

    Default: 16 forwards, 63 drafted nodes; the paper spends one forward per node.
    """
    return Fixed(planned(depth=depth, children=children, budget=budget, frontier="best"))
