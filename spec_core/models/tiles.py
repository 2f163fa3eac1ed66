"""Small matrix products and their like as vector code for one CPU core; knows no model.

Every output is one chain of fused multiply-adds in a fixed order, whatever is computed beside it:
a row's result has the same bits alone and among others. Addresses are bytes, sizes are floats.
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
PANEL = LANES * BYTES
SOON = 24 * PANEL  # how far ahead a panel that is read once brings itself nearer
machine: Any = intrinsic  # what it makes is called with fewer arguments than it is written with


def compiled(function: Callable, **options: Any) -> Any:
    """The function as machine code, kept on disk where there is a place for it."""
    try:
        return njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # neither beside the source nor in the user's cache can it be kept
        return njit(nogil=True, **options)(function)


def panels(weight: Array, bias: Array | None) -> Array:
    """W [out, in] and b as panels [out / 16, 1 + in, 16], flat; the first row holds the biases."""
    outputs, inputs = weight.shape
    table = np.zeros((-(-outputs // LANES) * LANES, 1 + inputs), np.float32)
    table[:outputs, 1:] = weight
    if bias is not None:
        table[:outputs, 0] = bias
    return table.reshape(-1, LANES, 1 + inputs).transpose(0, 2, 1).ravel()


def tile(rows: int, panels: int) -> Any:
    """x [rows, depth] times `panels` panels, each a row of biases and `depth` rows of weights.

    From three rows on memory from `near` on is brought nearer meanwhile, `step` bytes per row of
    weights; with fewer the core itself runs far enough ahead.
    """

    def write(
        e: Emitter, x: Any, stride: Any, panel: Any, depth: Any, out: Any, width: Any, near: Any,
        step: Any,
    ) -> None:  # fmt: skip
        size = e.builder.mul(e.builder.add(depth, e.number(1)), e.number(PANEL))
        inputs = [e.at(x, e.builder.mul(stride, e.number(row))) for row in range(rows)]
        sources = [e.builder.add(panel, e.builder.mul(size, e.number(j))) for j in range(panels)]
        start = [e.load(source) for source in sources] * rows

        def more(k: Any, sums: list) -> list:
            after = e.builder.add(k, e.number(1))
            weights = [e.load(e.at(source, after, PANEL)) for source in sources]
            for j in range(panels if rows > 2 else 0):
                start = e.builder.add(near, e.builder.mul(size, e.number(j)))
                e.fetch(e.builder.add(start, e.builder.mul(k, step)))
            values = [e.same(e.load(e.at(place, k), FLOAT)) for place in inputs]
            pairs = [(value, weight) for value in values for weight in weights]
            return [e.fused(*pair, total) for pair, total in zip(pairs, sums, strict=True)]

        for i, total in enumerate(e.repeat(depth, 1, start, more)):
            row, j = divmod(i, panels)
            place = e.at(out, e.builder.mul(width, e.number(row)))
            e.store(total, e.at(place, j, PANEL))

    @machine
    def kernel(context, x, stride, panel, depth, out, width, near, step):  # type: ignore[no-untyped-def]
        return types.void(*[types.intp] * 8), _code(write, LANES)

    return kernel


def _code(write: Callable, lanes: int) -> Callable:
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

    return types.float32(*[types.intp] * 3), _code(write, HALF)


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
        return types.void(*[types.intp] * 8), _code(write, HALF)

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

    return types.float32(types.intp, types.intp, types.float32), _code(write, LANES)


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
        return types.void(*[types.intp] * 9), _code(write, lanes)

    return kernel


@machine
def copy(context, source, target, count):  # type: ignore[no-untyped-def]
    """Floats from one place to another, count a multiple of 8."""

    def write(e: Emitter, source: Any, target: Any, count: Any) -> None:
        def more(i: Any, _: list) -> list:
            e.store(e.load(e.at(source, i)), e.at(target, i))
            return []

        e.repeat(count, HALF, [], more)

    return types.void(*[types.intp] * 3), _code(write, HALF)


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

    return types.void(*[types.intp] * 3), _code(write, LANES)


_ONE, _ONE4 = tile(1, 1), tile(1, 4)
_TWO, _TWO2 = tile(2, 1), tile(2, 2)
_THREE, _THREE2 = tile(3, 1), tile(3, 2)
_FOUR, _FIVE, _SIX = tile(4, 1), tile(5, 1), tile(6, 1)


@compiled
def _narrow(x, stride, rows, panel, depth, panels, out, width):  # type: ignore[no-untyped-def]
    """Up to three rows: several panels at a time, which hides the latency of each chain."""
    size, together, done = (depth + 1) * PANEL, 4 if rows == 1 else 2, 0
    while done < panels:
        many = done + together <= panels
        source, place = panel + done * size, out + done * PANEL
        near = source + SOON
        if rows == 1 and many:
            _ONE4(x, stride, source, depth, place, width, near, PANEL)
        elif rows == 1:
            _ONE(x, stride, source, depth, place, width, near, PANEL)
        elif rows == 2 and many:
            _TWO2(x, stride, source, depth, place, width, near, PANEL)
        elif rows == 2:
            _TWO(x, stride, source, depth, place, width, near, PANEL)
        elif many:
            _THREE2(x, stride, source, depth, place, width, near, PANEL)
        else:
            _THREE(x, stride, source, depth, place, width, near, PANEL)
        done += together if many else 1


@compiled
def product(x, stride, rows, panel, depth, panels, out, width):  # type: ignore[no-untyped-def]
    """out [rows, width] = x [rows, depth] W^T + b with W in panels of 16 outputs.

    Rows go in blocks of at most six, as alike as can be: as many sums as registers hold.
    """
    if rows <= 3:
        return _narrow(x, stride, rows, panel, depth, panels, out, width)
    size, blocks = (depth + 1) * PANEL, (rows + 5) // 6
    step = PANEL // blocks  # of several blocks each brings its share of the next panel
    for index in range(panels):
        source, done = panel + index * size, 0
        for left in range(blocks, 0, -1):
            take = (rows - done + left - 1) // left
            inputs, place = x + done * stride * BYTES, out + done * width * BYTES + index * PANEL
            near = source + (size + (blocks - left) * depth * step if blocks > 1 else SOON)
            if take == 6:
                _SIX(inputs, stride, source, depth, place, width, near, step)
            elif take == 5:
                _FIVE(inputs, stride, source, depth, place, width, near, step)
            elif take == 4:
                _FOUR(inputs, stride, source, depth, place, width, near, step)
            elif take == 3:
                _THREE(inputs, stride, source, depth, place, width, near, step)
            else:
                _TWO(inputs, stride, source, depth, place, width, near, step)
            done += take
    return None
