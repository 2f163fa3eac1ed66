"""Layers of x W^T + b with an activation between them, in numpy; knows no decisions.

Where there is numba, `spec_core.packed` computes the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class Layers:
    """weights: [out, in] each; tanh, or else relu."""

    def __init__(self, weights: list[Array], biases: list[Array], tanh: bool) -> None:
        turned = [np.ascontiguousarray(w.T, np.float32) for w in weights]
        self.parts = list(zip(turned, [b.astype(np.float32) for b in biases], strict=True))
        self.tanh = tanh

    def scores(self, features: Array) -> Array:
        """The outputs [B, out] of rows [B, in]."""
        x = features
        for i, (weight, bias) in enumerate(self.parts):
            if i:
                x = np.tanh(x) if self.tanh else np.maximum(x, 0)
            x = x @ weight + bias
        return x

    def best(self, features: Array) -> list[int]:
        """Each row's largest output."""
        return self.scores(features).argmax(1).tolist()
