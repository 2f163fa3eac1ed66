"""Tensors and their numbers by the shortest way: on the CPU that is through arrays.

Knows no texts. A forward leaves cold caches behind, where a call of torch takes 10 to 30 us.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

LINE = 64  # bytes that memory hands over at once


def zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Zeros with the dtype and device of `like`; on the CPU they begin a line of memory.

    There they are numpy's, which asks the kernel for large pages: walks through small ones, made
    for every 4 kB that are read, take a tenth of a forward.
    """
    if not like.is_cpu:
        return torch.zeros(shape, dtype=like.dtype, device=like.device)
    count = math.prod(shape) * like.element_size()
    room = np.zeros(count + LINE, np.uint8)
    start = -room.ctypes.data % LINE
    return torch.from_numpy(room[start : start + count]).view(like.dtype).view(shape)


def tensor(numbers: list, device: torch.device, kind: type = np.int64) -> Tensor:
    """Numbers from the host."""
    made = torch.from_numpy(np.array(numbers, kind))
    return made if device.type == "cpu" else made.to(device)


@lru_cache(maxsize=8)
def steps(device: torch.device) -> Tensor:
    """0, 1, 2, ... for slicing."""
    return torch.arange(4096, device=device)


def ahead(base: Tensor, first: int, count: int) -> Tensor:
    """Numbers in a row, from base [B, 1] and `first` more on: [B, count]."""
    if base.is_cpu:
        return torch.from_numpy(base.numpy() + np.arange(first, first + count))
    return base + steps(base.device)[first : first + count]


@lru_cache(maxsize=64)
def causal(queries: int, device: torch.device) -> Tensor:
    """Every query sees itself and those before it, [1, Q, Q]."""
    return torch.ones(1, queries, queries, dtype=torch.bool, device=device).tril()


def numbers(parts: tuple[Any, ...]) -> list[list[list[int]]]:
    """Parts [B, any] as lists: in one host read where each would wait for the device."""
    if parts[0].is_cpu:
        arrays = [part.numpy() if isinstance(part, Tensor) else part for part in parts]
        return [array.tolist() for array in arrays]
    widths = [part.shape[1] for part in parts]
    return [part.tolist() for part in torch.cat(parts, 1).cpu().split(widths, 1)]
