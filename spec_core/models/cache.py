"""Preallocated keys and values in slots; knows positions in memory, not what they mean."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from spec_core.tensors import tensor, zeros


class SlotCache:
    """Keys and values of all layers: [layers, batch, slots, key heads + value heads, D]."""

    def __init__(self, data: Tensor, positions: Tensor) -> None:
        self.data = data
        self.positions = positions  # [batch, slots]: where each slot's token stands in its sequence
        _, self.batch, self.slots, self.heads, self.head_dim = data.shape
        self.layers = [layer.view(-1, self.heads, self.head_dim) for layer in data]

    @classmethod
    def empty(cls, shape: tuple[int, int, int, int, int], like: Tensor) -> SlotCache:
        """A zeroed cache of this shape with the dtype and device of `like`."""
        positions = torch.zeros(shape[1:3], dtype=torch.int64, device=like.device)
        return cls(zeros(shape, like), positions)

    def rows(self, start: int, stop: int) -> SlotCache:
        """A view of some of the batch's rows, sharing memory."""
        if (start, stop) == (0, self.batch):
            return self
        return _RowsOfCache(self, start, stop)

    @cached_property
    def place(self) -> tuple[np.ndarray, tuple[int, ...]]:
        """For machine code on the CPU: positions; the data's address and its steps in floats."""
        return self.positions.numpy(), (self.data.data_ptr(), *self.data.stride()[:3])

    @cached_property
    def bytes(self) -> np.ndarray:
        """The data on the CPU as an array, whatever its dtype: [..., D in bytes]."""
        return self.data.view(torch.uint8).numpy()

    def write(self, layer: int, flat: Tensor, values: Tensor) -> None:
        """Store values [B * Q, heads, D] at flat slots (row * slots + slot)."""
        self.layers[layer].index_copy_(0, flat, values)

    def read(self, layer: int, span: int) -> tuple[Tensor, Tensor]:
        """Keys and values [B, heads, span, D] of the first `span` slots."""
        both = self.data[layer, :, :span].transpose(1, 2)
        half = self.heads // 2
        return both[:, :half], both[:, half:]

    def move(self, row: int, source: list[int], target: list[int]) -> None:
        """Copy slots to others of one row, which are not behind them."""
        if self.data.is_cpu:
            return self._shift(row, source, target)
        old, new = tensor([source, target], self.data.device)
        self.data[:, row].index_copy_(1, new, self.data[:, row].index_select(1, old))
        self.positions[row].index_copy_(0, new, self.positions[row].index_select(0, old))

    def _shift(self, row: int, source: list[int], target: list[int]) -> None:
        """The same in the host's memory, where one slot after the other is the shortest way."""
        data, positions = self.bytes, self.positions.numpy()
        for old, new in zip(source, target, strict=True):
            if old != new:
                data[:, row, new], positions[row, new] = data[:, row, old], positions[row, old]

    def copy_row(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` slots of one row over another."""
        self.data[:, target, :length] = self.data[:, source, :length]
        self.positions[target, :length] = self.positions[source, :length]


class _RowsOfCache(SlotCache):
    """Some rows of a cache: same memory, rows counted from its own start."""

    def __init__(self, parent: SlotCache, start: int, stop: int) -> None:
        self.data = parent.data[:, start:stop]
        self.positions = parent.positions[start:stop]
        self.batch, self.slots = stop - start, parent.slots
        self.heads, self.head_dim = parent.heads, parent.head_dim
        self.layers = [layer.view(-1, self.heads, self.head_dim) for layer in self.data]
