"""Small matrix products as vector code for one CPU core; knows no model.

Every output is one chain of fused multiply-adds in a fixed order, whatever is computed beside it:
a row's result has the same bits alone and among others, on a core with many registers or with few.
Addresses are bytes, sizes are floats.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import binding
from numba import types
from numpy.typing import NDArray

from spec_core.models.emitter import BYTES, FLOAT, Emitter
from spec_core.models.tiles import LANES, code, compiled, machine

Array = NDArray[np.float32]
PANEL = LANES * BYTES
WIDE = bool(binding.get_host_cpu_features().get("avx512f"))  # 32 registers, a panel's row in each
HELD = 28 if WIDE else 6  # sums that registers hold, beside weights
MOST = 7 if WIDE else 6  # rows of a block
EASY = 6  # of more blocks, which do not wait for memory: a register is left for a number of x
SOON = 24 * PANEL  # how far ahead a panel that is read once brings itself nearer


def panels(weight: Array, bias: Array | None) -> Array:
    """W [out, in] and b as panels [out / 16, 1 + in, 16], flat; the first row holds the biases."""
    outputs, inputs = weight.shape
    table = np.zeros((-(-outputs // LANES) * LANES, 1 + inputs), np.float32)
    table[:outputs, 1:] = weight
    if bias is not None:
        table[:outputs, 0] = bias
    return table.reshape(-1, LANES, 1 + inputs).transpose(0, 2, 1).ravel()


def _tile(e: Emitter, rows: int, panels: int, places: tuple) -> None:
    """x [rows, depth] times `panels` panels, each a row of biases and `depth` rows of weights."""
    x, stride, panel, depth, out, width, near, step = places
    size = e.builder.mul(e.builder.add(depth, e.number(1)), e.number(PANEL))
    inputs = [e.at(x, e.builder.mul(stride, e.number(row))) for row in range(rows)]
    sources = [e.builder.add(panel, e.builder.mul(size, e.number(j))) for j in range(panels)]

    def more(k: Any, sums: list) -> list:
        after = e.builder.add(k, e.number(1))
        weights = [e.load(e.at(source, after, PANEL)) for source in sources]
        for j in range(panels if WIDE or rows > 2 else 0):
            start = e.builder.add(near, e.builder.mul(size, e.number(j)))
            e.fetch(e.builder.add(start, e.builder.mul(k, step)))
        values = [e.same(e.load(e.at(place, k), FLOAT)) for place in inputs]
        pairs = [(value, weight) for value in values for weight in weights]
        return [e.fused(*pair, total) for pair, total in zip(pairs, sums, strict=True)]

    for i, total in enumerate(e.repeat(depth, 1, [e.load(s) for s in sources] * rows, more)):
        row, j = divmod(i, panels)
        place = e.at(out, e.builder.mul(width, e.number(row)))
        e.store(total, e.at(place, j, PANEL))


def block(panels: int) -> Any:
    """As many rows as are asked for, from one to what registers hold, times `panels` panels.

    Memory from `near` on is brought nearer meanwhile, `step` bytes per row of weights, unless the
    core itself runs far enough ahead: one without many registers does, for one row or two.
    """
    most = min(MOST, HELD // panels)

    @machine
    def kernel(context, rows, x, stride, panel, depth, out, width, near, step):  # type: ignore[no-untyped-def]
        def write(e: Emitter, rows: Any, *places: Any) -> None:
            e.choose(rows, most, lambda count: _tile(e, count, panels, places))

        return types.void(*[types.intp] * 9), code(write, LANES)

    return kernel


_ONE, _TWO, _FOUR = block(1), block(2), block(4)


@compiled
def product(x, stride, rows, panel, depth, panels, out, width):  # type: ignore[no-untyped-def]
    """out [rows, width] = x [rows, depth] W^T + b with W in panels of 16 outputs.

    Rows go in blocks, as alike as can be, by as many panels at once as registers have room for:
    several hide the latency of each chain, and are read from memory side by side.
    """
    most = MOST if rows < 2 * MOST else EASY
    size, blocks, index = (depth + 1) * PANEL, (rows + most - 1) // most, 0
    step, room = PANEL // blocks, HELD // ((rows + blocks - 1) // blocks)
    while index < panels:
        many = min(room, panels - index)
        many = 4 if many >= 4 else 2 if many >= 2 else 1
        source, done = panel + index * size, 0
        for left in range(blocks, 0, -1):  # each brings its share of what is read next
            take = (rows - done + left - 1) // left
            inputs, place = x + done * stride * BYTES, out + (done * width * BYTES + index * PANEL)
            near = source + many * size + (blocks - left) * depth * step
            if blocks == 1 and not WIDE:
                near = source + SOON
            if many == 4:
                _FOUR(take, inputs, stride, source, depth, place, width, near, step)
            elif many == 2:
                _TWO(take, inputs, stride, source, depth, place, width, near, step)
            else:
                _ONE(take, inputs, stride, source, depth, place, width, near, step)
            done += take
        index += many
