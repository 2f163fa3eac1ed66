"""What queries take from the keys and values they see, as vector code for one CPU core.

A query's result has the same bits alone and among others: rows of a text that see the same slots
read them side by side, but every sum keeps its order. Addresses are bytes, sizes are floats.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from spec_core.models.emitter import BYTES, FLOAT, INT, Emitter
from spec_core.models.products import WIDE
from spec_core.models.tiles import HALF, LANES, code, compiled, copy, lay, machine, soften

TOGETHER = 4 if WIDE else 2  # queries that read a key side by side
KEYS = 4 if WIDE else 2  # keys that a query reads side by side
BLOCK = 64 if WIDE else 32  # floats of a value that are summed side by side
AHEAD = 16  # how many slots on memory is brought nearer: the core sees no steps as long as theirs


def _places(e: Emitter, start: Any, slots: Any, stride: Any, first: Any, count: int) -> list:
    """The addresses of so many slots, from a place in their list on."""
    index = [e.builder.add(first, e.number(i)) for i in range(count)]
    found = [e.builder.sext(e.load(e.at(slots, i), ir.IntType(32)), INT) for i in index]
    return [e.at(start, e.builder.mul(slot, stride)) for slot in found]


def dots(queries: int, lanes: int) -> Any:
    """out[q, i] = queries[q] . keys[slots[i] * stride] for queries side by side.

    Widths are multiples of `lanes`. Reads and writes up to three places beyond count, which must be
    slots and room.
    """

    def write(
        e: Emitter, mine: Any, width: Any, keys: Any, stride: Any, slots: Any, count: Any,
        out: Any, room: Any,
    ) -> None:  # fmt: skip
        rows = [e.at(mine, e.builder.mul(width, e.number(q))) for q in range(queries)]

        def some(i: Any, _: list) -> list:
            places = _places(e, keys, slots, stride, i, KEYS)
            soon = [e.at(place, stride, AHEAD * BYTES) for place in places]

            def more(d: Any, sums: list) -> list:
                for place in soon:
                    e.fetch(e.at(place, d))
                parts = [e.load(e.at(place, d)) for place in places]
                pairs = [(e.load(e.at(row, d)), part) for row in rows for part in parts]
                return [e.fused(*pair, s) for pair, s in zip(pairs, sums, strict=True)]

            sums = e.repeat(width, lanes, [e.same(0.0)] * (queries * KEYS), more)
            for q in range(queries):
                place = e.at(out, e.builder.mul(room, e.number(q)))
                e.store(e.sums(sums[q * KEYS : (q + 1) * KEYS]), e.at(place, i))
            return []

        e.repeat(count, KEYS, [], some)

    @machine
    def kernel(context, mine, width, keys, stride, slots, count, out, room):  # type: ignore[no-untyped-def]
        return types.void(*[types.intp] * 8), code(write, lanes)

    return kernel


def mix(queries: int, lanes: int) -> Any:
    """out[q, lanes] += the sum of weights[q, i] values[slots[i] * stride]."""

    def write(
        e: Emitter, weights: Any, room: Any, slots: Any, count: Any, values: Any, stride: Any,
        out: Any, width: Any,
    ) -> None:  # fmt: skip
        mine = [e.at(weights, e.builder.mul(room, e.number(q))) for q in range(queries)]
        made = [e.at(out, e.builder.mul(width, e.number(q))) for q in range(queries)]

        def more(i: Any, sums: list) -> list:
            place = _places(e, values, slots, stride, i, 1)[0]
            row, soon = e.load(place), e.at(place, stride, AHEAD * BYTES)
            for line in range(0, lanes, LANES):
                e.fetch(e.at(soon, line))
            shares = [e.same(e.load(e.at(start, i), FLOAT)) for start in mine]
            return [e.fused(share, row, s) for share, s in zip(shares, sums, strict=True)]

        sums = e.repeat(count, 1, [e.load(place) for place in made], more)
        for place, total in zip(made, sums, strict=True):
            e.store(total, place)

    @machine
    def kernel(context, weights, room, slots, count, values, stride, out, width):  # type: ignore[no-untyped-def]
        return types.void(*[types.intp] * 8), code(write, lanes)

    return kernel


_DOTS, _DOTS1, _DOTS2, _DOTS4 = dots(1, HALF), dots(1, LANES), dots(2, LANES), dots(4, LANES)
_MIX, _MIX1, _MIX2, _MIX4 = mix(1, HALF), mix(1, BLOCK), mix(2, BLOCK), mix(4, BLOCK)


@compiled
def _scores(many, width, queries, keys, stride, slots, count, out, room):  # type: ignore[no-untyped-def]
    """Products of queries [many, width] with the same keys."""
    done = 0
    while done < many and count > 0:
        mine, place, left = queries + done * width * BYTES, out + done * room * BYTES, many - done
        if width % LANES:
            _DOTS(mine, width, keys, stride, slots, count, place, room)
            done += 1
        elif left >= 4 and TOGETHER == 4:
            _DOTS4(mine, width, keys, stride, slots, count, place, room)
            done += 4
        elif left >= 2:
            _DOTS2(mine, width, keys, stride, slots, count, place, room)
            done += 2
        else:
            _DOTS1(mine, width, keys, stride, slots, count, place, room)
            done += 1


@compiled
def _mixture(many, width, weights, room, slots, count, values, stride, out):  # type: ignore[no-untyped-def]
    """Add the weighted sums of the same values to out [many, width]."""
    done = 0
    while done < many and count > 0:
        mine, left = weights + done * room * BYTES, many - done
        take = 4 if left >= 4 and TOGETHER == 4 else 2 if left >= 2 else 1
        d = 0
        while d < width:
            source, place = values + d * BYTES, out + (done * width + d) * BYTES
            if d + BLOCK > width:
                for q in range(take):
                    more, target = mine + q * room * BYTES, place + q * width * BYTES
                    _MIX(more, room, slots, count, source, stride, target, width)
                d += HALF
                continue
            if take == 4:
                _MIX4(mine, room, slots, count, source, stride, place, width)
            elif take == 2:
                _MIX2(mine, room, slots, count, source, stride, place, width)
            else:
                _MIX1(mine, room, slots, count, source, stride, place, width)
            d += BLOCK
        done += take


@compiled
def _attend(query, keys, slot, seen, counts, shared, sizes, out):  # type: ignore[no-untyped-def]
    """All heads of some rows of a text over the slots they see, the first `shared` of all the same.

    query, keys and out are addresses: of rows of `sizes.qkv`, and of heads side by side.
    """
    width, groups, rows = sizes.width, sizes.heads // sizes.key_heads, len(counts)
    many, room = rows * groups, 2 * LANES
    for count in counts:
        room = max(room, count + 2 * LANES)
    both = np.empty((2, many, width), np.float32)  # queries, and what is summed for them
    scores, totals = np.empty((many, room), np.float32), np.empty(many, np.float32)
    mine, made, weights = both.ctypes.data, both[1].ctypes.data, scores.ctypes.data
    scale, slots = np.float32(1) / np.sqrt(np.float32(width)), seen.ctypes.data
    step, line = groups * width * BYTES, groups * room * BYTES  # from row to row
    for head in range(sizes.key_heads):
        source = keys + head * width * BYTES
        values = source + sizes.key_heads * width * BYTES
        for r in range(rows):
            copy(query + r * sizes.qkv * BYTES + head * step, mine + r * step, groups * width)
        _scores(many, width, mine, source, slot, slots, shared, weights, room)
        for r in range(rows):
            own, more = slots + (r * seen.shape[1] + shared) * 4, counts[r] - shared
            place = weights + r * line + shared * BYTES
            _scores(groups, width, mine + r * step, source, slot, own, more, place, room)
        both[1] = 0
        for q in range(many):
            count = counts[q // groups]
            for i in range(count, count + LANES):
                scores[q, i] = -np.inf
            totals[q] = soften(weights + q * room * BYTES, count, scale)
        _mixture(many, width, weights, room, slots, shared, values, slot, made)
        for r in range(rows):
            own, more = slots + (r * seen.shape[1] + shared) * 4, counts[r] - shared
            place = weights + r * line + shared * BYTES
            _mixture(groups, width, place, room, own, more, values, slot, made + r * step)
        for q in range(many):
            share = np.float32(1) / totals[q]
            for i in range(width):
                both[1, q, i] *= share
        for r in range(rows):
            copy(made + r * step, out + r * sizes.key_heads * step + head * step, groups * width)


@compiled
def attention(qkv, places, store, keys, seen, first, queries, sizes, x, mixed):  # type: ignore[no-untyped-def]
    """Every row's attention; those before the `first` of each text are dropped. Rows kept."""
    most = max(1, TOGETHER * sizes.key_heads // sizes.heads)
    n, rows, (slots, counts, common) = 0, 0, seen
    while n < len(qkv):
        b, q = divmod(places[n], queries)
        if q < first:
            n += 1
            continue
        stop, shared = n + 1, counts[n]
        while stop < len(qkv) and stop < n + most and common[stop]:
            shared = min(shared, common[stop])
            stop += 1
        query = qkv.ctypes.data + n * sizes.qkv * BYTES
        mine = store + b * keys.row * BYTES
        out = mixed.ctypes.data + rows * mixed.shape[1] * BYTES
        if shared:
            _attend(query, mine, keys.slot, slots[n:stop], counts[n:stop], shared, sizes, out)
        else:
            mixed[rows] = 0
        for row in range(n, stop):
            lay(x[row], x[rows])
            places[rows] = places[row]
            rows += 1
        n = stop
    return rows


@compiled
def see(places, positions, view, window, placed):  # type: ignore[no-untyped-def]
    """Per row the slots it sees, rising, their count, and how many of the first are those of the
    row before, in the same text; placed: [B, slots] positions.
    """
    prefix, ancestors, span = view
    slots = np.zeros((len(places), span + 4), np.int32)
    counts, common = np.zeros(len(places), np.int64), np.zeros(len(places), np.int64)
    for n in range(len(places)):
        b, q = divmod(places[n], positions.shape[1])
        block, first, count = ancestors[min(b, len(ancestors) - 1)], prefix[b], 0
        for s in range(min(span, first + block.shape[1])):
            near = window == 0 or positions[b, q] - placed[b, s] < window
            if near and (s < first or block[q, s - first]):
                slots[n, count] = s
                count += 1
        counts[n] = count
        if n and places[n - 1] // positions.shape[1] == b:
            most = min(count, counts[n - 1])
            while common[n] < most and slots[n, common[n]] == slots[n - 1, common[n]]:
                common[n] += 1
    return slots, counts, common
