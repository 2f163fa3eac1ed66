"""What a text's own past adds to a draft: what is found, how it is mixed in, what it spares."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recalled import longest
from small import CPU, VOCAB, Counting, drafter

from spec_core import Plan
from spec_core.doubt import Halt
from spec_core.drafters.lm import ChainDraftState, ModelDrafter, ModelDraftState
from spec_core.drafting import draft
from spec_core.growth import grow
from spec_core.models import recall
from spec_core.ranking import Ranker
from spec_core.recall import Forgetful, Memory
from spec_core.rows import EVEN, SURE, TRUST, Machine, Torch

LOOP = [*range(5)] * 8
texts = st.lists(st.integers(0, 2), min_size=1, max_size=40)


@given(texts, texts)
def test_the_longest_and_latest_end_is_found(text, path):
    row = np.array(text + path)
    assert recall.found(row, len(text), len(row)) == longest(text, path)


@settings(max_examples=60)
@given(st.data(), st.integers(1, 3), st.integers(1, 4), st.integers(1, 6))
def test_machine_code_and_torch_recall_the_same(data, batch, width, slots):
    rows = [data.draw(texts) for _ in range(batch)]
    noted = [len(row) for row in rows]
    past = torch.zeros(batch, max(noted) + slots, dtype=torch.int64)
    for b, row in enumerate(rows):
        past[b, : len(row)] = torch.tensor(row)
    numbers = st.lists(st.integers(0, 2), min_size=batch * slots, max_size=batch * slots)
    drafted = torch.tensor(data.draw(numbers)).view(batch, slots)
    bits = st.lists(st.booleans(), min_size=batch * width * slots, max_size=batch * width * slots)
    seen = torch.tensor(data.draw(bits)).view(batch, width, slots)
    seen[..., 0] = True
    logits = torch.randn(batch, width, 7, generator=torch.Generator().manual_seed(1)) * 3
    told = logits.clone(), past, noted, drafted, seen
    mixed = Machine().recalled(*told)
    torch.testing.assert_close(mixed, Torch().recalled(*told))
    for b in range(batch):
        for w in range(width):
            path = drafted[b, 1:][seen[b, w, 1:]].tolist()
            token, common = longest(rows[b], path)
            share = TRUST if common == SURE else common / (common + EVEN)
            own = torch.full((7,), 1 / 6) if common == SURE else logits[b, w].softmax(0)
            expected = (1 - share) * own
            expected[token] = share if common == SURE else share + expected[token]
            torch.testing.assert_close(mixed[b, w].softmax(0), expected)


def drafted(state, text, depth):
    """A chain's tree."""
    growth, roots = grow((Plan(depth, budget=64),), False, CPU), torch.tensor([text[-1:]])
    try:
        next(draft(state, [text], growth, Ranker(), roots))
    except StopIteration as done:
        return done.value
    raise AssertionError("nobody is asked")


@torch.no_grad()
def test_a_past_that_is_sure_needs_no_model():
    model = Counting(drafter("near").model)
    with_model = ModelDraftState(model, 1, 90, Memory(1, 90, CPU))
    alone = ChainDraftState(drafter("near").model, 1, 90, Memory(1, 90, CPU))
    tree, other = drafted(alone, LOOP, 6), drafted(with_model, LOOP, 6)
    assert tree.tokens[0].tolist() == [4, 0, 1, 2, 3, 4, 0] == other.tokens[0].tolist()
    assert tree.scores[0].tolist() == other.scores[0].tolist()
    assert math.isclose(tree.scores[0, 1].exp(), TRUST, rel_tol=1e-6)
    assert tree.held == 0 and alone.known == [len(LOOP) - 1]  # as far as it was read at first
    assert alone.spared(LOOP, tree.tokens[0, 1:].tolist()) == [True] * 6
    alone.commit(0, len(LOOP), [-1] * 6)
    text = [*LOOP, 0, 1, 2, 3, 4, 0, 7]  # which is new: now the model has to catch up
    tree = drafted(alone, text, 3)
    assert tree.held == 3 and alone.known == [len(text)]
    fresh = ChainDraftState(drafter("near").model, 1, 90, Memory(1, 90, CPU))
    assert tree.tokens.tolist() == drafted(fresh, text, 3).tokens.tolist()
    held = slice(0, len(text) + 2)
    assert torch.equal(alone.cache.data[:, :, held], fresh.cache.data[:, :, held])


@torch.no_grad()
def test_rows_come_and_go_with_their_pasts():
    pair = [LOOP, [9, 8, 9, 8, 9]]
    state = ModelDraftState(drafter("near").model, 2, 90, Memory(2, 90, CPU))
    found = []
    for texts_now, change in (
        (pair, lambda: state.replace(0, 1)), (pair[1:], state.admit), (pair[::-1], None),
    ):  # fmt: skip
        found.append(state.start(texts_now, Ranker()).tokens[:, 0, 0].tolist())
        assert state.memory.noted == [*map(len, texts_now)]
        for row, text in enumerate(texts_now):
            assert state.memory.texts[row, : len(text)].tolist() == text
            state.commit(row, len(text) - 1, [])
        if change:
            change()
    assert found[0][0] == found[2][1] == 0  # what comes after 4 in the loop


def test_only_greedy_text_is_recalled():
    known = ModelDrafter(drafter("near").model, recall=True)
    assert type(known.open(1, 90, greedy=False).memory) is Forgetful
    assert type(known.open(1, 90, greedy=True).memory) is Memory
    assert type(drafter("other").open(1, 90, greedy=True).memory) is Forgetful


@torch.no_grad()
def test_what_was_noted_is_noted_anew_where_a_text_changes():
    state = ChainDraftState(drafter("near").model, 1, 90, Memory(1, 90, CPU))
    state.follow(LOOP, [], 0.0, Ranker(), 3, Halt(-math.inf))
    other = LOOP[:20] + [VOCAB - 1] * 15
    state.commit(0, 20, [])
    found = state.follow(other, [], 0.0, Ranker(), 3, Halt(-math.inf))
    assert found[0] == [VOCAB - 1] * 3
