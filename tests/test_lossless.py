"""The text is a function of prompt, seed and sampling: whatever is drafted, it is the same."""

from __future__ import annotations

from functools import cache
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import Letters, Mixed, build, pair_of, plans, target

from spec_core import AUTOREGRESSIVE, Fixed, Plan, SpeculativeDecoder, Template, embedded, load_pair
from spec_core.prompts import spread
from spec_core.sequence import Ending
from spec_core.verifiers.coupled import Coupled

BACKENDS = ["compiled", "fast", "hf"]
DRAFTERS = ["other", "near", "same"]
PROMPTS = [[1, 2, 3], [5], [7, 8, 9, 10, 11]]
IDS = ["a", "b", "c"]
SAMPLINGS = {
    "greedy": {},
    "warm": {"temperature": 0.7},
    "hot": {"temperature": 1.0},
    "nucleus": {"temperature": 1.0, "top_p": 0.8},
    "warm nucleus": {"temperature": 0.7, "top_p": 0.8},
    "few": {"temperature": 0.7, "top_k": 5},
}
PLANS = {
    "chain": Plan(4),
    "beam": Plan(4, width=3, budget=40),
    "pruned beam": Plan(4, width=3, children=2, budget=6),
    "template": Plan.of(Template((0, 0, 1, 1, 2, 3, 6), (0, 1, 0, 1, 0, 0, 1))),
    "threshold": Plan(4, width=4, threshold=0.1),
    "threshold chain": Plan(6, budget=7, threshold=0.2),
    "nothing passes": Plan(3, threshold=1.0),
    "best": Plan(5, width=2, budget=10, frontier="best"),
    "best above threshold": Plan(5, width=3, threshold=0.05, frontier="best"),
}
EVERY = [AUTOREGRESSIVE, *PLANS.values()]


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


def everywhere() -> list:
    """Every backend, sampling and drafter; quick: all of the compiled one, some of the others."""
    cases = []
    for kind, sampling, backend in product(DRAFTERS, SAMPLINGS, BACKENDS):
        some = sampling in ("greedy", "hot") and (backend == "fast" or kind == "near")
        marks = () if backend == "compiled" or some else pytest.mark.slow
        cases.append(pytest.param(kind, sampling, backend, marks=marks))
    return cases


@pytest.mark.parametrize(("kind", "sampling", "backend"), everywhere())
def test_every_plan_gives_the_plain_text(kind, sampling, backend):
    pair, options = pair_of(kind, backend), SAMPLINGS[sampling]
    right = [plain(backend, sampling, i) for i in range(3)]
    for name, plan in PLANS.items():
        coupled = backend != "hf" or name == "beam"
        assert run(pair, Fixed(plan), coupled=coupled, **options).tokens == right, name
        if name in ("chain", "beam", "nothing passes"):
            alone = run(pair, Fixed(plan), PROMPTS[:1], coupled=False, **options)
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
    [*product((1, 3), BACKENDS[:2]), (3, "hf"), pytest.param(1, "hf", marks=pytest.mark.slow)],
)
def test_a_draft_may_have_a_smaller_context(size, backend):
    prompts = [[1, 2, 3], [i % 7 for i in range(22)], [i % 5 for i in range(40)]][:size]
    pair, options = pair_of("short", backend), {"temperature": 1.0, "max_new_tokens": 30}
    right = run(pair, Fixed(AUTOREGRESSIVE), prompts, **options).tokens
    for plan in (*PLANS.values(), Plan(12, width=2)):
        assert run(pair, Fixed(plan), prompts, **options).tokens == right
    assert run(pair, Mixed(EVERY), prompts, **options).tokens == right


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_the_embedded_pair_gives_the_plain_text(temperature):
    folders = (embedded.target_path(), embedded.draft_path())
    if not all((folder / "model.safetensors").is_file() for folder in folders):
        pytest.skip("the embedded pair is not built")
    pair, domains = load_pair(), {}
    for prompt in embedded.prompts("test"):
        domains.setdefault(prompt["domain"], []).append(prompt["prompt"])
    prompts = [text for texts in domains.values() for text in texts[:2]]
    options = {"temperature": temperature, "max_new_tokens": 48, "ids": list(map(str, prompts))}
    right = run(pair, Fixed(AUTOREGRESSIVE), prompts, **options).tokens
    names = ["chain", "pruned beam", "template", "threshold chain", "best"]
    for policy in (*(Fixed(PLANS[name]) for name in names), Mixed(EVERY)):
        assert run(pair, policy, prompts, **options).tokens == right


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("backend", ["compiled", "fast"])
@settings(max_examples=4)
@given(some=st.lists(plans(), min_size=2, max_size=5), sampling=st.sampled_from(list(SAMPLINGS)))
def test_the_embedded_pair_gives_the_plain_text_under_random_plans(backend, batch, some, sampling):
    pair = embedded_pair(backend)
    prompts = [p["prompt"] for p in spread(embedded.prompts("dev"), 1)][:batch]
    options = {**SAMPLINGS[sampling], "max_new_tokens": 24}
    right = run(pair, Fixed(AUTOREGRESSIVE), prompts, **options).tokens
    assert run(pair, Mixed(some), prompts, **options).tokens == right


@cache
def embedded_pair(backend: str):
    """Loaded once."""
    return load_pair(backend=backend)


@pytest.mark.slow
def test_the_embedded_target_is_greedy_as_transformers_is():
    from transformers import AutoModelForCausalLM

    module = AutoModelForCausalLM.from_pretrained(embedded.target_path(), dtype=torch.float32)
    pair = embedded_pair("auto")
    for prompt in spread(embedded.prompts("dev"), 1):
        tokens = torch.tensor([pair.encode(prompt["prompt"])])
        right = module.generate(tokens, max_new_tokens=48, do_sample=False)[0, tokens.shape[1] :]
        made = run(pair, Fixed(PLANS["beam"]), [prompt["prompt"]], max_new_tokens=48)
        assert made.tokens[0] == right.tolist(), prompt["id"]
