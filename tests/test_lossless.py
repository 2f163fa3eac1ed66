"""The text is a function of prompt, seed and sampling: whatever is drafted, it is the same."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import Letters, Mixed, build, pair_of, plans, target
from texts import BACKENDS, DRAFTERS, EVERY, IDS, PLANS, PROMPTS, SAMPLINGS, plain, run

from spec_core import AUTOREGRESSIVE, Fixed, Plan, SpeculativeDecoder
from spec_core.sequence import Ending


def everywhere() -> list:
    """Every backend, sampling and drafter; quick: one drafter, few samplings on other backends."""
    cases = []
    for kind, sampling, backend in product(DRAFTERS, SAMPLINGS, BACKENDS):
        plain = {"compiled": SAMPLINGS, "fast": ("greedy",), "hf": ("greedy",)}
        plainest = sampling in plain[backend]
        marks = () if plainest and kind == "near" else pytest.mark.slow
        cases.append(pytest.param(kind, sampling, backend, marks=marks))
    return cases


@pytest.mark.parametrize(("kind", "sampling", "backend"), everywhere())
def test_every_plan_gives_the_plain_text(kind, sampling, backend):
    pair, options = pair_of(kind, backend), SAMPLINGS[sampling]
    right = [plain(backend, sampling, i) for i in range(3)]
    for i, (name, plan) in enumerate(PLANS.items()):
        assert run(pair, Fixed(plan), **options).tokens == right, name
        alone = run(pair, Fixed(plan), PROMPTS[:1], coupled=i % 2 == 0, **options)
        assert alone.tokens == right[:1], name
    assert run(pair, Mixed(EVERY), **options).tokens == right
    assert run(pair, Mixed(EVERY, levels=True, trims=True), **options).tokens == right


@settings(max_examples=20)
@given(
    st.lists(plans(), min_size=1, max_size=6),
    st.sampled_from(list(SAMPLINGS)),
    st.sampled_from(DRAFTERS),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.integers(0, 99),
    st.sampled_from([1, 3]),
)
def test_random_plans_give_the_plain_text(some, sampling, kind, switches, seed, batch):
    coupled, levels, trims = switches
    policy = Mixed(some, seed, levels, trims)
    options = SAMPLINGS[sampling]
    found = run(pair_of(kind), policy, PROMPTS[:batch], coupled=coupled, **options)
    assert found.tokens == [plain("auto", sampling, i) for i in range(batch)]


@pytest.mark.slow
@settings(max_examples=15)
@given(
    st.lists(plans(), min_size=1, max_size=6), st.sampled_from(list(SAMPLINGS)),
    st.sampled_from(DRAFTERS), st.sampled_from(["fast", "hf"]), st.sampled_from([1, 3]),
)  # fmt: skip
def test_random_plans_give_the_plain_text_on_other_backends(some, sampling, kind, backend, batch):
    found = run(pair_of(kind, backend), Mixed(some), PROMPTS[:batch], **SAMPLINGS[sampling])
    assert found.tokens == [plain(backend, sampling, i) for i in range(batch)]


@settings(max_examples=6)
@given(st.lists(plans(), min_size=1, max_size=4), st.permutations(range(3)), st.integers(1, 3))
def test_the_batch_does_not_matter(some, order, size):
    order = order[:size]
    options = {"temperature": 1.0, "ids": [IDS[i] for i in order]}
    found = run(pair_of("near"), Mixed(some), [PROMPTS[i] for i in order], **options)
    assert found.tokens == [plain("auto", "hot", i) for i in order]


def test_paths_of_all_lengths_are_accepted():
    lengths = set()
    decoder = SpeculativeDecoder(pair_of("near"), Fixed(PLANS["beam"]))
    decoder.generate(
        PROMPTS, lambda o: lengths.update(o.accepted), temperature=1.0, max_new_tokens=60
    )
    assert lengths == {0, 1, 2, 3, 4}


def test_texts_differ_by_seed_and_by_request():
    pair, policy = pair_of("near"), Fixed(PLANS["chain"])
    texts = [run(pair, policy, [[1], [1]], temperature=1.0, seed=s).tokens for s in (0, 1)]
    assert len({tuple(text) for batch in texts for text in batch}) == 4


@pytest.mark.parametrize("backend", BACKENDS)
def test_greedy_is_the_greedy_of_transformers(backend):
    module = build()
    for prompt, found in zip(
        PROMPTS, run(pair_of("near", backend), Mixed(EVERY)).tokens, strict=True
    ):
        options = {
            "max_new_tokens": 16,
            "do_sample": False,
            "eos_token_id": None,
            "pad_token_id": 0,
        }
        right = module.generate(torch.tensor([prompt]), **options)[0, len(prompt) :]
        assert found == right.tolist()


def first(tokens: list[int], ends: frozenset[int]) -> list[int]:
    """Up to and with the first token that ends a text."""
    for place, token in enumerate(tokens):
        if token in ends:
            return tokens[: place + 1]
    return tokens


@pytest.mark.parametrize("kind", DRAFTERS)
@pytest.mark.parametrize("sampling", ["greedy", "hot"])
def test_a_text_ends_at_its_end_token(kind, sampling):
    texts = [plain("auto", sampling, i) for i in range(3)]
    for place in range(0, 16, 5):
        eos = frozenset({texts[0][place], texts[1][-1 - place]})
        right = [first(text, eos) for text in texts]
        pair = pair_of(kind, eos=eos)
        for policy in (Fixed(PLANS["beam"]), Fixed(PLANS["best"]), Mixed(EVERY)):
            found = run(pair, policy, **SAMPLINGS[sampling])
            assert found.tokens == right
            assert [e is Ending.EOS for e in found.endings] == [r[-1] in eos for r in right]


@pytest.mark.parametrize("kind", DRAFTERS)
def test_a_text_ends_at_its_stop_string(kind):
    texts, letters = [plain("auto", "hot", i) for i in range(3)], Letters()
    pair = pair_of(kind, tokenizer=letters)
    for place in range(0, 14, 5):
        stop = letters.decode(texts[place % 3][place : place + 2])
        strings = [letters.decode(text) for text in texts]
        right = [s[: s.index(stop) + len(stop)] if stop in s else s for s in strings]
        for policy in (Fixed(PLANS["chain"]), Mixed(EVERY)):
            found = run(pair, policy, temperature=1.0, stop=[stop])
            assert found.text == right
            ended = [e is Ending.STOP for e in found.endings]
            assert ended == [r.endswith(stop) for r in right]


@pytest.mark.parametrize("kind", DRAFTERS)
def test_a_text_ends_at_its_length(kind):
    for new in (1, 2, 4, 7):
        found = run(pair_of(kind), Fixed(PLANS["beam"]), max_new_tokens=new)
        assert found.tokens == [plain("auto", "greedy", i)[:new] for i in range(3)]
        assert set(found.endings) == {Ending.LENGTH}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", DRAFTERS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_text_ends_where_the_context_does(backend, kind, temperature):
    pair, context = pair_of(kind, backend), target(backend).max_context
    prompts = [[i % 7 for i in range(context - left)] for left in (1, 5, 9)]
    options = {"temperature": temperature}
    right = run(pair, Fixed(AUTOREGRESSIVE), prompts, **options)
    assert [len(tokens) for tokens in right.tokens] == [1, 5, 9]
    for policy in (
        Fixed(Plan(12)),
        Fixed(Plan(12, width=3)),
        Mixed(EVERY),
        Mixed(EVERY, levels=True),
    ):
        found = run(pair, policy, prompts, **options)
        assert found.tokens == right.tokens
        assert set(found.endings) == {Ending.CONTEXT}


@pytest.mark.parametrize(
    ("size", "backend"),
    [
        *product((1, 3), BACKENDS[:2]),
        *(pytest.param(size, "hf", marks=pytest.mark.slow) for size in (1, 3)),
    ],
)
def test_a_draft_may_have_a_smaller_context(size, backend):
    prompts = [[1, 2, 3], [i % 7 for i in range(22)], [i % 5 for i in range(40)]][:size]
    pair, options = pair_of("short", backend), {"temperature": 1.0, "max_new_tokens": 30}
    right = run(pair, Fixed(AUTOREGRESSIVE), prompts, **options).tokens
    for plan in (*PLANS.values(), Plan(12, width=2)):
        assert run(pair, Fixed(plan), prompts, **options).tokens == right
    assert run(pair, Mixed(EVERY), prompts, **options).tokens == right
