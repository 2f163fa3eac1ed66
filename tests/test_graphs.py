"""Forwards over fixed memory give what direct ones give, and a recording may rely on the memory."""

from __future__ import annotations

import gc
import random
from functools import cache
from itertools import pairwise

import pytest
import torch
from small import Mixed, build, closure, drafter, load, pair_of, random_parents, target
from torch.utils._python_dispatch import TorchDispatchMode

from spec_core import (
    AUTOREGRESSIVE,
    Fixed,
    Pair,
    Plan,
    SpeculativeDecoder,
    Template,
    load_pair,
)
from spec_core.drafters.lm import ModelDrafter, prefill
from spec_core.graphs import QUERIES, Lease, Static, span_bucket, static
from spec_core.models.base import ModelError, View
from spec_core.models.compiled import CompiledModel
from spec_core.models.fast import FastModel
from spec_core.rows import Torch
from spec_core.tree import Tree
from spec_core.verifiers import coupled

HOST_READS = ("_local_scalar_dense", "nonzero", "lift_fresh", "is_nonzero", "item", "equal")
PROMPTS = [[1, 2, 3], [5], [7, 8, 9, 10, 11]]
PLANS = [
    Plan(4),
    Plan(4, width=3, budget=40),
    Plan(5, width=2, budget=10, frontier="best"),
    Plan(6, budget=7, threshold=0.2),
    Plan.of(Template((0, 0, 1, 1, 2, 3, 6), (0, 1, 0, 1, 0, 0, 1))),
]


class Trace(TorchDispatchMode):
    """The operations that were run."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.seen.add(function.overloadpacket.__name__)
        return function(*arguments, **(options or {}))


class Replayed:
    """Records as a GPU does: one output memory for all shapes, which any later replay destroys."""

    def __init__(self) -> None:
        self.recorded, self.memory = 0, torch.empty(0)

    def __call__(self, run):
        self.recorded += 1
        with Trace() as trace:
            size = run().shape
        assert not trace.seen & set(HOST_READS)

        def replay():
            self.memory.fill_(torch.nan)
            logits = run()
            assert logits.shape == size
            if self.memory.numel() < logits.numel():
                self.memory = torch.empty(logits.numel(), dtype=logits.dtype)
            out = self.memory[: logits.numel()].view(size)
            return out.copy_(logits)

        return replay


def block(model, cache, parents, texts, seed: int):
    """A forward's inputs: a random tree behind each of some texts."""
    chance = torch.Generator().manual_seed(seed)
    base = torch.tensor([[len(text)] for text in texts])
    seen = torch.stack([closure(p) for p in parents])
    nodes = seen.shape[1]
    tokens = torch.randint(model.vocab_size, (len(texts), nodes), generator=chance)
    view = View(base[:, 0], seen, span=max(map(len, texts)) + nodes)
    return tokens, base + seen.sum(2) - 1, base + torch.arange(nodes), view, cache, nodes


def tail(inputs, count: int):
    """The same for the last `count` nodes: a draft level behind those before."""
    view, cache = inputs[3:5]
    view = View(view.prefix, view.ancestors[:, -count:], view.span)
    return *(part[:, -count:].contiguous() for part in inputs[:3]), view, cache, count


def everybody_sees_something(model: FastModel, arena) -> bool:
    """Whether no query of the buffers, padding included, is masked out: that would be a NaN."""
    for shape, step in arena.steps.items():
        kept = arena.rows(shape.start, shape.stop)
        first = torch.arange(kept.batch)[:, None] * kept.slots
        view = View(step.prefix, step.ancestors, shape.span)
        masks = model._masks(step.positions, (step.slots + first).flatten(), view, kept)
        if not all((mask == 0).any(-1).all() for mask in masks.values()):
            return False
    return True


@cache
def models(case: str) -> tuple[FastModel, Static]:
    """A fast model and the same over fixed memory."""
    families = {"plain": "Llama", "windows": "Mistral", "bfloat16": "Llama"}
    sizes = {"sliding_window": 9} if case == "windows" else {}
    dtype = torch.bfloat16 if case == "bfloat16" else torch.float32
    module = build(families[case], max_position_embeddings=512, **sizes)
    model = load(module, "fast", dtype=dtype)
    assert isinstance(model, FastModel)
    return model, Static(model, Replayed(), smallest=16)


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("case", ["plain", "windows", "bfloat16"])
def test_logits_are_those_of_a_direct_forward(case, batch):
    model, fixed = models(case)
    chance, tolerance = random.Random(batch), 3e-2 if case == "bfloat16" else 1e-5
    for turn in range(4):
        texts = [
            [chance.randrange(61) for _ in range(chance.choice([0, 0, 1, 7, 40, 150]))]
            for _ in range(batch)
        ]
        caches = [m.new_cache(batch, 300) for m in (model, fixed)]
        for row, text in enumerate(texts):
            for m, kept in zip((model, fixed), caches, strict=True):
                prefill(m, kept, row, text, 0, chunk=50)
        for nodes in (chance.choice([1, 2, 3, 5, 8, 9, 31, 64, 100]), 3, 1, 4):
            parents = [random_parents(nodes, chance.randrange(99)) for _ in texts]
            for last in (nodes, chance.randint(1, nodes), 1):
                direct, found = (
                    m.forward(*tail(block(m, kept, parents, texts, turn), last))
                    for m, kept in zip((model, fixed), caches, strict=True)
                )
                assert found.shape == direct.shape == (batch, last, 61)
                scale = direct.abs().max()
                assert (found - direct).abs().max() <= tolerance * scale
                close = direct.topk(2).values.diff().abs()[..., 0] <= 2 * tolerance * scale
                assert (close | (found.argmax(-1) == direct.argmax(-1))).all()
            assert everybody_sees_something(model, caches[1].arena)
            for row, text in enumerate(texts):  # what the texts' slots hold was not touched
                mine, right = (kept.data[:, row, : len(text)] for kept in caches[::-1])
                assert torch.allclose(mine, right, atol=tolerance * 10)
    assert fixed.recorder.recorded > 4


@torch.no_grad()
def test_what_is_recorded_reads_nothing_on_the_host_and_only_fixed_memory():
    _, fixed = models("plain")
    kept = fixed.new_cache(1, 60)
    text = [3, 1, 4, 1, 5]
    prefill(fixed, kept, 0, text, 0)
    inputs = block(fixed, kept, [random_parents(6, 1)], [text], 0)
    fixed.forward(*inputs)
    step = next(iter(kept.arena.steps.values()))
    before = [t.data_ptr() for t in (step.tokens, step.positions, step.slots, step.prefix)]
    with Trace() as trace:
        fixed.forward(*inputs)
    assert "mm" in trace.seen or "addmm" in trace.seen or "_linear_pointwise" in trace.seen
    assert not trace.seen & set(HOST_READS)
    after = [t.data_ptr() for t in (step.tokens, step.positions, step.slots, step.prefix)]
    assert before == after


@torch.no_grad()
def test_logits_outlive_the_next_forward():
    _, fixed = models("plain")
    kept = fixed.new_cache(1, 60)
    prefill(fixed, kept, 0, [1, 2, 3], 0)
    inputs = block(fixed, kept, [random_parents(4, 1)], [[1, 2, 3]], 0)
    for _ in range(3):
        first = fixed.forward(*inputs)
    copy = first.clone()
    fixed.forward(*block(fixed, kept, [random_parents(4, 2)], [[1, 2, 3]], 5))
    assert torch.equal(first, copy)


def static_pair(kind: str) -> Pair:
    """One of the tests' pairs over fixed memory."""
    recorded = Static(target("fast"), Replayed(), smallest=16)
    return Pair(
        recorded, ModelDrafter(Static(drafter(kind, "fast").model, Replayed(), smallest=16))
    )


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["near", "same"])
def test_texts_are_the_same(kind, temperature):
    options = {"max_new_tokens": 24, "seed": 3, "temperature": temperature}
    right = SpeculativeDecoder(pair_of(kind, "fast"), Fixed(AUTOREGRESSIVE)).generate(
        PROMPTS, **options
    )
    pair = static_pair(kind)
    for policy in [*map(Fixed, [AUTOREGRESSIVE, *PLANS]), Mixed(PLANS, levels=True, trims=True)]:
        decoder = SpeculativeDecoder(pair, policy)
        assert decoder.generate(PROMPTS, **options).tokens == right.tokens
        assert decoder.generate(PROMPTS[:1], **options).tokens == right.tokens[:1]
    assert pair.target.recorder.recorded > 10


@pytest.mark.filterwarnings("ignore:__array_wrap__")  # the host's noise is an array
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("plan", PLANS)
def test_far_from_the_host_a_cycle_uploads_first_and_reads_once(monkeypatch, plan, temperature):
    """A GPU's way, as far as a CPU can go it: torch's walk, and roots before the forwards."""
    reads, read = [], Tree.read
    monkeypatch.setattr(Tree, "read", lambda *parts: reads.append(parts) or read(*parts))
    monkeypatch.setattr(coupled, "rows", lambda cpu: Torch())
    options = {"max_new_tokens": 12, "seed": 3, "temperature": temperature}
    right = SpeculativeDecoder(pair_of("near", "fast"), Fixed(AUTOREGRESSIVE))
    texts = right.generate(PROMPTS, **options).tokens
    decoder = SpeculativeDecoder(static_pair("near"), Fixed(plan))
    session = decoder.open(PROMPTS, **options)
    session.near, before, order = False, len(reads), []
    upload, forward = session.verifier.prepare, session.score
    monkeypatch.setattr(
        session.verifier, "prepare", lambda *parts: order.append("upload") or upload(*parts)
    )
    monkeypatch.setattr(session, "score", lambda tree: order.append("score") or forward(tree))
    decoder.run(session)
    assert [sequence.new for sequence in session.sequences] == texts
    assert len(reads) - before == session.cycles
    assert order == ["upload", "score"] * session.cycles


def test_memory_serves_the_next_session_and_no_two_at_once():
    fixed = Static(target("fast"), smallest=16)
    first, second = fixed.new_cache(2, 20), fixed.new_cache(2, 20)
    assert first.arena is not second.arena and len(fixed.arenas) == 2
    arena, row = first.arena, first.rows(1, 2)
    del first
    assert fixed.new_cache(1, 9).arena is not arena  # one of its rows is still held
    row.data.fill_(torch.nan)
    del row
    third = fixed.new_cache(2, 20)
    assert third.arena is arena and len(fixed.arenas) == 3
    assert (arena.whole.data == 0).all()  # a NaN there would come through every mask
    assert fixed.new_cache(2, 200).arena.slots >= 201


def test_no_more_memory_is_kept_than_a_few_sessions_need():
    fixed = Static(target("fast"), smallest=16)
    for slots in range(20, 400, 30):
        fixed.new_cache(1, slots)
    assert len(fixed.arenas) <= 4
    gc.disable()  # the arena must not wait for the collector
    lease: Lease | None = fixed.new_cache(1, 500)
    arena = lease.arena if lease else None
    lease = None
    gc.enable()
    assert arena is not None and arena.free


def test_sizes_are_few_and_not_much_larger_than_asked():
    spans = [span_bucket(n) for n in range(1, 8193)]
    assert all(s >= n for n, s in enumerate(spans, 1))
    assert all(s < 1.5 * n for n, s in enumerate(spans, 1) if n > 256)
    assert spans == sorted(spans) and len(set(spans)) == 12 and {s % 64 for s in spans} == {0}
    assert QUERIES[0] == 1 and all(b == 2 * a for a, b in pairwise(QUERIES))


def test_the_choice_is_made_at_load():
    model = target("fast")
    assert static(model) is model and static(model, "off") is model
    assert isinstance(static(model, "static"), Static)
    assert static(target("hf"), "static") is target("hf")
    with pytest.raises(ModelError, match="graphs must be"):
        static(model, "on")  # type: ignore[arg-type]
    pair, plain = load_pair(graphs="static"), load_pair()
    assert isinstance(pair.target, Static) and isinstance(plain.target, CompiledModel)
    assert pair.eos == plain.eos and pair.target.config is not None
    texts = [
        SpeculativeDecoder(p).generate("def add(a, b):", max_new_tokens=20).text
        for p in (pair, plain)
    ]
    assert texts[0] == texts[1]
