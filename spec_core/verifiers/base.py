"""What a verifier does: logits of the target on drafted trees become accepted paths and a bonus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from spec_core.noise import TARGET, NoiseWindow
from spec_core.ranking import Drawer, Ranker
from spec_core.sampling import Sampling
from spec_core.tensors import tensor
from spec_core.tree import Tree


@dataclass
class Chance:
    """The randomness of a batch in one cycle: seeds, text lengths, and noise from them."""

    sampling: Sampling
    seeds: list[int]
    lengths: list[int]
    window: NoiseWindow
    device: torch.device

    def target(self, count: int) -> Any:
        """The target's noise [B, count, V] for the next `count` tokens, a tensor or an array."""
        return self.window.found(self.seeds, self.lengths, count, self.device)

    def column(self, values: list[int]) -> Tensor:
        """[B, 1] int64 on the device."""
        return tensor([[value] for value in values], self.device)


def chance(sampling: Sampling, vocab: int, device: torch.device) -> Chance:
    """Randomness for a new session."""
    return Chance(sampling, [], [], NoiseWindow(vocab, TARGET), device)


@dataclass(slots=True)
class Verdict:
    """What was accepted: host numbers, read in one go."""

    path: list[list[int]]  # tree nodes accepted, the root not included
    slots: list[list[int]]  # the draft's, of these; -1 where it holds none
    tokens: list[list[int]]  # the accepted tokens and the bonus
    drafted: list[int]  # nodes, the root not counted
    finite: list[bool]  # False where a walk ended at logits with a NaN or an infinity: no bonus


class Verifier(Protocol):
    """Draws the text; drafting asks it how candidates are to be ranked or drawn."""

    sampled: bool  # candidates are draws: none may be dropped after it was drawn

    def prepare(self, chance: Chance, depth: int) -> None:
        """Upload, before a GPU is busy, what trees of this depth will want."""

    def ranker(self, chance: Chance, depth: int) -> Ranker | Drawer:
        """How this cycle's candidates are ordered."""

    def accept(self, logits: Any, tree: Tree, chance: Chance) -> Verdict:
        """Walk the trees; logits: [B, N, V] of the target, a tensor or an array."""
