"""Plans to trees, against a slow reference that grows one tree with lists."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import CPU, Hashed, closure, drafter, grown, plans, templates

from spec_core import Plan, Template
from spec_core.drafting import draft
from spec_core.growers import Grower
from spec_core.growth import grow
from spec_core.ranking import Drawer, Ranker
from spec_core.tree import NOTHING

TEXTS = [[1, 2, 3], [4, 5], [6], [7, 8, 9, 10]]


def trees(some: list[Plan], sampled: bool = False, stop=None):
    """One tree per plan, and the drafter's state."""
    state, roots = Hashed().open(len(some), 0), torch.tensor([[t[-1]] for t in TEXTS[: len(some)]])
    seeds = torch.arange(len(some))[:, None]
    rank = Drawer(1.0, seeds, seeds + 3) if sampled else Ranker()
    growth, ask = grow(tuple(some), sampled, CPU), stop is not None
    return answered(draft(state, TEXTS[: len(some)], growth, rank, roots, ask), stop), state


def answered(growing, stop):
    """The tree in the end, every level's question answered."""
    answer = None
    try:
        while True:
            answer = stop(growing.send(answer))
    except StopIteration as grown:
        return grown.value


def paths(tree, row: int) -> list[tuple[int, ...]]:
    """The tokens of every node's path, the root not included; checks that the tree is a tree."""
    parents, tokens = tree.parents[row].tolist(), tree.tokens[row].tolist()
    depths, scores = tree.depths[row].tolist(), tree.scores[row].tolist()
    found = [()]
    for node in range(1, tree.counts[row]):
        assert parents[node] < node, "parents precede children"
        assert depths[node] == depths[parents[node]] + 1 <= tree.depth
        assert scores[node] <= scores[parents[node]]
        found.append((*found[parents[node]], tokens[node]))
    assert len(set(found)) == len(found), "siblings are distinct"
    assert set(tokens[tree.counts[row] :]) <= {NOTHING}
    return found


def reference(plan: Plan, text: list[int]) -> dict[tuple[int, ...], float]:
    """Path to log probability of what the plan keeps."""
    drafter, pool, children = Hashed(), {(): 0.0}, plan.children or plan.width
    expanded, newest = set(), [()]
    least = math.log(plan.threshold) if plan.threshold else -math.inf
    for _ in range(plan.depth):
        among = newest if plan.frontier == "level" else [p for p in pool if p not in expanded]
        chosen = sorted(among, key=pool.__getitem__, reverse=True)[: plan.width]
        expanded |= set(chosen)
        newest = []
        for path in chosen:
            best = drafter.logits((*text, *path)).log_softmax(-1).topk(children)
            for score, token in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                if pool[path] + score >= least:
                    pool[(*path, token)] = pool[path] + score
                    newest.append((*path, token))
    kept = sorted(pool.items(), key=lambda item: item[1], reverse=True)
    return dict(kept[: plan.budget])


@settings(max_examples=40)
@given(st.lists(grown().filter(lambda p: p.depth), min_size=1, max_size=3))
def test_growth_is_that_of_the_reference(some):
    tree, _ = trees(some)
    for row, plan in enumerate(some):
        right = reference(plan, TEXTS[row])
        found = paths(tree, row)
        assert set(found) == set(right)
        scores = torch.tensor([right[path] for path in found])
        torch.testing.assert_close(tree.scores[row, : len(found)], scores, rtol=0, atol=1e-4)


@settings(max_examples=40)
@given(st.lists(plans().filter(lambda p: p.depth), min_size=1, max_size=4))
def test_trees_are_valid_whatever_the_plans(some):
    tree, state = trees(some)
    slots = state.paths
    for row, plan in enumerate(some):
        found = paths(tree, row)
        assert len(found) <= plan.budget
        assert torch.equal(
            tree.ancestors.expand(len(some), -1, -1)[row], closure(tree.parents[row].tolist())
        )
        if plan.threshold and plan.template is None:
            assert tree.scores[row, : len(found)].exp().min() >= plan.threshold - 1e-6
        for node, slot in enumerate(tree.expanded[row, : len(found)].tolist()):
            assert slot < 0 or slots[row][slot] == (*TEXTS[row], *found[node])


chains = st.builds(
    Plan, depth=st.integers(0, 7), budget=st.integers(2, 9),
    threshold=st.sampled_from([0.0, 0.02, 0.1, 0.4]),
)  # fmt: skip


@torch.no_grad()
@settings(max_examples=40)
@given(st.lists(chains, min_size=2, max_size=4).filter(lambda some: any(p.depth for p in some)))
def test_chains_that_end_one_by_one_are_those_of_the_general_case(some):
    """In any order of ends: without selection the same bits come out."""
    growth, found = grow(tuple(some), False, CPU), []
    roots, texts = torch.tensor([t[-1:] for t in TEXTS[: len(some)]]), list(map(list, TEXTS))
    for general in (False, True):
        state, rank = drafter("near").open(len(some), 40), Ranker()
        rank.ask(1)
        if general:
            start = state.start(texts[: len(some)], rank)
            growing = Grower(state, growth, rank, roots).grow(start, None)
        else:
            growing = draft(state, texts[: len(some)], growth, rank, roots)
        tree = answered(growing, None)
        found.append(tree.first(max(tree.counts)))
    for name in ("tokens", "parents", "depths", "scores", "expanded"):
        assert torch.equal(*(getattr(tree, name) for tree in found)), name
    assert torch.equal(*(tree.ancestors.expand(len(some), -1, -1) for tree in found))


@settings(max_examples=25)
@given(st.lists(templates(), min_size=1, max_size=4))
def test_a_template_gives_exactly_its_shape(some):
    tree, _ = trees([Plan.of(t) for t in some])
    for row, template in enumerate(some):
        right = [()]
        for parent, rank in zip(template.parents, template.ranks, strict=True):
            logits = Hashed().logits((*TEXTS[row], *right[parent]))
            right.append((*right[parent], int(logits.topk(rank + 1).indices[-1])))
        assert set(paths(tree, row)) == set(right)


@settings(max_examples=25)
@given(st.lists(plans(full=True).filter(lambda p: p.depth), min_size=1, max_size=4))
def test_drawn_trees_keep_the_order_of_the_draws(some):
    tree, _ = trees(some, sampled=True)
    for row, plan in enumerate(some):
        paths(tree, row)
        assert tree.counts[row] <= plan.budget
        assert (tree.expanded[row, tree.parents[row]] >= 0).all()


def test_a_drawn_template_may_not_skip_a_rank():
    with pytest.raises(ValueError, match="skipped"):
        grow((Plan.of(Template((0, 0), (0, 2))),), True, CPU)


@given(st.integers(1, 4), st.sampled_from(["level", "best"]))
def test_a_stopped_sequence_grows_no_further(depth, frontier):
    def stop(level):
        return torch.tensor([level.depth >= depth, False])

    plan = Plan(5, width=2, frontier=frontier)
    tree, _ = trees([plan, plan], stop=stop)
    right = reference(Plan(depth, width=2, frontier=frontier), TEXTS[0])
    assert set(paths(tree, 0)) == set(right)
    assert set(paths(tree, 1)) == set(reference(plan, TEXTS[1]))
