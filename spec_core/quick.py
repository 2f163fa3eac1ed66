"""What features and choosers compute as machine code; without numba it runs as it is written.

A `compiled` function is plain Python, and either way the only place of its formula. The vector
operations that numba lacks or does slowly are numpy here, each with its machine code behind it:
small, since in cold caches code is as dear to fetch as what it reads.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

compiled: Any
overload: Any
intrinsic: Any


def _same(function: Callable) -> Callable:
    return function


try:
    from numba import extending, types
    from numba.np.numpy_support import carray
    from numba.np.unsafe.ndarray import to_fixed_tuple

    from spec_core.models import tiles
    from spec_core.models.emitter import Emitter

    compiled, overload, intrinsic = tiles.compiled, extending.overload, extending.intrinsic
    LANES = tiles.LANES
except ImportError:
    compiled = intrinsic = _same

    def overload(function: Callable) -> Callable:
        """There is no machine code for it."""
        return _same


Array = NDArray[np.float32]
Four = tuple[float, float, float, float]
LEAST = np.float32(-1e4)  # weighs nothing, as do logits below it; of 0 * -inf came a NaN


def floats(address: int, count: int) -> Any:
    """The single-precision numbers of a tensor, where they are."""
    return (ctypes.c_float * count).from_address(int(address))


def doubles(address: int, count: int) -> Any:
    """The double-precision numbers of an array, where they are."""
    return np.ctypeslib.as_array((ctypes.c_double * count).from_address(int(address)))


def wholes(address: int, count: int) -> Any:
    """The whole numbers of a tensor, where they are."""
    return (ctypes.c_int64 * count).from_address(int(address))


@overload(floats)
def _floats(address, count):  # type: ignore[no-untyped-def]
    return lambda address, count: carray(_to_float(address), count)


@overload(doubles)
def _doubles(address, count):  # type: ignore[no-untyped-def]
    return lambda address, count: carray(_to_double(address), count)


@overload(wholes)
def _wholes(address, count):  # type: ignore[no-untyped-def]
    return lambda address, count: carray(_to_whole(address), count)


def numbers(array: Array, count: int) -> Any:
    """All of an array's numbers, count of them, to be told apart by names."""
    return array.tolist()


@overload(numbers)
def _numbers(array, count):  # type: ignore[no-untyped-def]
    return lambda array, count: to_fixed_tuple(array, count)  # type: ignore[call-arg]


def _pointer(number: str) -> Any:
    @intrinsic
    def pointer(context, address):  # type: ignore[no-untyped-def]
        kind = types.CPointer(getattr(types, number))

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(kind))

        return kind(types.intp), code

    return pointer


_to_float, _to_double, _to_whole = map(_pointer, ("float32", "float64", "int64"))


def masses(row: Any) -> Four:
    """Of logits [V]: the best two, and the sums of e^(x - best) and e^(x - best) (x - best)."""
    row = np.asarray(row)
    second, top = np.partition(row, -2)[-2:]
    below = np.maximum(row - top, LEAST)
    weights = np.exp(below)
    return float(top), float(second), float(weights.sum()), float(weights.dot(below))


@overload(masses)
def _masses(row):  # type: ignore[no-untyped-def]
    assert row.dtype == types.float32 and row.layout == "C", "logits are floats side by side"

    def code(row):  # type: ignore[no-untyped-def]
        top = second = np.float32(-np.inf)
        for x in row:
            if x > second:
                top, second = max(x, top), min(x, top)
        total, cross = 0.0, 0.0
        whole = len(row) // LANES * LANES
        if whole:
            total, cross = _sums(row.ctypes.data, whole, top)
        for i in range(whole, len(row)):
            below = 1.0 * max(row[i] - top, LEAST)
            total += math.exp(below)
            cross += math.exp(below) * below
        return 1.0 * top, 1.0 * second, total, cross

    return code


@intrinsic
def _sums(context, row, count, top):  # type: ignore[no-untyped-def]
    """The two sums, count a multiple of 16."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        e, (row, count, top) = Emitter(builder, LANES), args
        best, least = e.same(top), e.same(float(LEAST))

        def add(i: Any, sums: list) -> list:
            below = e.call("maxnum", builder.fsub(e.load(e.at(row, i)), best), least)
            weight = e.exp(below)
            return [builder.fadd(sums[0], weight), e.fused(weight, below, sums[1])]

        sums = [e.sum(s) for s in e.repeat(count, LANES, [e.same(0.0)] * 2, add)]
        wide = [builder.fpext(s, context.get_value_type(types.float64)) for s in sums]
        return context.make_tuple(builder, signature.return_type, wide)

    kind = types.UniTuple(types.float64, 2)
    return kind(types.intp, types.intp, types.float32), code
