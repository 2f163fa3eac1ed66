"""The embedded pair gives the plain text, and that of transformers."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import Mixed, plans
from texts import EVERY, PLANS, SAMPLINGS, run

from spec_core import AUTOREGRESSIVE, Fixed, embedded, load_pair
from spec_core.prompts import spread


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
