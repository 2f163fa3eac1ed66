"""The fast and the compiled backend give the logits of transformers, in prefill and on trees."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import CPU, build, closure, load, random_parents

from spec_core.drafters.lm import prefill, straight
from spec_core.models.base import View
from spec_core.models.linear import WIDE, Linear, PackedLinear, linear

ROPE = {"rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}
LLAMA3 = {**ROPE, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
WINDOWS = {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 1}
CASES = {
    "llama": ("Llama", {}),
    "biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "tied": ("Llama", {"tie_word_embeddings": True}),
    "one key head": ("Llama", {"num_key_value_heads": 1}),
    "all key heads": ("Llama", {"num_key_value_heads": 4}),
    "wide heads": ("Llama", {"head_dim": 16}),
    "llama3": ("Llama", {"rope_parameters": LLAMA3}),
    "yarn": ("Llama", {"rope_parameters": {**ROPE, "rope_type": "yarn"}}),
    "linear": ("Llama", {"rope_parameters": {**ROPE, "rope_type": "linear"}}),
    "mistral": ("Mistral", {"sliding_window": 8}),
    "qwen2": ("Qwen2", {}),
    "qwen2 windows": ("Qwen2", WINDOWS),
    "qwen3": ("Qwen3", {}),
    "qwen3 yarn": ("Qwen3", {"rope_parameters": {**ROPE, "rope_type": "yarn"}}),
    "mistral llama3": ("Mistral", {"rope_parameters": LLAMA3}),
    "no whole panels": ("Qwen2", {"hidden_size": 40, "intermediate_size": 37, "head_dim": 40}),
}
TEXT = torch.randint(61, (1, 40), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def tree_logits(model, parents: list[int], tokens, text: list[int], chunk: int = 7):
    """Logits [N, V] of a tree behind a text that is prefilled in chunks."""
    cache, nodes = model.new_cache(1, 80), len(parents)
    prefill(model, cache, 0, text, 0, chunk)
    seen, base = closure(parents), torch.tensor([len(text)])
    slots = (base + torch.arange(nodes))[None]
    view = View(base, seen[None], span=len(text) + nodes)
    return model.forward(tokens[None], base + seen.sum(1)[None] - 1, slots, view, cache, nodes)[0]


@pytest.mark.parametrize("backend", ["fast", "compiled"])
@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_transformers(case, backend):
    family, sizes = CASES[case]
    module = build(family, **sizes)
    model, parents = load(module, backend), random_parents(9, 3)
    text, tokens = TEXT[0, :30], TEXT[0, 30:39]
    found = tree_logits(model, parents, tokens, text.tolist())
    seen = closure(parents)
    for node in range(9):
        path = torch.cat((text, tokens[seen[node]]))[None]
        with torch.no_grad():
            right = module(path).logits[0, -1]
        torch.testing.assert_close(found[node], right, rtol=0, atol=1e-4)
    with torch.no_grad():
        first = straight(model, text[None], 0, model.new_cache(1, 40), keep=30)[0]
        right = module(text[None]).logits[0]
    torch.testing.assert_close(first, right, rtol=0, atol=1e-4)


ropes = st.sampled_from(
    [None, LLAMA3, {**ROPE, "rope_type": "yarn"}, {**ROPE, "rope_type": "linear"}]
)
shapes = st.fixed_dictionaries({
    "hidden_size": st.sampled_from([24, 48]), "intermediate_size": st.integers(9, 70),
    "num_hidden_layers": st.integers(1, 3), "head_dim": st.sampled_from([8, 16, 24]),
    "tie_word_embeddings": st.booleans(), "rope_theta": st.sampled_from([100.0, 10000.0]),
    "initializer_range": st.just(0.15),  # logits of usual size: of larger ones 1e-4 is rounding
})  # fmt: skip
SLIDING = {"max_window_layers": [0, 1], "use_sliding_window": [True], "sliding_window": [5, 20]}
FEATURES = {
    "Llama": {"attention_bias": [False, True], "mlp_bias": [False, True]},
    "Mistral": {"sliding_window": [None, 5, 20]},
    "Qwen2": SLIDING,
    "Qwen3": {"attention_bias": [False, True], **SLIDING},
}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["fast", "compiled"])
@pytest.mark.parametrize("family", FEATURES)
@settings(max_examples=8)
@given(shapes, ropes, st.sampled_from([1, 2]), st.sampled_from([1, 2, 3]), st.data())
@torch.no_grad()
def test_random_configs_give_the_logits_of_transformers(
    family, backend, sizes, rope, keys, groups, data
):
    extra = {name: data.draw(st.sampled_from(some)) for name, some in FEATURES[family].items()}
    sizes |= {"num_key_value_heads": keys, "num_attention_heads": keys * groups, **extra}
    theta = sizes.pop("rope_theta")
    sizes["rope_parameters"] = {"rope_type": "default", **(rope or {}), "rope_theta": theta}
    module = build(family, **sizes)
    model, parents = load(module, backend), random_parents(6, 3)
    seen, found, texts = closure(parents), [], [TEXT[0, :25], TEXT[0, 3:12]]
    cache, base = model.new_cache(2, 60), torch.tensor([[25], [9]])
    for row, text in enumerate(texts):
        prefill(model, cache.rows(row, row + 1), 0, text.tolist(), 0, 7)
    view = View(base[:, 0], seen[None], span=31)
    slots, tokens = base + torch.arange(6), TEXT[0, 28:40].view(2, 6)
    found = model.forward(tokens, base + seen.sum(1) - 1, slots, view, cache, 6)
    for row, text in enumerate(texts):
        for node in range(6):
            right = module(torch.cat((text, tokens[row, seen[node]]))[None]).logits[0, -1]
            torch.testing.assert_close(found[row, node], right, rtol=0, atol=1e-4)


def test_shards_are_one_model():
    module = build()
    whole, parts = load(module), load(module, max_shard_size="10KB")
    results = [tree_logits(m, [0], TEXT[0, :1], [1, 2, 3]) for m in (whole, parts)]
    assert torch.equal(*results)


def test_bfloat16_is_close():
    module = build()
    found, right = (
        tree_logits(load(module, dtype=d), [0, 0, 1], TEXT[0, :3], [1, 2, 3]).float()
        for d in (torch.bfloat16, torch.float32)
    )
    assert 0 < (found - right).std() < 0.1 * right.std()
    assert load(module, dtype=torch.bfloat16).device == CPU


@pytest.mark.parametrize("rows", [1, 3, 4, 9])
@pytest.mark.parametrize("biased", [False, True])
def test_every_layout_of_a_product_is_the_product(rows: int, biased: bool) -> None:
    weight, x = torch.randn(WIDE, 24), torch.randn(rows, 24)
    bias = torch.randn(WIDE) if biased else None
    expected = torch.nn.functional.linear(x, weight, bias)
    kinds = [Linear(weight, bias), PackedLinear(weight, bias)]
    assert isinstance(linear(weight, bias), PackedLinear)
    assert all(torch.allclose(kind(x), expected, atol=1e-5) for kind in kinds)
