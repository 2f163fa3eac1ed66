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
from spec_core.models.products import panels, product
from spec_core.models.tiles import LANES, compiled
from spec_core.quick import floats

Array = NDArray[np.float32]
# A network is one array, since each takes its time to hand over in cold caches: how many layers,
# whether tanh, at which byte the room for a row's outputs begins; the layers' inputs and the last
# one's outputs; then, as floats, the layers in panels, and the room.
HEAD = 3


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
def outputs(x, rows, net, room):  # type: ignore[no-untyped-def]
    """Write each layer's outputs to room, one after the other; where the last ones begin."""
    layers, tanh, sizes = net[0], net[1] > 0, net[HEAD:]
    numbers, start, stride = net.ctypes.data + 8 * (HEAD + 1 + layers), 0, sizes[0]
    for i in range(layers):
        if i and tanh:
            _tanh(x, rows * stride)
        elif i:
            _relu(x, rows * stride)
        panels = (sizes[i + 1] + LANES - 1) // LANES
        product(x, stride, rows, numbers, sizes[i], panels, room + start * BYTES, panels * LANES)
        numbers += panels * LANES * (1 + sizes[i]) * BYTES
        x, stride = room + start * BYTES, panels * LANES
        start += rows * stride
    return start - rows * stride


@compiled
def largest(features, b, net):  # type: ignore[no-untyped-def]
    """The largest output of a row."""
    assert features.shape[1] == net[HEAD] and features.strides[1] == BYTES
    row, room = features.ctypes.data + b * features.strides[0], net.ctypes.data + net[2]
    last, best = net[HEAD + net[0]], 0
    scores = floats(room + outputs(row, 1, net, room) * BYTES, last)
    for i in range(last):
        if scores[i] > scores[best]:
            best = i
    return best


class Packed:
    """weights: [out, in] each; tanh, or else relu."""

    def __init__(self, weights: list[Array], biases: list[Array], tanh: bool) -> None:
        parts = [panels(w, b) for w, b in zip(weights, biases, strict=True)]
        self.sizes = [weights[0].shape[1], *map(len, biases)]
        self.width = int(sum(-len(b) // LANES * -LANES for b in biases))
        numbers = np.concatenate([*parts, np.zeros(self.width, np.float32)])
        end = 8 * (HEAD + len(self.sizes)) + BYTES * (len(numbers) - self.width)
        head = np.array([len(parts), tanh, end, *self.sizes])
        self.net = np.concatenate((head, numbers.view(np.int64)))  # whole vectors: an even number
        self.best(np.zeros((1, self.sizes[0]), np.float32))  # the code is at hand before a clock

    def scores(self, features: Array) -> Array:
        """The outputs [B, out] of rows [B, in]."""
        rows = len(features)
        features = np.ascontiguousarray(features, np.float32)
        room = np.empty(rows * self.width, np.float32)
        start = outputs(features.ctypes.data, rows, self.net, room.ctypes.data)
        return room[start:].reshape(rows, -1)[:, : self.sizes[-1]]

    def best(self, features: Array) -> list[int]:
        """Each row's largest output."""
        return [largest(features, b, self.net) for b in range(len(features))]
