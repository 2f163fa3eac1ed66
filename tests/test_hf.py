"""The transformers backend on tiny random models: who is admitted, and equal to plain decoding."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from torch import Tensor

from spec_core.models import hf
from spec_core.models.base import ModelError, View
from spec_core.models.hf import HFModel, load_hf
from spec_core.models.probe import probe

VOCABULARY = 96
LENGTH = 12
PARENTS = (0, 0, 0, 1, 1, 2, 3)  # of a tree whose root is its own parent
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
GROUPED = {**SIZES, "num_key_value_heads": 2}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
GEMMA = {**GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8}
OPT = {**SIZES, "ffn_dim": 48, "word_embed_proj_dim": 32}
ROPE = {"rope_theta": 10000.0, "factor": 2.0}
GEMMA_LAYERS = {**GEMMA, "layer_types": ["sliding_attention", "full_attention"]}
ADMITTED = {
    "GPT2": GPT2,
    "OPT": OPT,
    "Gemma2": GEMMA,
    "Gemma3Text": GEMMA_LAYERS,
    "Phi3": GROUPED,
    "GPTNeoX": SIZES,
    "Llama": GROUPED,
    "Qwen3": {**GROUPED, "head_dim": 8},
    "Mistral": {**GROUPED, "sliding_window": 8},
    "GptOss": {
        **GROUPED,
        "head_dim": 8,
        "num_local_experts": 2,
        "num_experts_per_tok": 2,
        "sliding_window": 8,
    },
}
REFUSED = {
    "GPTJ": ({**GPT2, "rotary_dim": 8}, "no attention backend"),
    "Falcon": ({**SIZES, "multi_query": True}, "no attention backend"),
    "Mamba": ({"hidden_size": 32, "num_hidden_layers": 1, "state_size": 4}, "recurrent state"),
    "Llama": ({**GROUPED, "rope_parameters": {**ROPE, "rope_type": "dynamic"}}, "dynamic"),
    "Lfm2": ({**GROUPED, "layer_types": ["conv", "full_attention"]}, "conv"),
    "T5": ({"d_model": 32, "d_ff": 32, "num_layers": 1, "num_heads": 2}, "encoder-decoder"),
}


def build(name: str, sizes: dict) -> torch.nn.Module:
    """A random model whose weights are large enough for attention to matter."""
    torch.manual_seed(0)
    tokens = {"pad_token_id": 3, "bos_token_id": 1, "eos_token_id": 2}
    config = getattr(transformers, f"{name}Config")(vocab_size=VOCABULARY, **sizes, **tokens)
    encoder = name == "T5"
    auto = transformers.AutoModelForSeq2SeqLM if encoder else transformers.AutoModelForCausalLM
    module = auto.from_config(config).eval()
    for parameter in module.parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(4)
    return module


def draw(*shape: int) -> Tensor:
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(1))


def ancestors() -> Tensor:
    seen = torch.eye(len(PARENTS), dtype=torch.bool)
    for node, parent in enumerate(PARENTS):
        seen[node] |= seen[parent]
    return seen


def causal(length: int) -> Tensor:
    return torch.ones(1, length, length, dtype=torch.bool).tril()


def extend(model: HFModel, cache: hf.SlotCache, tokens: Tensor, start: int, keep: int) -> Tensor:
    """Append a chain to every row."""
    rows, length = tokens.shape
    slots = torch.arange(start, start + length).expand(rows, -1)
    view = View(torch.full((rows,), start), causal(length), start + length)
    return model.forward(tokens, slots, slots, view, cache, keep)


def verify(model: HFModel, cache: hf.SlotCache, tokens: Tensor) -> Tensor:
    """Logits of a tree under every row's prefix."""
    seen, prefix = ancestors(), torch.full((len(tokens),), LENGTH)
    slots = prefix[:, None] + torch.arange(len(PARENTS))
    positions = prefix[:, None] + seen.sum(-1) - 1
    view = View(prefix, seen[None], LENGTH + len(PARENTS))
    return model.forward(tokens, positions, slots, view, cache, len(PARENTS))


@torch.no_grad()
def stock(module: torch.nn.Module, tokens: Tensor) -> Tensor:
    return module(tokens[None], attention_mask=torch.ones_like(tokens[None])).logits[0]


@pytest.mark.parametrize("name", ADMITTED)
def test_prefill_and_tree_equal_the_stock_model(name: str) -> None:
    module = build(name, ADMITTED[name])
    model, tokens = HFModel(module), draw(2, LENGTH + len(PARENTS))
    assert model.vocab_size == VOCABULARY
    cache = model.new_cache(2, 40)
    prefill = extend(model, cache, tokens[:, :LENGTH], 0, LENGTH)
    tree = verify(model, cache, tokens[:, LENGTH:])
    for row in range(2):
        right = stock(module, tokens[row, :LENGTH])
        torch.testing.assert_close(prefill[row], right, atol=1e-4, rtol=0)
        for node, path in enumerate(ancestors()):
            sequence = torch.cat([tokens[row, :LENGTH], tokens[row, LENGTH:][path]])
            right = stock(module, sequence)[-1]
            torch.testing.assert_close(tree[row, node], right, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ADMITTED)
def test_greedy_decoding_equals_generate_and_leaves_the_module_alone(name: str) -> None:
    module, prompt = build(name, ADMITTED[name]), draw(1, LENGTH)
    options = {"do_sample": False, "max_new_tokens": 12, "eos_token_id": None}
    options["attention_mask"] = torch.ones_like(prompt)
    before, own = module.generate(prompt, **options), module.config._attn_implementation
    model = HFModel(module)
    cache = model.new_cache(1, 40)
    out, new = prompt, prompt
    for _ in range(12):
        logits = extend(model, cache, new, out.shape[1] - new.shape[1], 1)
        new = logits[:, -1].argmax(-1, keepdim=True)
        out = torch.cat([out, new], dim=1)
    assert out.tolist() == before.tolist()
    assert module.config._attn_implementation == own != hf.ATTENTION
    assert module.generate(prompt, **options).tolist() == before.tolist()


@pytest.mark.parametrize("name", ["Llama", "Gemma2", "GPT2"])
def test_moving_a_path_and_copying_a_row_keep_the_logits(name: str) -> None:
    module = build(name, ADMITTED[name])
    model, tokens = HFModel(module), draw(3, LENGTH + len(PARENTS))
    cache = model.new_cache(3, 40)
    extend(model, cache, tokens[:, :LENGTH], 0, 1)
    verify(model, cache, tokens[:, LENGTH:])
    path = ancestors()[6].nonzero().flatten()  # 0, 1, 3, 6: overlaps where it goes
    assert path.tolist() == [0, 1, 3, 6]
    length = LENGTH + len(path)
    cache.rows(1, 2).move(0, (LENGTH + path).tolist(), [*range(LENGTH, length)])
    cache.copy_row(1, 2, length)
    new = draw(2, 3)
    got = extend(model, cache.rows(1, 3), new, length, 3)
    kept = torch.cat([tokens[1, :LENGTH], tokens[1, LENGTH:][path]])
    for row in range(2):
        right = stock(module, torch.cat([kept, new[row]]))[-3:]
        torch.testing.assert_close(got[row], right, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_score_trees_is_refused_by_name(name: str) -> None:
    sizes, why = REFUSED[name]
    module = build(name, sizes)
    with pytest.raises(ModelError, match=f"^{type(module).__name__}: .*{why}"):
        HFModel(module)


def test_the_probe_finds_what_the_config_does_not_tell() -> None:
    module = build("GPTJ", REFUSED["GPTJ"][0])
    module._supports_attention_backend = True
    with pytest.raises(ModelError, match=r"^GPTJForCausalLM: .* by [0-9.]+ \(it ignores"):
        HFModel(module)


BROKEN = {
    "mask": lambda step, window, groups: torch.ones_like(INTACT(step, window, groups)),
    "siblings": lambda step, window, groups: (
        INTACT(step, None, groups) | (step.distance < 1)[:, None].repeat(1, 1, groups, 1)
    ),
    "window": lambda step, window, groups: INTACT(step, None, groups),
}
INTACT = hf._Step.mask


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("name", ["Mistral", "Gemma2"])
def test_the_probe_catches_a_broken_mask(name: str, fault: str, monkeypatch) -> None:
    model = HFModel(build(name, ADMITTED[name]))
    monkeypatch.setattr(hf._Step, "mask", BROKEN[fault])
    with pytest.raises(ModelError, match="differs from plain decoding"):
        probe(model)


def test_the_probe_catches_lost_softcaps_and_mixed_rows(monkeypatch) -> None:
    model = HFModel(build("Gemma2", {**GEMMA, "attn_logit_softcapping": 0.5}))
    intact = hf._spelled_out
    with monkeypatch.context() as patch:
        patch.setattr(hf, "_spelled_out", lambda *given: intact(*given[:4], None, given[5]))
        with pytest.raises(ModelError, match="differs from plain decoding"):
            probe(model)
    monkeypatch.setattr(hf, "_spelled_out", lambda *given: intact(*given).flip(0))
    with pytest.raises(ModelError, match="differs from plain decoding"):
        probe(model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_admitted(dtype: torch.dtype) -> None:
    module = build("Llama", GROUPED).to(dtype)
    model = HFModel(module)
    assert model.dtype == dtype
    assert {buffer.dtype for buffer in model.new_cache(1, 4).buffers} == {dtype}


def test_a_module_in_training_mode_is_refused() -> None:
    with pytest.raises(ModelError, match=r"call \.eval"):
        HFModel(build("Llama", GROUPED).train())


def test_the_context_ends_where_longrope_would_change_frequencies() -> None:
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    rope |= {"rope_theta": 10000.0, "original_max_position_embeddings": 64}
    module = build(
        "Phi3", {**GROUPED, "rope_parameters": rope, "original_max_position_embeddings": 64}
    )
    assert HFModel(module).max_context == 64


def test_loading_a_folder(tmp_path) -> None:
    module = build("Llama", GROUPED)
    module.save_pretrained(tmp_path)
    model, prompt = load_hf(str(tmp_path), "cpu", torch.float32), draw(LENGTH)
    assert model.max_context == 128
    torch.testing.assert_close(stock(model.module, prompt), stock(module, prompt))
    with pytest.raises(ModelError, match="cannot load it"):
        load_hf(str(tmp_path / "nothing"), "cpu", torch.float32)


def test_pickled_weights_are_refused(tmp_path) -> None:
    module = build("Llama", GROUPED)
    module.config.save_pretrained(tmp_path)
    torch.save(module.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError) as refusal:
        load_hf(str(tmp_path), "cpu", torch.float32)
    assert str(tmp_path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_missing_weights_are_refused(tmp_path) -> None:
    module = build("Llama", GROUPED)
    state = {name: weight for name, weight in module.state_dict().items() if "q_proj" not in name}
    module.save_pretrained(tmp_path, state_dict=copy.copy(state))
    with pytest.raises(ModelError, match=r"weights are missing: .*q_proj"):
        load_hf(str(tmp_path), "cpu", torch.float32)
