"""The compiled backend: products, softmax and gates; the same bits whatever is computed beside."""

import importlib.util
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from llvmlite import binding
from small import CPU, build, closure, load, random_parents, target
from test_fast import CASES

from spec_core.drafters.lm import prefill
from spec_core.models import load as loading
from spec_core.models import products, tiles
from spec_core.models.base import ModelError, View
from spec_core.models.compiled import CompiledModel, gated
from spec_core.models.fast import FastModel
from spec_core.models.products import panels, product
from spec_core.models.tiles import compiled, soften, swish
from spec_core.tree import NOTHING

TEXT = torch.randint(61, (60,), generator=torch.Generator().manual_seed(5)).tolist()


@compiled
def softened(scores, count, scale):
    """The sum; scores are changed in place."""
    return soften(scores.ctypes.data, count, scale)


@compiled
def swished(gate, up):
    """The gate is changed in place."""
    swish(gate.ctypes.data, up.ctypes.data, len(gate))


def times(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, product=product
) -> torch.Tensor:
    """x W^T + b by panels."""
    flat = panels(weight.numpy(), None if bias is None else bias.numpy())
    rows = x.numpy()
    out = np.empty((len(x), -(-len(weight) // 16) * 16), np.float32)
    product(
        rows.ctypes.data, x.shape[1], len(x), flat.ctypes.data, x.shape[1], out.shape[1] // 16,
        out.ctypes.data, out.shape[1],
    )  # fmt: skip
    return torch.from_numpy(out[:, : len(weight)])


@given(st.integers(1, 20), st.integers(1, 70), st.integers(1, 100), st.booleans())
def test_a_product_is_the_product_and_its_rows_have_the_bits_they_have_alone(
    rows, depth, outputs, biased
):
    x, weight = torch.randn(rows, depth), torch.randn(outputs, depth)
    bias = torch.randn(outputs) if biased else None
    found = times(x, weight, bias)
    torch.testing.assert_close(found, torch.nn.functional.linear(x, weight, bias))
    for row in range(rows):
        assert torch.equal(times(x[row : row + 1].clone(), weight, bias)[0], found[row])


def test_cores_with_few_registers_and_with_many_make_the_same_bits(tmp_path, monkeypatch):
    found = {}
    for many in ("", "avx512f"):
        monkeypatch.setattr(binding, "get_host_cpu_features", lambda many=many: {many: True})
        path = tmp_path / f"products_{many}.py"  # what it compiles is kept beside it
        shutil.copy(products.__file__, path)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert bool(many) == module.WIDE
        chance = torch.Generator().manual_seed(3)
        for rows in (1, 2, 3, 5, 7, 13, 20):
            x = torch.randn(rows, 40, generator=chance.manual_seed(rows))
            for outputs in (3, 107):  # a panel; seven, which go by four, two and one
                weight = torch.randn(outputs, 40, generator=chance)
                made = times(x, weight, torch.randn(outputs, generator=chance), module.product)
                assert torch.equal(made, found.setdefault((rows, outputs), made))


@given(st.integers(1, 50), st.floats(0.05, 30))
def test_softmax(count, spread):
    scores = np.full(count + 16, -np.inf, np.float32)
    scores[:count] = np.random.default_rng(count).normal(0, spread, count)
    right = torch.from_numpy(scores.copy()).mul(0.5).softmax(0)
    total = softened(scores, count, np.float32(0.5))
    torch.testing.assert_close(torch.from_numpy(scores / total)[:count], right[:count])


def test_gates_from_one_end_to_the_other():
    gate = np.linspace(-300, 300, 320, dtype=np.float32)
    up, given_ = np.linspace(2, -3, 320, dtype=np.float32), torch.from_numpy(gate.copy())
    swished(gate, up)
    right = torch.nn.functional.silu(given_) * torch.from_numpy(up)
    torch.testing.assert_close(torch.from_numpy(gate), right, atol=1e-30, rtol=1e-5)


def test_gate_and_up_share_no_panel():
    both = torch.arange(20 * 3.0).view(20, 3)
    found, bias = gated(both, torch.arange(20.0))
    assert found.shape == (32, 3) and torch.equal(found[16:26], both[10:])
    assert bias is not None and bias[10:16].eq(0).all() and bias[16] == 10


def logits_of_path(model, path: list[int], fed: int, sizes: list[int]) -> torch.Tensor:
    """The last token's logits, the text prefilled up to `fed` and then fed by some sizes."""
    cache = model.new_cache(1, 100)
    prefill(model, cache, 0, path[:fed], 0, 7)
    turn = 0
    while fed < len(path):
        count = min(sizes[turn % len(sizes)], len(path) - fed)
        turn += 1
        slots = torch.arange(fed, fed + count)[None]
        seen = torch.ones(1, count, count, dtype=torch.bool).tril()
        view = View(torch.tensor([fed]), seen, span=fed + count)
        tokens = torch.tensor([path[fed : fed + count]])
        logits = model.forward(tokens, slots, slots, view, cache, 1)
        fed += count
    return logits[0, 0]


@pytest.mark.parametrize("case", ["llama", "biases", "one key head", "mistral", "qwen3"])
@settings(max_examples=12)
@given(
    st.integers(1, 14), st.integers(0, 99), st.integers(20, 40),
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
)  # fmt: skip
@torch.no_grad()
def test_a_node_of_a_tree_has_the_bits_of_plain_decoding(case, nodes, seed, length, sizes):
    family, fields = CASES[case]
    model, parents = load(build(family, **fields), "compiled"), random_parents(nodes, seed)
    assert isinstance(model, CompiledModel)
    cache, seen = model.new_cache(3, 100), closure(parents)
    tokens = torch.randint(61, (3, nodes), generator=torch.Generator().manual_seed(seed))
    lengths = torch.tensor([length, length - 5, 1 + length // 2])
    for row, size in enumerate(lengths.tolist()):
        prefill(model, cache.rows(row, row + 1), 0, TEXT[:size], 0, 11)
    slots = lengths[:, None] + torch.arange(nodes)
    positions = lengths[:, None] + seen.sum(1) - 1
    view = View(lengths, seen[None], span=length + nodes)
    found = model.forward(tokens, positions, slots, view, cache, nodes)
    for row, size in enumerate(lengths.tolist()):
        path = TEXT[:size] + tokens[row, seen[-1]].tolist()
        assert torch.equal(found[row, -1], logits_of_path(model, path, size, sizes))


@settings(max_examples=40)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
@torch.no_grad()
def test_padding_is_left_out_and_changes_nothing_else(batch, nodes, keep, seed):
    model, keep = target("compiled"), min(keep, nodes)
    noise = torch.Generator().manual_seed(seed)
    tokens = torch.randint(61, (batch, nodes), generator=noise)
    padding = torch.rand(batch, nodes, generator=noise) < seed / 99
    seen = torch.ones(nodes, nodes).tril().bool() & ~padding[:, None]
    seen |= torch.eye(nodes).bool()
    slots = (9 + torch.arange(nodes)).expand(batch, -1).contiguous()
    view, found = View(torch.full((batch,), 9), seen, span=9 + nodes), []
    for fed in (tokens, tokens.masked_fill(padding, NOTHING)):
        cache = model.new_cache(batch, 30)
        cache.data.fill_(0.5)
        found.append((model.forward(fed, slots, slots, view, cache, keep), cache.data))
    (whole, filled), (packed, kept) = found
    late, there = padding[:, -keep:], ~padding
    assert torch.equal(packed[~late], whole[~late]) and packed[late].eq(0).all()
    assert torch.equal(kept[:, :, 9 : 9 + nodes][:, there], filled[:, :, 9 : 9 + nodes][:, there])
    assert kept[:, :, 9 : 9 + nodes][:, padding].eq(0.5).all()


def test_a_token_that_does_not_exist_is_refused():
    model = load(build(), "compiled")
    slots, view = torch.tensor([[0]]), View(torch.tensor([0]), torch.ones(1, 1, 1).bool(), 1)
    for token, slot in ((61, 0), (-2, 0), (3, 50), (3, -1)):
        places = slots + slot
        with pytest.raises(IndexError, match="out of range"):
            model.forward(torch.tensor([[token]]), slots, places, view, model.new_cache(1, 9), 1)


def test_who_serves(monkeypatch):
    module = build()
    assert isinstance(load(module, "auto"), CompiledModel)
    assert isinstance(load(module, "fast"), FastModel)
    assert isinstance(load(module, "auto", torch.bfloat16), FastModel)
    narrow = build(head_dim=4)
    assert isinstance(load(narrow, "auto"), FastModel)
    with pytest.raises(ModelError, match="multiples of 8"):
        load(narrow, "compiled")
    with pytest.raises(ModelError, match="float32 on the CPU"):
        load(module, "compiled", torch.bfloat16)
    monkeypatch.setattr(loading, "SMALL", 0)
    assert isinstance(load(module, "auto"), FastModel) == (torch.get_num_threads() > 1)
    monkeypatch.undo()
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    assert isinstance(load(module, "auto"), FastModel)
    assert load(module, "auto").device == CPU


def test_code_is_compiled_where_it_cannot_be_kept(monkeypatch):
    def njit(cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: (function, options)

    monkeypatch.setattr(tiles, "njit", njit)
    assert compiled(abs) == (abs, {"nogil": True})
