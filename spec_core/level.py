"""What drafting shows a policy between two levels, and what it wants to hear."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from spec_core.tree import Tree

Scores = list[list[float]]  # of a level's candidates, by sequence


@dataclass(frozen=True)
class LevelView:
    """What a policy that is asked after each draft level may see."""

    depth: int
    scores: Tensor  # [B, candidates of this level] log path probabilities; -inf: none
    width: int
    pool: list[Tensor]  # scores of all levels so far, the root first
    logs: Tensor  # [B, width, any] log probabilities that its candidates were taken from
    numbers: list[Scores] = field(default_factory=list)  # the pool, on the host
    asked: list[bool] = field(default_factory=list)  # [B] whose answers count

    def __post_init__(self) -> None:
        if not self.numbers:
            self.numbers.extend(scores.tolist() for scores in self.pool)

    @property
    def near(self) -> Any:
        """The logs in the host's memory, a tensor or an array."""
        return self.logs if self.logs.is_cpu else self.logs.cpu()


class LineView(LevelView):
    """After a level of one text's chain: its tensors are made when somebody wants them."""

    found: Any  # the logs, a tensor or an array

    def __init__(self, path: list[float], found: Any) -> None:
        numbers = [[[score]] for score in path]
        vars(self).update(
            depth=len(path) - 1, width=1, numbers=numbers, asked=[True], found=found
        )  # fmt: skip

    @cached_property
    def pool(self) -> list[Tensor]:
        """As numbers are."""
        return [torch.tensor(scores) for scores in self.numbers]

    @property
    def scores(self) -> Tensor:
        """The last of the pool."""
        return self.pool[-1]

    @property
    def logs(self) -> Tensor:
        """A tensor, whatever was found."""
        return torch.as_tensor(self.found)

    @property
    def near(self) -> Any:
        """As it was found."""
        return self.found


# Asks with a LevelView after levels in doubt, wants a mask [B] of who stops; a Tree ends.
Stops = Tensor | list[bool]
Drafting = Generator[LevelView, Stops, Tree]
