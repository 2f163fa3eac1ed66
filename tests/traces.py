"""Recordings of tiny pairs, invented recordings, and a cost table of round numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from small import Letters, pair_of

from envs.cost import Costs
from envs.recorder import Recorder
from envs.shapes import Shape
from envs.shards import Meta, Text
from envs.trace import Trace, assemble
from spec_core import Menu, Pair

SMALL = Menu.of(["ar", "chain-2", "chain-5@0.2", "beam-3x2n4"])


def prompts(count: int) -> list[dict[str, str]]:
    """Texts of 1, 4, 7, ... letters in two domains."""
    lines = [[(7 * i + 3 * k * k) % 61 for k in range(1 + 3 * i)] for i in range(count)]
    texts = ["".join(chr(48 + token) for token in line) for line in lines]
    return [{"id": f"p{i}", "domain": "ab"[i % 2], "prompt": t} for i, t in enumerate(texts)]


def lettered(kind: str = "near", eos: tuple[int, ...] = ()) -> Pair:
    """A tiny pair with a tokenizer."""
    return pair_of(kind, tokenizer=Letters(), eos=frozenset(eos))


def meta_of(pair: Pair, menu: Menu = SMALL, **fields) -> Meta:
    """The description of a recording of this pair."""
    reach = pair.drafter.max_context
    return Meta(menu, "tiny", **{"reach": reach, "max_new_tokens": 10, "seed": 5, **fields})


def recorded(pair: Pair, menu: Menu = SMALL, count: int = 3, rows: int = 4, **fields) -> Trace:
    """A recording in memory."""
    meta = meta_of(pair, menu, **fields)
    return assemble(meta, list(Recorder(pair, meta, rows).record(prompts(count))))


def grained(lengths: np.ndarray) -> np.ndarray:
    """The lengths that stand for those of texts, by a table up to 64 tokens or more."""
    return lengths // 16 * 16 + 8


def invented(accepted: list[np.ndarray], menu: Menu | None = None, spare: int = 50) -> Trace:
    """Texts where plan m accepts accepted[text][position, m]; a token before each text."""
    counts = np.array([len(a) for a in accepted])
    plans = accepted[0].shape[1]
    menu = menu or Menu.of(["ar", *(f"chain-{m}" for m in range(1, plans))])
    zeros = np.zeros((counts.sum(), plans), np.uint8)
    shapes = dict.fromkeys(Shape._fields, zeros) | {"accepted": np.concatenate(accepted)}
    told = counts + int(shapes["accepted"].max())
    return Trace(
        Meta(menu, "invented", reach=1000),
        [Text(f"t{i}", "ab"[i % 2], str(i)) for i in range(len(counts))],
        prompt=np.ones(len(counts), int), limit=1 + counts + spare, count=counts, told_count=told,
        told=np.zeros((told.sum(), 4), np.float32), tokens=np.zeros(told.sum(), int),
        shapes=shapes, known=(), pools=[],
    )  # fmt: skip


def costs_of(batches: tuple[int, ...] = (1,), **changes) -> Costs:
    """A table where widths, levels, nodes and batches cost round numbers of seconds."""
    contexts, widths = [16, 64], [1, 2, 4]
    levels, nodes = list(range(1, 21)), [1, 2, 4, 8, 16, 32]
    size, context, width, level = np.ix_(batches, contexts, widths, levels)
    draft = (1000.0 * size + context + 0.1 * width) * level
    verify = 10.0 * np.ix_(batches)[0][:, None, None] + np.array(nodes) * np.array([[1.0], [2.0]])
    costs = Costs(
        {"device": "round"}, True, False, list(batches), contexts, widths, levels, nodes,
        draft, verify, verify[0] / 2,
        *(np.full(len(batches), price) for price in (0.5, 0.25, 0.03)), 0.1, 7.0,
    )  # fmt: skip
    return replace(costs, **changes)
