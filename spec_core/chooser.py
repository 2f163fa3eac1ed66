"""Feature vectors to decisions: the small objects that learners fill and exports hold.

They know numpy only: a decision at batch 1 costs microseconds, and no learner is needed to make it.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

try:
    from spec_core.judge import picks
    from spec_core.packed import Packed as Layers
except ImportError:
    from spec_core.layers import Layers  # type: ignore[assignment]

Array = NDArray[np.float32]
Choices = NDArray[np.int64]
ACTIVATIONS = ("tanh", "relu")


class Chooser(Protocol):
    """Maps features [B, F] to indices [B]."""

    kind: str

    def choose(self, features: Array) -> Choices:
        """The best index of every row."""

    def decide(self, features: Array) -> list[int]:
        """The same as numbers, soon; for few rows, with their numbers side by side."""

    def tensors(self) -> dict[str, Array]:
        """What is written to the weights file."""

    def settings(self) -> dict:
        """What is written as JSON."""


@dataclass
class Network:
    """Layers of x W^T + b with an activation between them; the largest output is chosen.

    No layer at all but a bias is a fixed preference; one layer is a linear score per choice.
    """

    weights: list[Array]  # [out, in] each
    biases: list[Array]
    activation: str = "tanh"
    kind = "network"

    def __post_init__(self) -> None:
        assert self.weights and len(self.weights) == len(self.biases)
        assert self.activation in ACTIVATIONS, f"unknown activation {self.activation!r}"
        for i, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            assert w.ndim == 2 and b.shape == (w.shape[0],), (
                f"layer {i}: shapes {w.shape}, {b.shape}"
            )
            assert i == 0 or w.shape[1] == self.weights[i - 1].shape[0], f"layer {i} does not fit"
            assert np.isfinite(w).all() and np.isfinite(b).all(), f"layer {i} is not finite"
        self._layers = Layers(self.weights, self.biases, self.activation == "tanh")

    @property
    def inputs(self) -> int:
        """Features it reads."""
        return self.weights[0].shape[1]

    @property
    def outputs(self) -> int:
        """Choices it has."""
        return self.weights[-1].shape[0]

    @property
    def constant(self) -> int | None:
        """The choice that no feature can change, if it is so."""
        return None if self.weights[0].any() else int(self.choose(self.weights[0][:1] * 0)[0])

    @property
    def net(self) -> Choices | None:
        """All of it in one array, as `packed` has it, where there is machine code."""
        return getattr(self._layers, "net", None)

    @cached_property
    def picks(self) -> Callable | None:
        """`judge.picks` of it, where there is machine code."""
        return None if self.net is None else partial(picks, self.net)

    def scores(self, features: Array) -> Array:
        """One score per choice, [B, outputs]."""
        return self._layers.scores(features)

    def choose(self, features: Array) -> Choices:
        """The best index of every row."""
        return self.scores(features).argmax(1)

    def decide(self, features: Array) -> list[int]:
        """The same as numbers, at once."""
        return self._layers.best(features)

    def tensors(self) -> dict[str, Array]:
        """Weights and biases by layer."""
        made = {f"weight.{i}": w for i, w in enumerate(self.weights)}
        made |= {f"bias.{i}": b for i, b in enumerate(self.biases)}
        return {name: np.ascontiguousarray(part, np.float32) for name, part in made.items()}

    def settings(self) -> dict:
        """The activation; layers are counted by the tensors."""
        return {"activation": self.activation}

    @classmethod
    def read(cls, settings: dict, tensors: dict[str, Array]) -> Network:
        """From what was written."""
        layers = range(len(tensors) // 2)
        return cls(
            [tensors[f"weight.{i}"] for i in layers], [tensors[f"bias.{i}"] for i in layers],
            settings["activation"],
        )  # fmt: skip


@dataclass
class Table:
    """Binned features to a choice: a row of edges for each axis, and one index per cell."""

    axes: list[int]  # feature columns
    edges: list[list[float]]  # rising; n edges make n + 1 bins
    cells: Choices  # [bins of axis 0, bins of axis 1, ...]
    kind = "table"

    def __post_init__(self) -> None:
        assert len(self.axes) == len(self.edges) == self.cells.ndim, "one list of edges per axis"
        assert self.cells.shape == tuple(len(e) + 1 for e in self.edges), "cells and edges differ"
        assert all(sorted(e) == list(e) for e in self.edges), "edges must rise"
        self._edges = [np.array(e, np.float32) for e in self.edges]
        self._bounds = [edges.tolist() for edges in self._edges]

    @property
    def inputs(self) -> int:
        """Features it needs at least."""
        return max(self.axes, default=-1) + 1

    @property
    def outputs(self) -> int:
        """One more than the largest index."""
        return int(self.cells.max()) + 1

    def places(self, features: Array) -> tuple[Choices, ...]:
        """The cell of every row."""
        pairs = zip(self.axes, self._edges, strict=True)
        return tuple(edges.searchsorted(features[:, axis], "right") for axis, edges in pairs)

    def choose(self, features: Array) -> Choices:
        """The index in every row's cell."""
        return np.broadcast_to(self.cells[self.places(features)], len(features)).astype(np.int64)

    def decide(self, features: Array) -> list[int]:
        """The same without arrays."""
        pairs = list(zip(self.axes, self._bounds, strict=True))
        rows = features.tolist()
        cells = [tuple([bisect(edges, row[axis]) for axis, edges in pairs]) for row in rows]
        return [int(self.cells[cell]) for cell in cells]

    def tensors(self) -> dict[str, Array]:
        """None: a table is JSON."""
        return {}

    def settings(self) -> dict:
        """All of it."""
        return {"axes": self.axes, "edges": self.edges, "cells": self.cells.tolist()}

    @classmethod
    def read(cls, settings: dict, tensors: dict[str, Array]) -> Table:
        """From what was written."""
        return cls(settings["axes"], settings["edges"], np.array(settings["cells"], np.int64))


KINDS: dict[str, type[Network] | type[Table]] = {kind.kind: kind for kind in (Network, Table)}
