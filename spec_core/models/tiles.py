"""What attention and gates compute, as vector code for one CPU core; knows no model.

Addresses are bytes, sizes are floats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from spec_core.models.emitter import BYTES, FLOAT, INT, Emitter

Array = NDArray[np.float32]
LANES, HALF = 16, 8  # floats of a panel's row, and of the vectors along a head
machine: Any = intrinsic  # what it makes is called with fewer arguments than it is written with


def compiled(function: Callable, **options: Any) -> Any:
    """The function as machine code, kept on disk where there is a place for it."""
    try:
        return njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # neither beside the source nor in the user's cache can it be kept
        return njit(nogil=True, **options)(function)


def code(write: Callable, lanes: int) -> Callable:
    """What numba asks of an intrinsic."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        made = write(Emitter(builder, lanes), *args)
        return context.get_dummy_value() if made is None else made

    return generate


@machine
def dot(context, a, b, count):  # type: ignore[no-untyped-def]
    """Sum of a[i] b[i], count a multiple of 8."""

    def write(e: Emitter, a: Any, b: Any, count: Any) -> Any:
        def more(i: Any, sums: list) -> list:
            return [e.fused(e.load(e.at(a, i)), e.load(e.at(b, i)), sums[0])]

        return e.sum(e.repeat(count, HALF, [e.same(0.0)], more)[0])

    return types.float32(*[types.intp] * 3), code(write, HALF)


def dots(heads: int, step: int) -> Any:
    """out[h, i] = queries[h] . keys[slots[i] * stride] for heads side by side, four keys at a time.

    Heads are multiples of `step` wide, itself one of 8. Reads and writes up to three places beyond
    count, which must be slots and room. What most likely comes next, four slots on, is brought
    nearer: the core does not see through steps as long as those from key to key.
    """

    def write(
        e: Emitter, queries: Any, width: Any, keys: Any, stride: Any, slots: Any, count: Any,
        out: Any, room: Any,
    ) -> None:  # fmt: skip
        def four(i: Any, _: list) -> list:
            index = [e.builder.add(i, e.number(j)) for j in range(4)]
            found = [e.load(e.at(slots, j), ir.IntType(32)) for j in index]
            places = [e.at(keys, e.builder.mul(e.builder.sext(s, INT), stride)) for s in found]
            mine = [e.at(queries, e.builder.mul(width, e.number(h))) for h in range(heads)]
            soon = [e.at(place, stride, 4 * BYTES) for place in places]

            def more(start: Any, sums: list) -> list:
                for place in [e.at(place, start) for place in soon]:
                    for line in range(0, step, LANES):
                        e.fetch(e.at(place, line))
                for d in (e.builder.add(start, e.number(i)) for i in range(0, step, HALF)):
                    parts = [e.load(e.at(place, d)) for place in mine]
                    rows = [e.load(e.at(place, d)) for place in places]
                    pairs = zip([(part, row) for part in parts for row in rows], sums, strict=True)
                    sums = [e.fused(*pair, total) for pair, total in pairs]
                return sums

            sums = e.repeat(width, step, [e.same(0.0)] * (4 * heads), more)
            for n, total in enumerate(sums):
                start = e.at(out, e.builder.mul(room, e.number(n // 4)))
                e.store(e.sum(total), e.at(start, index[n % 4]))
            return []

        e.repeat(count, 4, [], four)

    @machine
    def kernel(context, queries, width, keys, stride, slots, count, out, room):  # type: ignore[no-untyped-def]
        return types.void(*[types.intp] * 8), code(write, HALF)

    return kernel


@machine
def soften(context, scores, count, scale):  # type: ignore[no-untyped-def]
    """Scores to e^(scale (score - highest)), in place; their sum. Behind count stands -inf."""

    def write(e: Emitter, scores: Any, count: Any, scale: Any) -> Any:
        def higher(i: Any, best: list) -> list:
            return [e.call("maxnum", e.load(e.at(scores, i)), best[0])]

        best = e.repeat(count, LANES, [e.same(float("-inf"))], higher)[0]
        kind = ir.FunctionType(FLOAT, [best.type])
        name = f"llvm.vector.reduce.fmax.{e.suffix}"
        top = e.same(e.builder.call(e.builder.module.declare_intrinsic(name, (), kind), [best]))
        slope = e.same(scale)

        def add(i: Any, total: list) -> list:
            score = e.builder.fsub(e.load(e.at(scores, i)), top)
            value = e.exp(e.builder.fmul(score, slope))
            e.store(value, e.at(scores, i))
            return [e.builder.fadd(total[0], value)]

        return e.sum(e.repeat(count, LANES, [e.same(0.0)], add)[0])

    return types.float32(types.intp, types.intp, types.float32), code(write, LANES)


def mix(heads: int, lanes: int) -> Any:
    """out[h, lanes] = shares[h] times the sum of weights[h, i] values[slots[i] * stride].

    What lies two slots on is brought nearer, as in `dots`.
    """

    def write(
        e: Emitter, weights: Any, room: Any, slots: Any, count: Any, values: Any, stride: Any,
        shares: Any, out: Any, width: Any,
    ) -> None:  # fmt: skip
        mine = [e.at(weights, e.builder.mul(room, e.number(h))) for h in range(heads)]

        def more(i: Any, sums: list) -> list:
            slot = e.builder.sext(e.load(e.at(slots, i), ir.IntType(32)), INT)
            place = e.at(values, e.builder.mul(slot, stride))
            row, soon = e.load(place), e.at(place, stride, 2 * BYTES)
            for line in range(0, lanes, LANES):
                e.fetch(e.at(soon, line))
            shares = [e.same(e.load(e.at(place, i), FLOAT)) for place in mine]
            return [e.fused(share, row, t) for share, t in zip(shares, sums, strict=True)]

        made = e.repeat(count, 1, [e.same(0.0)] * heads, more)
        for h, total in enumerate(made):
            share = e.same(e.load(e.at(shares, h), FLOAT))
            place = e.at(out, e.builder.mul(width, e.number(h)))
            e.store(e.builder.fmul(total, share), place)

    @machine
    def kernel(context, weights, room, slots, count, values, stride, shares, out, width):  # type: ignore[no-untyped-def]
        return types.void(*[types.intp] * 9), code(write, lanes)

    return kernel


@machine
def copy(context, source, target, count):  # type: ignore[no-untyped-def]
    """Floats from one place to another, count a multiple of 8."""

    def write(e: Emitter, source: Any, target: Any, count: Any) -> None:
        def more(i: Any, _: list) -> list:
            e.store(e.load(e.at(source, i)), e.at(target, i))
            return []

        e.repeat(count, HALF, [], more)

    return types.void(*[types.intp] * 3), code(write, HALF)


@machine
def swish(context, gate, up, count):  # type: ignore[no-untyped-def]
    """gate = gate / (1 + e^-gate) * up in place, count a multiple of 16."""

    def write(e: Emitter, gate: Any, up: Any, count: Any) -> None:
        def more(i: Any, _: list) -> list:
            b, value = e.builder, e.load(e.at(gate, i))
            below = b.fadd(e.exp(b.fneg(value)), e.same(1.0))
            e.store(b.fmul(b.fdiv(value, below), e.load(e.at(up, i))), e.at(gate, i))
            return []

        e.repeat(count, LANES, [], more)

    return types.void(*[types.intp] * 3), code(write, LANES)
