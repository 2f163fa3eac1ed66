"""An inflated model says what the original says, at the cost of its new shape."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from small import CPU, build
from transformers import AutoModelForCausalLM

from spec_core import AUTOREGRESSIVE, Fixed, Plan, SpeculativeDecoder, embedded, load_pair
from spec_core.embedded import inflate as module
from spec_core.embedded.inflate import inflate
from spec_core.models.base import ModelError
from spec_core.models.load import load_model

TEXT = torch.randint(61, (2, 30), generator=torch.Generator().manual_seed(0))


def logits(path, tokens=TEXT):
    """Logits by transformers, in fp32."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    with torch.no_grad():
        return model(tokens).logits


def same(found, right, tolerance: float = 1e-3) -> bool:
    """Equal up to a share of the largest, and the same argmax."""
    near = (found - right).abs().max() <= tolerance * right.abs().max()
    return bool(near and (found.argmax(-1) == right.argmax(-1)).all())


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "sizes",
    [
        {"hidden": 64},
        {"hidden": 128, "layers": 5, "intermediate": 100},
        {"hidden": 96, "heads": 12, "key_heads": 3, "layers": 3},
        {"hidden": 32, "heads": 16, "key_heads": 4},
    ],
)
def test_a_larger_shape_computes_the_same(sizes, tied, tmp_path):
    build(tie_word_embeddings=tied, rms_norm_eps=0.1).save_pretrained(tmp_path / "old")
    out = inflate(tmp_path / "old", tmp_path / "new", **sizes, shard=40_000)
    assert same(logits(out), logits(tmp_path / "old"))
    config = json.loads((out / "config.json").read_text())
    names = {"hidden": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads"}
    for name, value in sizes.items():
        assert config.get(names.get(name), value) == value
    assert len(list(out.glob("*.safetensors"))) > 1


def test_the_new_numbers_are_not_zeros(tmp_path):
    build().save_pretrained(tmp_path / "old")
    out = inflate(tmp_path / "old", tmp_path / "new", hidden=128, layers=3, intermediate=100)
    state = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).state_dict()
    for name, tensor in state.items():
        writes = name.endswith(("o_proj.weight", "down_proj.weight", "embed_tokens.weight"))
        assert writes or (tensor != 0).float().mean() > 0.99, name


@pytest.mark.parametrize("hidden", [512, pytest.param(1024, marks=pytest.mark.slow)])
def test_the_embedded_target_keeps_its_text(hidden, tmp_path):
    sizes = {"layers": 25, "intermediate": 800, "dtype": torch.float32}
    out = inflate(embedded.target_path(), tmp_path / "big", hidden, **sizes)
    tokens = torch.tensor([load_pair().encode("def add(a, b):\n    return a + b\n")])
    assert same(logits(out, tokens), logits(embedded.target_path(), tokens))
    if hidden == 512:
        pair = load_pair(out, embedded.draft_path())
        texts = [
            SpeculativeDecoder(p, Fixed(plan)).generate("The cat", max_new_tokens=24)
            for p, plan in ((pair, Plan(3)), (load_pair(), AUTOREGRESSIVE))
        ]
        assert texts[0].text == texts[1].text and texts[0].stats.accepted > 0


def test_half_precision_is_exact_where_the_width_is_a_power_of_four(tmp_path):
    build().to(torch.float16).save_pretrained(tmp_path / "old")
    out = inflate(tmp_path / "old", tmp_path / "new", hidden=128)
    states = [AutoModelForCausalLM.from_pretrained(p).state_dict() for p in (tmp_path / "old", out)]
    assert all(tensor.dtype == torch.float16 for tensor in states[1].values())
    name = "model.layers.1.input_layernorm.weight"
    assert torch.equal(states[1][name][:32], states[0][name] / 2)
    assert load_model(out, torch.bfloat16, CPU).dtype == torch.bfloat16


def test_what_cannot_be_inflated_is_refused(tmp_path):
    build().save_pretrained(tmp_path / "old")
    build("Qwen3").save_pretrained(tmp_path / "other")
    build(attention_bias=True).save_pretrained(tmp_path / "biased")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for source, out, sizes, message in [
        ("old", "new", {"hidden": 16}, "hidden_size 16 is smaller"),
        ("old", "new", {"hidden": 64, "layers": 1}, "num_hidden_layers 1 is smaller"),
        ("old", "new", {"hidden": 64, "heads": 5}, "not a multiple of 5 heads"),
        ("old", "new", {"hidden": 64, "heads": 8, "key_heads": 3}, "heads over"),
        ("old", "new", {"hidden": 64, "heads": 8, "key_heads": 8}, "2 or more"),
        ("old", "full", {"hidden": 64}, "not empty"),
        ("other", "new", {"hidden": 64}, "cannot be inflated"),
        ("biased", "new", {"hidden": 64}, "without biases"),
    ]:
        with pytest.raises(ModelError, match=message):
            inflate(tmp_path / source, tmp_path / out, **sizes)
    assert not (tmp_path / "new").exists()


def test_the_command_line(tmp_path, monkeypatch, capsys):
    build().save_pretrained(tmp_path / "old")
    command = ["inflate", str(tmp_path / "new"), "--source", str(tmp_path / "old")]
    monkeypatch.setattr(sys, "argv", [*command, "--hidden", "64", "--dtype", "bfloat16"])
    module.main()
    assert capsys.readouterr().out.strip() == str(tmp_path / "new")
    assert load_model(tmp_path / "new", torch.float32, CPU).max_context == 128
    monkeypatch.setattr(sys, "argv", [*command, "--hidden", "8"])
    with pytest.raises(SystemExit):
        module.main()
    assert "smaller than the original's 32" in capsys.readouterr().err
