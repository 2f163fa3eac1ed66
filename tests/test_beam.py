"""A model that grows a tree by itself, against the general growth in tensors: the same bits."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import CPU, VOCAB, blur, build, drafter, load, plans

from spec_core import Plan
from spec_core.doubt import ALWAYS, Doubt
from spec_core.drafters.lm import ChainDraftState, ModelDrafter, ModelDraftState
from spec_core.drafting import draft
from spec_core.growers import BestFirst, Grower
from spec_core.growth import grow
from spec_core.noise import TARGET, NoiseWindow
from spec_core.ranking import Ranker
from spec_core.recall import Forgetful, Memory

TEXT = torch.randint(VOCAB, (90,), generator=torch.Generator().manual_seed(5)).tolist()
LOOP = (TEXT[:17] + TEXT[:9] * 9)[:90]
BANDS = [None, None, None, ALWAYS, Doubt(0.05, 0.6), Doubt(0.2, 1.0), Doubt(0.3, 0.3)]
PARTS = ("tokens", "parents", "depths", "scores", "expanded")


def changed(change) -> ModelDrafter:
    """A draft model of which some weights are changed."""
    module = blur(build(), 0.15)
    with torch.no_grad():
        change(module.model.embed_tokens.weight, module.lm_head.weight)
    return ModelDrafter(load(module))


def twins(embedding: torch.Tensor, head: torch.Tensor) -> None:
    """Every second token is like the one before: many scores are equal."""
    for weight in (embedding, head):
        weight[1::2] = weight[: VOCAB - 1 : 2]


def sure(embedding: torch.Tensor, head: torch.Tensor) -> None:
    """Of nearly no doubt: many paths are as likely as can be."""
    head *= 1000


def spoil(embedding: torch.Tensor, head: torch.Tensor) -> None:
    """Behind some tokens nothing is a number."""
    embedding[[token for token in range(VOCAB) if token not in TEXT]] = torch.nan


@cache
def model_of(kind: str):
    """`near`, or one that is changed."""
    return (drafter(kind) if kind == "near" else changed(globals()[kind])).model


def ranker(length: int, temperature: float) -> Ranker:
    """As a cycle has it."""
    if not temperature:
        return Ranker()
    return Ranker(temperature, NoiseWindow(VOCAB, TARGET).at([7], [length], 10, CPU))


def seen(view) -> tuple:
    """What a policy may see: of the logs, those behind which a candidate is left."""
    assert [scores.tolist() for scores in view.pool] == view.numbers and view.asked == [True]
    assert torch.equal(view.scores, view.pool[-1])
    live = view.scores.view(view.width, -1).isfinite().any(1)
    return view.depth, view.width, view.numbers, view.logs[0, live].tolist()


def answered(growing):
    """The tree in the end, and what was seen on the way; it stops by the bits of what it sees."""
    views, answer = [], None
    try:
        while True:
            view = growing.send(answer)
            views.append(seen(view))
            answer = [bool(view.scores.amax().view(torch.int32) % 4 == 0)]
    except StopIteration as done:
        return done.value.first(max(done.value.counts)), views


def both(states, text, plan, doubt, temperature):
    """The tree and the views of either way."""
    growth, roots = grow((plan,), False, CPU), torch.tensor([text[-1:]])
    rank, general = ranker(len(text), temperature), ranker(len(text), temperature)
    alone = answered(draft(states[0], [text], growth, rank, roots, doubt or False))
    general.count = growth.levels[0].children
    grower = (Grower if growth.best is None else BestFirst)(states[1], growth, general, roots)
    return alone, answered(grower.grow(states[1].start([text], general), doubt))


def same(one, other) -> None:
    """Two outcomes, to the bit."""
    (tree, views), (right, right_views) = one, other
    for name in PARTS:
        assert torch.equal(getattr(tree, name), getattr(right, name)), name
        assert getattr(tree, name).dtype == getattr(right, name).dtype
    assert tree.depth == right.depth and torch.equal(tree.ancestors, right.ancestors)
    assert views == right_views


@settings(max_examples=120)
@given(
    st.sampled_from(["near", "near", "twins", "sure", "spoil"]),
    plans().filter(lambda plan: plan.depth and not grow((plan,), False, CPU).chain),
    st.sampled_from(BANDS), st.sampled_from([0.0, 1.0, 0.7]), st.integers(1, 30),
    st.lists(st.integers(0, 9), max_size=2), st.booleans(),
)  # fmt: skip
@torch.no_grad()
def test_a_tree_by_itself_is_the_general_one(
    kind, plan, doubt, temperature, length, taken, recalls
):
    model, end = model_of(kind), length
    states = [
        state(model, 1, 120, Memory(1, 120, CPU) if recalls else Forgetful())
        for state in (ChainDraftState, ModelDraftState)
    ]
    for most in [*taken, 9]:
        text = (LOOP if recalls else TEXT)[:end]
        alone, general = both(states, text, plan, doubt, temperature)
        same(alone, general)
        assert states[0].known == states[1].known
        node, path = alone[0].nodes - 1, list[int]()  # up from the last, as if it were accepted
        while node:
            path.insert(0, node)
            node = int(alone[0].parents[0, node])
        accepted = alone[0].expanded[0, path[:most]].tolist()
        for state in states:
            state.commit(0, end, accepted)
        held = states[0].known[0]
        caches = [state.cache.data[:, :, :held] for state in states]
        assert torch.equal(*(state.cache.positions[:, :held] for state in states))
        assert states[0].cache.positions[0, :held].tolist() == [*range(held)]
        torch.testing.assert_close(*caches, rtol=0, atol=0, equal_nan=True)
        end += len(accepted) + 1


@torch.no_grad()
def test_a_tree_ends_with_the_context():
    model = drafter("short").model
    for left in (1, 2, 5):
        text, plan = TEXT[: model.max_context - left], Plan(left, 3)
        states = [state(model, 1, 90) for state in (ChainDraftState, ModelDraftState)]
        same(*both(states, text, plan, None, 0.0))


@torch.no_grad()
def test_what_is_as_likely_as_it_must_be_may_be():
    model, plan = model_of("sure"), Plan(3, 2, threshold=1.0)
    states = [state(model, 1, 90) for state in (ChainDraftState, ModelDraftState)]
    (tree, views), general = both(states, TEXT[:20], plan, None, 0.0)
    same((tree, views), general)
    assert tree.scores.tolist() == [[0.0] * 4]


@pytest.mark.parametrize("frontier", ["level", "best"])
@pytest.mark.parametrize("budget", [2, 3])
@torch.no_grad()
def test_of_a_path_that_is_sure_the_parent_is_kept(budget, frontier):
    """All of it is as likely as the root: the budget ends within a tie."""
    model, plan = model_of("sure"), Plan(3, 2, budget=budget, frontier=frontier)
    states = [state(model, 1, 90) for state in (ChainDraftState, ModelDraftState)]
    (tree, views), general = both(states, TEXT[:20], plan, None, 0.0)
    for made in (tree, general[0]):
        assert made.scores.tolist() == [[0.0] * budget]
        assert made.parents.tolist() == [[0, 0, 1][:budget]]
        assert made.depths.tolist() == [[0, 1, 2][:budget]]
    same((tree, views), general)


@torch.no_grad()
def test_what_may_not_be_is_not_fed():
    state, roots = ChainDraftState(drafter("near").model, 1, 90), torch.tensor([TEXT[19:20]])
    growth = grow((Plan(5, 4, threshold=0.02),), False, CPU)
    tree, _ = answered(draft(state, [TEXT[:20]], growth, Ranker(), roots))
    fed = state.cache.positions[0, 20:].count_nonzero()  # slots that were written
    assert 0 < fed == (tree.expanded > 0).sum() < growth.expanded - 1
