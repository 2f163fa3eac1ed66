"""What drafting asks of a token source: proposals after the text, and after drafted nodes.

A source may be a language model, a table of successors, a datastore or a mix; nothing here assumes
a network. A source that has logits ranks them with `rank`; one that has none builds Candidates,
`rank.count` for each node: that serves the coupled verifier, rejection draws from logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from spec_core.doubt import Doubt, Halt
    from spec_core.growth import Growth
    from spec_core.level import Drafting
    from spec_core.ranking import Ranker


@dataclass(frozen=True)
class Candidates:
    """Proposed children of W nodes, the best first; a row's tokens are distinct (or NOTHING)."""

    tokens: Tensor  # [B, W, C] int64
    scores: Tensor  # [B, W, C] log probability given the parent; -inf for NOTHING


@dataclass(frozen=True)
class Frontier:
    """Drafted nodes to look behind."""

    tokens: Tensor  # [B, W]; NOTHING where a sequence has no such node
    depths: Tensor | int  # [B, W], or one number where all are the same
    ancestors: Tensor | None  # [B, W, slots so far + W] over draft slots; None in a chain
    slot: int  # the draft slot of the first of them; the root's is 0
    chain: bool = False


class Rank(Protocol):
    """Orders logits."""

    count: int  # C: candidates wanted behind each node

    def __call__(self, logits: Tensor, depths: Tensor | int) -> Candidates:
        """The candidates that logits [B, W, V] of nodes at these depths give."""


class DraftState(Protocol):
    """A token source at work on a batch of sequences; to inherit from it gives `follow`."""

    judges: bool = False  # whether `follow` asks a halt's judge
    misses: bool = True  # whether it may propose NOTHING, which ends a chain

    def start(self, texts: list[list[int]], rank: Rank) -> Candidates:
        """Catch up with the committed texts and propose what follows them, [B, 1, C]."""

    def expand(self, frontier: Frontier, rank: Rank) -> Candidates:
        """Propose what follows each frontier node, [B, W, C]."""

    def follow(
        self, text: list[int], path: list[int], score: float, rank: Ranker, levels: int, halt: Halt
    ) -> tuple[list[int], list[float], int]:
        """The next level or more of a chain `path` behind the only text: tokens, path scores.

        And how many draft slots are filled: the root's, and those of the path's first tokens.

        A source may go on by itself, up to so many levels, or to a halt. One that does not ask the
        judge has `judges` false.
        """
        rank.ask(1)
        if not path:
            found = self.start([text], rank)
        else:
            node, depth = torch.tensor([path[-1:]]), len(path)
            found = self.expand(Frontier(node, depth, None, slot=depth, chain=True), rank)
        rank.found = rank.logs(found)
        return [int(found.tokens)], [(found.scores + score).item()], len(path) + 1

    def spared(self, text: list[int], path: list[int]) -> list[bool]:
        """Which levels of a chain behind the only text `follow` drafts at hardly any cost."""
        return [False] * len(path)

    def branch(
        self, text: list[int], growth: Growth, rank: Ranker, doubt: Doubt | None
    ) -> Drafting | None:
        """The whole tree of the only text, by a source that selects alone; else None."""
        return None

    def chains(
        self, texts: list[list[int]], growth: Growth, rank: Ranker, thins: bool
    ) -> tuple[Tensor, Tensor] | None:
        """Tokens and path scores [B, 1 + levels] of every text's chain, by a source that drafts
        them alone; else None. thins: chains may end one by one.
        """
        return None

    def commit(self, row: int, length: int, path: list[int]) -> None:
        """A cycle that began at text length `length` accepted these draft slots (-1: none held)."""

    def replace(self, row: int, source: int) -> None:
        """Row `source` takes the place of row `row`; the last row is dropped."""

    def admit(self) -> None:
        """A new text, of which nothing is known, takes the row behind the last."""


class Drafter(Protocol):
    """A token source that serves a target's vocabulary."""

    vocab_size: int
    max_context: int

    def open(self, batch: int, slots: int, greedy: bool = True) -> DraftState:
        """Start on `batch` sequences, greedy or sampled, with room for `slots` tokens each."""
