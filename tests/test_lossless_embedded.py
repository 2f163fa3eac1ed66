"""The embedded pair gives the plain text, and that of transformers."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import Mixed, plans
from texts import BACKENDS, EVERY, IDS, PLANS, SAMPLINGS, run
from transformers import AutoModelForCausalLM

from spec_core import AUTOREGRESSIVE, Fixed, embedded, load_pair
from spec_core.prompts import spread

FOLDERS = (embedded.target_path(), embedded.draft_path())


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_the_embedded_pair_gives_the_plain_text(temperature):
    if not all((folder / "model.safetensors").is_file() for folder in FOLDERS):
        pytest.skip("the embedded pair is not built")
    pair, domains = load_pair(), {}
    for prompt in embedded.prompts("test"):
        domains.setdefault(prompt["domain"], []).append(prompt["prompt"])
    prompts = [text for texts in domains.values() for text in texts[:1]]
    options = {"temperature": temperature, "max_new_tokens": 48, "ids": list(map(str, prompts))}
    right = run(pair, Fixed(AUTOREGRESSIVE), prompts, **options).tokens
    names = ["chain", "pruned beam", "template", "threshold chain", "best"]
    for policy in (*(Fixed(PLANS[name]) for name in names), Mixed(EVERY)):
        assert run(pair, policy, prompts, **options).tokens == right


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("backend", BACKENDS)
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
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_embedded_pair_gives_the_plain_text_on_every_backend(backend, batch):
    pair, prompts = embedded_pair(backend), ["Once upon", "def add(a, b):", "Q: 17 + 25\n"][:batch]
    for i, sampling in enumerate(SAMPLINGS):
        options = {**SAMPLINGS[sampling], "max_new_tokens": 8}
        alone = [
            run(pair, Fixed(AUTOREGRESSIVE), [prompt], **options | {"ids": [IDS[place]]}).tokens[0]
            for place, prompt in enumerate(prompts)
        ]
        for j, (name, plan) in enumerate(PLANS.items()):
            found = run(pair, Fixed(plan), prompts, coupled=(i + j) % 2 == 0, **options)
            assert found.tokens == alone, (sampling, name)


@cache
def greedy() -> dict[str, list[int]]:
    """What `generate` of transformers makes of a prompt of every domain."""
    module, made = AutoModelForCausalLM.from_pretrained(FOLDERS[0], dtype=torch.float32), {}
    for prompt in spread(embedded.prompts("dev"), 1):
        tokens = torch.tensor([embedded_pair("compiled").encode(prompt["prompt"])])
        text = module.generate(tokens, max_new_tokens=48, do_sample=False)[0]
        made[prompt["prompt"]] = text[tokens.shape[1] :].tolist()
    return made


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_embedded_target_is_greedy_as_transformers_is(backend):
    for prompt, right in greedy().items():
        made = run(embedded_pair(backend), Fixed(PLANS["beam"]), [prompt], max_new_tokens=48)
        assert made.tokens[0] == right, prompt
