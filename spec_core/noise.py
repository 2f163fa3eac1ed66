"""Random numbers that are a function of (seed, stream, position, token): no state, no order.

That is what makes text independent of what was drafted, of the batch and of the device.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

TARGET, DRAFT, ACCEPT, RESIDUAL = range(4)  # streams that must not share randomness
GOLDEN = -7046029254386353131  # 2^64 / golden ratio, as int64; products wrap


def _mix(x: Tensor) -> Tensor:
    """The splitmix64 finaliser on int64; shifts are made logical by masks."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def uniform(seeds: Tensor, positions: Tensor, count: int, stream: int) -> Tensor:
    """Numbers in (0, 1), [..., count] in float64, for seeds and positions of one shape."""
    key = _mix(seeds + _mix(positions * GOLDEN + stream))
    token = torch.arange(count, device=key.device, dtype=torch.int64)
    bits = (_mix(key[..., None] + token * GOLDEN) >> 11) & 0x1FFFFFFFFFFFFF
    return (bits.double() + 0.5) * 2.0**-53


@cache
def _machine() -> Any:
    """The same as machine code, where there is any."""
    if find_spec("numba") is None:
        return None
    from spec_core.models import walk

    return walk


def gumbel(seeds: Tensor, positions: Tensor, count: int, stream: int) -> Tensor:
    """Gumbel noise [..., count] in float32."""
    if positions.is_cpu and (machine := _machine()):
        keys = seeds.flatten().numpy(), positions.flatten().numpy()
        return torch.from_numpy(machine.gumbel(*keys, count, stream)).view(*seeds.shape, count)
    return uniform(seeds, positions, count, stream).log_().neg_().log_().neg_().float()


class NoiseWindow:
    """Gumbel rows of one stream for a run of positions, computed once and read many times."""

    def __init__(self, vocab: int, stream: int, length: int = 32) -> None:
        self.vocab, self.stream, self.length = vocab, stream, length
        self.owners: list[tuple[int, int]] = []  # (seed, first position) of each row
        self.rows: Any = None  # [B, length, V], an array on the CPU
        self.last: tuple[list[int], Tensor] | None = None  # where a batch was read, and its rows

    def at(self, seeds: list[int], starts: list[int], count: int, device: torch.device) -> Tensor:
        """Noise [B, count, V] of positions starts[b] .. starts[b] + count - 1."""
        return torch.as_tensor(self.found(seeds, starts, count, device))

    def found(self, seeds: list[int], starts: list[int], count: int, device: torch.device) -> Any:
        """The same, as an array for one text on the CPU."""
        fits = len(self.owners) == len(seeds) and all(
            owner == seed and 0 <= start - first <= self.length - count
            for (owner, first), seed, start in zip(self.owners, seeds, starts, strict=True)
        )
        if not fits:
            self.length = max(self.length, 2 * count)
            self.owners = list(zip(seeds, starts, strict=True))
            first = torch.tensor(starts, device=device)[:, None]
            positions = first + torch.arange(self.length, device=device)
            seed = torch.tensor(seeds, device=device)[:, None].expand_as(positions)
            made = gumbel(seed, positions, self.vocab, self.stream)
            self.rows, self.last = made.numpy() if made.is_cpu else made, None
        offsets = [s - first for s, (_, first) in zip(starts, self.owners, strict=True)]
        if len(offsets) == 1:
            return self.rows[:, offsets[0] : offsets[0] + count]
        if self.last is None or self.last[0] != offsets or self.last[1].shape[1] < count:
            index = torch.tensor(offsets, device=device)[:, None]
            index = index + torch.arange(count, device=device)
            row = torch.arange(len(offsets), device=device)[:, None]
            self.last = offsets, torch.as_tensor(self.rows)[row, index]
        return self.last[1][:, :count]
