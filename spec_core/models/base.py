"""What the decoder asks of a model: a slot cache and one forward; knows no architecture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class ModelError(ValueError):
    """A model that cannot be loaded or served; the message says which and why."""


def first_line(error: Exception) -> str:
    """The first line of what an exception says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@dataclass(frozen=True)
class View:
    """What the queries of one forward see: slots below `prefix`, and of the block their ancestors.

    Query i of sequence b sees cache slot s iff s < prefix[b], or s = prefix[b] + j with
    ancestors[b, i, j]. Slots from `span` on are seen by nobody.
    """

    prefix: Tensor  # [B] int64
    ancestors: Tensor  # [B or 1, Q, K] bool
    span: int
    full: bool = False  # every query sees every slot below span: no mask is needed

    def mask(self) -> Tensor:
        """The same as a dense boolean mask [B, Q, span]."""
        slot = torch.arange(self.span, device=self.prefix.device)
        offset = slot - self.prefix[:, None]  # [B, span]
        block = self.ancestors.shape[-1]
        batch, queries = offset.shape[0], self.ancestors.shape[1]
        index = offset.clamp(0, block - 1)[:, None].expand(batch, queries, self.span)
        seen = self.ancestors.expand(batch, -1, -1).gather(2, index)
        inside = ((offset >= 0) & (offset < block))[:, None]
        return (offset < 0)[:, None] | (inside & seen)


class Cache(Protocol):
    """Keys and values of a batch in preallocated slots."""

    def rows(self, start: int, stop: int) -> Cache:
        """A view of some of the batch's rows, sharing memory."""

    def move(self, row: int, source: list[int], target: list[int]) -> None:
        """Copy slots to others of one row, which rise as they do and are not behind them."""

    def copy_row(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` slots of one row over another."""


class Model(Protocol):
    """A causal language model that can score a tree."""

    vocab_size: int
    max_context: int
    device: torch.device
    dtype: torch.dtype

    def new_cache(self, batch: int, slots: int) -> Cache:
        """Room for `slots` tokens in each of `batch` rows."""

    def forward(
        self, tokens: Tensor, positions: Tensor, slots: Tensor, view: View, cache: Any, keep: int
    ) -> Tensor:
        """Logits [B, keep, V] of the last `keep` queries; writes the queries' KV to `slots`.

        tokens, positions, slots: [B, Q]. Queries attend to the cache after the write, so a query
        that is its own ancestor sees itself. A token of -1 is padding, which nobody else sees: it
        may be left out, and gets logits that are finite and mean nothing.
        """
