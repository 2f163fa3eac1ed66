"""The order of a drafter's candidates: by probability, or drawn without replacement."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spec_core.drafters.base import Candidates
from spec_core.noise import DRAFT, gumbel
from spec_core.rows import rows

LEAST = -1e4  # a log that stands for no chance
DRAWS = 4096  # more draft slots than any cycle has: keeps the noise of two cycles apart


class Ranker:
    """Orders a drafter's logits; the coupled one adds the noise that the target will add."""

    def __init__(self, temperature: float = 1.0, noise: Any = None) -> None:
        self.temperature, self.sound = temperature, noise  # [B, depths, V] a tensor or an array
        self.count = 1
        self.found: Any = None  # the logs, in the host's memory or the device's

    @property
    def noise(self) -> Tensor | None:
        """[B, depths, V] what is added to the logits."""
        return None if self.sound is None else torch.as_tensor(self.sound)

    def ask(self, count: int) -> None:
        """So many candidates are wanted next behind each node."""
        self.count, self.found = count, None

    def logs(self, found: Candidates) -> Any:
        """[B, W, any] what candidates were taken from: their own scores, where that has no logs."""
        return found.scores.clamp(min=LEAST) if self.found is None else self.found

    def __call__(self, logits: Tensor, depths: Tensor | int) -> Candidates:
        noise = None if self.sound is None else self._rows(depths).expand(logits.shape)
        tokens, scores, self.found = rows(logits.is_cpu).best(
            logits.float(), self.temperature, noise, self.count
        )
        return Candidates(tokens, scores)

    def _rows(self, depths: Tensor | int) -> Tensor:
        noise = self.noise
        assert noise is not None
        if isinstance(depths, int):
            return noise[:, depths : depths + 1]
        return noise.gather(1, depths[:, :, None].expand(-1, -1, noise.shape[2]))


class Drawer:
    """Draws children without replacement from the draft's own distribution, which it records."""

    def __init__(self, temperature: float, seeds: Tensor, lengths: Tensor) -> None:
        self.temperature, self.seeds, self.lengths = temperature, seeds, lengths  # [B, 1] each
        self.count = 1
        self.found: Tensor | None = None  # [B, W, V] what the last candidates were taken from
        self.distributions: list[Tensor] = []

    def ask(self, count: int) -> None:
        """So many candidates are wanted next behind each node."""
        self.count, self.found = count, None

    def logs(self, found: Candidates) -> Tensor:
        """[B, W, V] what candidates were drawn from."""
        if self.found is None:
            raise ValueError(
                "this draft source has no logits, from which rejection draws; verify coupled"
            )
        return self.found

    def __call__(self, logits: Tensor, depths: Tensor | int) -> Candidates:
        self.found = scores = (logits.float() / self.temperature).log_softmax(-1)  # [B, W, V]
        drawn = sum(d.shape[1] for d in self.distributions)
        self.distributions.append(scores.exp())
        slots = torch.arange(drawn, drawn + scores.shape[1], device=scores.device)
        keys = self.lengths * DRAWS + slots
        noise = gumbel(self.seeds.expand_as(keys), keys, scores.shape[2], DRAFT)
        tokens = (scores + noise).topk(self.count, -1).indices  # in the order of the draws
        return Candidates(tokens, scores.gather(-1, tokens))
