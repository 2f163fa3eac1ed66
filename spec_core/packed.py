"""The same as `spec_core.layers`, as machine code for one CPU core.

A row has the same bits alone and among others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from spec_core.models.emitter import BYTES, Emitter
from spec_core.models.tiles import LANES, compiled, panels, product

Array = NDArray[np.float32]


def _bend(bent: Callable) -> Any:
    """Replaces the numbers at an address, count a multiple of 16."""

    @intrinsic
    def kernel(context, address, count):  # type: ignore[no-untyped-def]
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            e, (address, count) = Emitter(builder, LANES), args

            def more(i: Any, _: list) -> list:
                place = e.at(address, i)
                e.store(bent(e, e.load(place)), place)
                return []

            e.repeat(count, LANES, [], more)
            return context.get_dummy_value()

        return types.void(types.intp, types.intp), code

    return kernel


def _tanh_of(e: Emitter, x: Any) -> Any:
    """1 - 2 / (1 + e^2x)."""
    b, one, two = e.builder, e.same(1.0), e.same(2.0)
    return b.fsub(one, b.fdiv(two, b.fadd(one, e.exp(b.fmul(two, x)))))


_tanh = _bend(_tanh_of)
_relu = _bend(lambda e, x: e.call("maxnum", x, e.same(0.0)))


@compiled
def outputs(x, rows, numbers, sizes, tanh, room):  # type: ignore[no-untyped-def]
    """Write each layer's outputs into room, one after the other; where the last ones begin."""
    numbers, out, start = numbers.ctypes.data, room.ctypes.data, 0
    stride = sizes[0]
    for i in range(len(sizes) - 1):
        if i and tanh:
            _tanh(x, rows * stride)
        elif i:
            _relu(x, rows * stride)
        panels = (sizes[i + 1] + LANES - 1) // LANES
        product(x, stride, rows, numbers, sizes[i], panels, out + start * BYTES, panels * LANES)
        numbers += panels * LANES * (1 + sizes[i]) * BYTES
        x, stride = out + start * BYTES, panels * LANES
        start += rows * stride
    return start - rows * stride


@compiled
def largest(features, b, numbers, sizes, tanh, room):  # type: ignore[no-untyped-def]
    """The largest output of a row."""
    assert features.shape[1] == sizes[0] and features.strides[1] == BYTES
    row = features.ctypes.data + b * features.strides[0]
    start = outputs(row, 1, numbers, sizes, tanh, room)
    best = 0
    for i in range(sizes[-1]):
        if room[start + i] > room[start + best]:
            best = i
    return best


class Packed:
    """weights: [out, in] each; tanh, or else relu."""

    def __init__(self, weights: list[Array], biases: list[Array], tanh: bool) -> None:
        parts = [panels(w, b) for w, b in zip(weights, biases, strict=True)]
        sizes = np.array([weights[0].shape[1], *map(len, biases)])
        self.parts = np.concatenate(parts), sizes, tanh
        self.width = int(sum(-len(b) // LANES * -LANES for b in biases))
        self.room = np.empty(self.width, np.float32)
        self.all = *self.parts, self.room
        self.best(np.zeros((1, sizes[0]), np.float32))  # the code is at hand before a clock runs

    def scores(self, features: Array) -> Array:
        """The outputs [B, out] of rows [B, in]."""
        rows, sizes = len(features), self.parts[1]
        features = np.ascontiguousarray(features, np.float32)
        room = np.empty(rows * self.width, np.float32)
        start = outputs(features.ctypes.data, rows, *self.parts, room)
        return room[start:].reshape(rows, -1)[:, : sizes[-1]]

    def best(self, features: Array) -> list[int]:
        """Each row's largest output."""
        return [largest(features, b, *self.parts, self.room) for b in range(len(features))]
