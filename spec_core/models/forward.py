"""The Llama-family forward as machine code for one CPU core; knows no checkpoints.

A token's logits have the same bits in prefill, in plain decoding and in a tree: every number is
summed in the order of what is seen, whatever else is computed beside it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types

from spec_core.models.attention import attention, see
from spec_core.models.emitter import BYTES
from spec_core.models.linked import linked
from spec_core.models.products import product
from spec_core.models.tiles import LANES, compiled, copy, dot, lay, swish
from spec_core.tree import NOTHING

INT, FLOAT = types.int64, types.float32


class Sizes(NamedTuple):
    """Widths in floats; `qkv` and `half` (a gate, or an up) are padded to whole panels."""

    hidden: int
    heads: int
    key_heads: int
    width: int  # of a head
    qkv: int
    inner: int
    half: int
    back: int  # hidden, padded
    vocab: int  # padded
    eps: float


class Numbers(NamedTuple):
    """All that a model knows, as arrays."""

    embedding: Any  # [vocabulary, hidden]
    rotation: Any  # [context, D] cosine and sine of each rotary pair
    panels: Any  # every matrix, flat
    starts: Any  # [layers + 1, 4] where each begins; the head alone in the last row
    windows: Any  # [layers] 0 where everything is seen
    norms: Any  # [layers, 2, D] of query and key heads; D = 0 where there are none


NUMBERS = (FLOAT[:, ::1], FLOAT[:, ::1], FLOAT[::1], INT[:, ::1], INT[::1], FLOAT[:, :, ::1])


class Keys(NamedTuple):
    """Where keys and values are: an address, and steps in floats."""

    address: int
    layer: int
    row: int
    slot: int


@compiled
def padded(size):  # type: ignore[no-untyped-def]
    """The next multiple of a panel's width."""
    return (size + LANES - 1) // LANES * LANES


@compiled
def _times(x, rows, depth, panels, start, out):  # type: ignore[no-untyped-def]
    """out = the first rows of x times the matrix that begins there."""
    if rows == 0:  # all that is wanted was padding
        return
    panel = panels.ctypes.data + start * BYTES
    width = out.shape[1]
    product(x.ctypes.data, x.shape[1], rows, panel, depth, width // LANES, out.ctypes.data, width)


@compiled
def _normal(x, rows, sizes, out):  # type: ignore[no-untyped-def]
    """Rows over the root of their square sum and a floor; the weights are folded elsewhere."""
    floor = np.float32(sizes.eps * sizes.hidden)
    for n in range(rows):
        place = x.ctypes.data + n * sizes.hidden * BYTES
        scale = np.float32(1) / np.sqrt(dot(place, place, sizes.hidden) + floor)
        for i in range(sizes.hidden):
            out[n, i] = x[n, i] * scale


@compiled
def _add(x, more, rows):  # type: ignore[no-untyped-def]
    """x += more, in the first rows."""
    for n in range(rows):
        for i in range(x.shape[1]):
            x[n, i] += more[n, i]


@compiled
def _turn(row, rotation, norms, sizes):  # type: ignore[no-untyped-def]
    """Query and key heads of a row: normalised where the family does so, rotary pairs turned."""
    width, eps = sizes.width, np.float32(sizes.eps)
    for h in range(sizes.heads + sizes.key_heads):
        start = h * width
        if norms.shape[1]:
            place, norm = row.ctypes.data + start * BYTES, norms[0 if h < sizes.heads else 1]
            scale = np.float32(1) / np.sqrt(dot(place, place, width) / np.float32(width) + eps)
            for i in range(width):
                row[start + i] = row[start + i] * scale * norm[i]
        for i in range(0, width, 2):
            a, b, c, s = row[start + i], row[start + i + 1], rotation[i], rotation[i + 1]
            row[start + i], row[start + i + 1] = a * c - b * s, a * s + b * c


@compiled
def _there(tokens):  # type: ignore[no-untyped-def]
    """Where among tokens [B, Q] those are that are no padding: a row of all that follows each."""
    places, count = np.empty(tokens.size, np.int64), 0
    for n in range(tokens.size):
        if tokens[divmod(n, tokens.shape[1])] != NOTHING:
            places[count] = n
            count += 1
    return places[:count]


@compiled
def _enter(places, tokens, positions, slots, embedding, placed):  # type: ignore[no-untyped-def]
    """The embedded tokens [rows, hidden]; their positions are noted."""
    x = np.empty((len(places), embedding.shape[1]), np.float32)
    for n in range(len(x)):
        b, q = divmod(places[n], tokens.shape[1])
        token, slot = tokens[b, q], slots[b, q]
        if not (0 <= token < len(embedding) and 0 <= slot < placed.shape[1]):
            raise IndexError("a token or a slot is out of range")
        lay(embedding[token], x[n])
        placed[b, slot] = positions[b, q]
    return x


@compiled
def _leave(logits, rows, places, queries, keep):  # type: ignore[no-untyped-def]
    """The first rows to where they belong among logits [B * keep, V]; padding has 0."""
    for n in range(len(logits) - 1, -1, -1):
        b, q = divmod(n, keep)
        if rows and places[rows - 1] == (b + 1) * queries - keep + q:
            rows -= 1
            if rows < n:
                lay(logits[rows], logits[n])
        else:
            logits[n] = 0


@compiled
def _store(qkv, places, positions, slots, store, keys, layer, numbers, sizes):  # type: ignore[no-untyped-def]
    """Turn queries and keys; keys and values go to their slots."""
    queries, start = positions.shape[1], sizes.heads * sizes.width
    for n in range(len(qkv)):
        b, q = divmod(places[n], queries)
        _turn(qkv[n], numbers.rotation[positions[b, q]], numbers.norms[layer], sizes)
        place = store + (b * keys.row + slots[b, q] * keys.slot) * BYTES
        source = qkv.ctypes.data + (n * sizes.qkv + start) * BYTES
        copy(source, place, 2 * sizes.key_heads * sizes.width)


@linked(
    *[INT[:, ::1]] * 3, types.Tuple((INT[::1], types.boolean[:, :, ::1], INT)), INT[:, ::1], INT,
    types.NamedUniTuple(INT, 4, Keys), types.NamedTuple(NUMBERS, Numbers),
    types.NamedTuple([INT] * 9 + [types.float64], Sizes),
)  # fmt: skip
def logits_of(tokens, positions, slots, view, placed, keep, keys, numbers, sizes):  # type: ignore[no-untyped-def]
    """Logits [B * keep, padded vocabulary] of the last `keep` queries of each text."""
    places = _there(tokens)
    x = _enter(places, tokens, positions, slots, numbers.embedding, placed)
    rows, queries, layers = len(x), tokens.shape[1], len(numbers.windows)
    normal, qkv = np.empty_like(x), np.empty((rows, sizes.qkv), np.float32)
    mixed = np.empty((rows, sizes.heads * sizes.width), np.float32)
    gates = np.empty((rows, 2 * sizes.half), np.float32)
    made = np.empty((rows, sizes.back), np.float32)
    seen = see(places, positions, view, numbers.windows[0], placed)
    for layer in range(layers):
        if layer and numbers.windows[layer] != numbers.windows[layer - 1]:
            seen = see(places, positions, view, numbers.windows[layer], placed)
        _normal(x, rows, sizes, normal)
        _times(normal, rows, sizes.hidden, numbers.panels, numbers.starts[layer, 0], qkv)
        store = keys.address + layer * keys.layer * BYTES
        _store(qkv, places, positions, slots, store, keys, layer, numbers, sizes)
        first = queries - keep if layer + 1 == layers else 0  # the others are needed by nobody
        rows = attention(qkv, places, store, keys, seen, first, queries, sizes, x, mixed)
        _times(mixed, rows, mixed.shape[1], numbers.panels, numbers.starts[layer, 1], made)
        _add(x, made, rows)
        _normal(x, rows, sizes, normal)
        _times(normal, rows, sizes.hidden, numbers.panels, numbers.starts[layer, 2], gates)
        for n in range(rows):
            gate = gates.ctypes.data + n * gates.shape[1] * BYTES
            swish(gate, gate + sizes.half * BYTES, sizes.half)
        _times(gates, rows, sizes.inner, numbers.panels, numbers.starts[layer, 3], made)
        _add(x, made, rows)
    logits = np.empty((len(tokens) * keep, sizes.vocab), np.float32)
    _normal(x, rows, sizes, normal)
    _times(normal, rows, sizes.hidden, numbers.panels, numbers.starts[layers, 0], logits)
    _leave(logits, rows, places, queries, keep)
    return logits


@compiled
def forward(inputs, prefix, ancestors, placed, counts, arrays, widths):  # type: ignore[no-untyped-def]
    """`logits_of` on plain tuples: those with names take long to hand over."""
    span, keep, address, layer, row, slot = counts
    keys, numbers = Keys(address, layer, row, slot), Numbers(*arrays)
    sizes = Sizes(*widths)
    tokens, positions, slots = inputs
    return logits_of(
        tokens, positions, slots, (prefix, ancestors, span), placed, keep, keys, numbers, sizes
    )
