"""Steps of attention and gates, as vector code for one CPU core; knows no model.

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

from spec_core.models.emitter import FLOAT, Emitter
from spec_core.models.kept import apart

Array = NDArray[np.float32]
LANES, HALF = 16, 8  # floats of a panel's row, and of the vectors along a head
machine: Any = intrinsic  # what it makes is called with fewer arguments than it is written with


def compiled(function: Callable, **options: Any) -> Any:
    """The function as machine code, kept on disk where there is a place for it."""
    with apart(function):
        try:
            return njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # neither there, nor beside the source, nor in the user's cache
            return njit(nogil=True, **options)(function)


@compiled
def lay(source, target):  # type: ignore[no-untyped-def]
    """Numbers from one row to another: an assignment of rows takes seconds to compile."""
    for i in range(len(target)):
        target[i] = source[i]


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
