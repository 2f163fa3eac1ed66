"""A model that drafts a chain by itself, against one level at a time: the same bits everywhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import CPU, VOCAB, Counting, drafter

from spec_core import Plan
from spec_core.doubt import ALWAYS, Doubt, Halt
from spec_core.drafters.lm import ChainDraftState, ModelDraftState, straight
from spec_core.drafting import draft
from spec_core.growers import Grower
from spec_core.growth import grow
from spec_core.noise import TARGET, NoiseWindow
from spec_core.ranking import Ranker
from spec_core.recall import Forgetful, Memory
from spec_core.rows import Machine, Torch

TEXT = torch.randint(VOCAB, (90,), generator=torch.Generator().manual_seed(5)).tolist()
LOOP = (TEXT[:17] + TEXT[:9] * 9)[:90]
BANDS = [None, None, ALWAYS, Doubt(0.05, 0.6), Doubt(0.2, 1.0), Doubt(0.3, 0.3), Doubt(0.0, 0.1)]
plans = st.builds(
    Plan, depth=st.integers(1, 9), budget=st.just(64),
    threshold=st.sampled_from([0.0, 0.0, 1e-4, 0.02, 0.1, 0.5, 1.0]),
)  # fmt: skip


def ranker(length: int, temperature: float) -> Ranker:
    """As a cycle has it."""
    if not temperature:
        return Ranker()
    return Ranker(temperature, NoiseWindow(VOCAB, TARGET).at([7], [length], 10, CPU))


def grown(state, text, plan, doubt, temperature, grower=None):
    """A tree, and all that a policy saw, which stops by the bits of what it sees."""
    growth, rank = grow((plan,), False, CPU), ranker(len(text), temperature)
    roots, views = torch.tensor([text[-1:]]), []
    if grower is None:
        growing = draft(state, [text], growth, rank, roots, doubt or False)
    else:
        growing = grower(state, growth, rank, roots).grow(state.start([text], rank), doubt)
    try:
        view = next(growing)
        while True:
            logs = view.logs.numpy()
            views.append((view.depth, view.numbers, logs.tobytes(), view.scores.tolist()))
            assert [scores.tolist() for scores in view.pool] == view.numbers
            assert view.asked == [True]
            view = growing.send([bool(logs.view(np.int32).sum() % 3 == 0)])
    except StopIteration as done:
        tree = done.value
    return tree.first(tree.counts[0]), views


def same(one, other) -> None:
    """Two outcomes, to the bit."""
    (tree, views), (right, right_views) = one, other
    assert torch.equal(tree.tokens, right.tokens) and torch.equal(tree.parents, right.parents)
    assert tree.scores.tolist() == right.scores.tolist() and torch.equal(tree.depths, right.depths)
    assert views == right_views


@settings(max_examples=40)
@given(
    plans, st.sampled_from(BANDS), st.sampled_from([0.0, 1.0, 0.7]),
    st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(1, 30), st.booleans(),
)  # fmt: skip
@torch.no_grad()
def test_a_chain_by_itself_is_the_chain_level_by_level(
    plan, doubt, temperature, taken, length, recalls
):
    model, end = drafter("near").model, length
    alone, level, beam = (
        kind(model, 1, 90, Memory(1, 90, CPU) if recalls else Forgetful())
        for kind in (ChainDraftState, ModelDraftState, ModelDraftState)
    )
    for most in taken:
        text, options = (LOOP if recalls else TEXT)[:end], (plan, doubt, temperature)
        found, right = grown(alone, text, *options), grown(level, text, *options)
        same(found, right)
        same(found, grown(beam, text, *options, Grower))
        if not recalls:  # otherwise the model may be behind
            assert torch.equal(found[0].expanded, right[0].expanded)
            assert alone.known == level.known
        for state, tree in ((alone, found[0]), (level, right[0]), (beam, right[0])):
            state.commit(0, end, tree.expanded[0, 1 : most + 1].tolist())  # as a target would
        held, accepted = alone.known[0], found[0].tokens[0, 1 : most + 1].tolist()
        assert torch.equal(alone.cache.data[:, :, :held], level.cache.data[:, :, :held])
        assert torch.equal(alone.cache.positions[:, :held], level.cache.positions[:, :held])
        end += len(accepted) + 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_chain_has_the_bits_it_has_in_a_batch(temperature):
    model, plan, texts = drafter("near").model, Plan(6, budget=7), [TEXT[:20], TEXT[:9]]
    growth = grow((plan, plan), False, CPU)
    noise = None if not temperature else NoiseWindow(VOCAB, TARGET).at([7, 7], [20, 9], 10, CPU)
    rank = Ranker(temperature or 1.0, noise)
    roots = torch.tensor([text[-1:] for text in texts])
    with pytest.raises(StopIteration) as done:
        next(draft(ModelDraftState(model, 2, 90), texts, growth, rank, roots))
    for row, text in enumerate(texts):
        tree, _ = grown(ChainDraftState(model, 1, 90), text, plan, None, temperature)
        assert torch.equal(tree.tokens[0], done.value.value.tokens[row])
        assert torch.equal(tree.scores[0], done.value.value.scores[row])


several = st.lists(
    st.tuples(st.integers(1, 30), st.builds(
        Plan, depth=st.integers(0, 7), budget=st.integers(1, 9),
        threshold=st.sampled_from([0.0, 0.0, 0.02, 0.1, 0.5]),
    )), min_size=2, max_size=4,
).filter(lambda some: any(plan.depth and plan.budget > 1 for _, plan in some))  # fmt: skip


@settings(max_examples=40)
@given(several, st.sampled_from([0.0, 1.0, 0.7]), st.integers(1, 3), st.booleans())
@torch.no_grad()
def test_chains_of_a_batch_in_one_call_are_those_level_by_level(some, temperature, cycles, recalls):
    model, growth = drafter("near").model, grow(tuple(plan for _, plan in some), False, CPU)
    ends, size = [end for end, _ in some], len(some)
    together, level = (
        kind(model, size, 90, Memory(size, 90, CPU) if recalls else Forgetful())
        for kind in (ChainDraftState, ModelDraftState)
    )
    for _ in range(cycles):
        texts = [(LOOP if recalls else TEXT)[:end] for end in ends]
        window, trees = NoiseWindow(VOCAB, TARGET), []
        noise = window.at(list(range(size)), ends, 10, CPU) if temperature else None
        for state in (together, level):
            rank = Ranker(temperature or 1.0, noise)
            roots = torch.tensor([text[-1:] for text in texts])
            with pytest.raises(StopIteration) as done:
                next(draft(state, texts, growth, rank, roots))
            trees.append(done.value.value)
        for name in ("tokens", "parents", "depths", "scores", "expanded", "chain", "depth"):
            mine, right = (getattr(tree, name) for tree in trees)
            assert torch.equal(torch.as_tensor(mine), torch.as_tensor(right)), name
        for row, end in enumerate(ends):
            taken = [slot for slot in trees[0].expanded[row, 1:].tolist() if slot >= 0][:2]
            for state in (together, level):  # as a target would
                state.commit(row, end, taken)
            ends[row] += len(taken) + 1
        assert together.known == level.known
        for row, held in enumerate(level.known):
            for one, other in zip(
                together.cache.data[:, row], level.cache.data[:, row], strict=True
            ):
                assert torch.equal(one[:held], other[:held])


def test_a_chain_ends_with_the_context():
    model = drafter("short").model
    for left in (1, 2, 5):
        text, plan = TEXT[: model.max_context - left], Plan(left, budget=64)
        same(*(
            grown(kind(model, 1, 90), text, plan, None, 0.0)
            for kind in (ChainDraftState, ModelDraftState)
        ))  # fmt: skip


@given(st.floats(-12, 0.5), st.integers(1, 9), st.floats(-3, 0, width=32))
def test_a_model_comes_back_at_the_first_path_that_is_not_above_the_bar(bar, levels, score):
    state = ChainDraftState(drafter("near").model, 1, 90)
    tokens, scores, _ = state.follow(TEXT[:20], [], score, Ranker(), levels, Halt(bar))
    assert len(tokens) == len(scores) <= levels and all(path > bar for path in scores[:-1])
    assert len(tokens) == levels or not scores[-1] > bar
    whole = state.follow(TEXT[:20], [], score, Ranker(), 9, Halt(-math.inf))
    assert (tokens, scores) == tuple(part[: len(tokens)] for part in whole[:2])
    place = whole[1].index(min(whole[1][:levels]))
    equal = state.follow(TEXT[:20], [], score, Ranker(), 9, Halt(whole[1][place]))
    assert equal[1] == whole[1][: place + 1]
    behind = state.follow(TEXT[:20], tokens, scores[-1], Ranker(), 9, Halt(-math.inf))
    rest = 9 - len(tokens)
    assert all(
        part[:rest] == all_[len(tokens) :] for part, all_ in zip(behind[:2], whole[:2], strict=True)
    )


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 40))
@torch.no_grad()
def test_what_follows_each_other_needs_no_view(queries, keep, first):
    model, plain = drafter("short").model, Counting(drafter("short").model)
    caches, found = [model.new_cache(1, 60) for _ in range(2)], []
    for one, cache in zip((model, plain), caches, strict=True):
        straight(one, torch.tensor([TEXT[: first or 1]]), 0, cache, 1)
        tokens = torch.tensor([TEXT[first : first + queries]])
        found.append(straight(one, tokens, first, cache, keep))
    assert plain.queries == [first or 1, queries]
    assert torch.equal(*found) and found[0].shape == (1, min(keep, queries), VOCAB)
    assert torch.equal(caches[0].data, caches[1].data)
    assert torch.equal(caches[0].positions, caches[1].positions)


def logits_of(rows: int, vocab: int, seed: int, spread: float) -> torch.Tensor:
    """Random ones with equals among them, and some that are out of the question."""
    noise = torch.Generator().manual_seed(seed)
    made = (spread * torch.randn(2, rows, vocab, generator=noise)).round(decimals=1)
    return made.masked_fill(torch.rand(made.shape, generator=noise) < 0.1, -torch.inf)


@given(
    st.integers(1, 4), st.integers(3, 70), st.integers(0, 99), st.floats(0.1, 20),
    st.sampled_from([1.0, 0.7]), st.booleans(), st.integers(1, 3),
)  # fmt: skip
def test_logs_and_the_best_are_those_of_torch(rows, vocab, seed, spread, temperature, noisy, count):
    logits = logits_of(rows, vocab, seed, spread)
    logits[:, :, :3] = spread  # enough of them are possible
    noise = torch.randn(logits.shape) if noisy else None
    tokens, scores, logs = Machine().best(logits, temperature, noise, count)
    _, right, right_logs = Torch().best(logits, temperature, noise, count)
    torch.testing.assert_close(torch.from_numpy(logs), right_logs, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(scores, right, atol=1e-6, rtol=1e-6)
    order = torch.from_numpy(logs).sort(dim=-1, descending=True, stable=True)  # the first of equals
    assert torch.equal(tokens, order.indices[..., :count])
    assert torch.equal(scores, order.values[..., :count])
    for b in range(2):
        for row in range(rows):
            own = None if noise is None else noise[b, row][None, None]
            alone = Machine().best(logits[b, row][None, None], temperature, own, 1)
            assert alone[2].tobytes() == logs[b, row].tobytes()


def test_a_nan_spoils_the_row_and_tokens_stay_apart():
    logits = torch.zeros(1, 2, 20)
    logits[0, 0, 7] = torch.nan
    tokens, scores, logs = Machine().best(logits, 1.0, None, 3)
    assert np.isnan(logs[0, 0]).all() and scores[0, 0].isnan().all()
    assert tokens.tolist() == [[[0, 1, 2], [0, 1, 2]]] and scores[0, 1].isfinite().all()
    only = torch.full((1, 1, 20), -torch.inf)
    only[0, 0, 4] = 2.0
    tokens, scores, _ = Machine().best(only, 1.0, None, 2)
    assert tokens.tolist() == [[[4, 0]]] and scores.tolist() == [[[0.0, -math.inf]]]
