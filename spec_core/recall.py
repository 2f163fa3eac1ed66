"""A text's own past as part of a draft: where its end stood before, what followed is likely again.

A token recalled by l tokens in common weighs l against the 16 of the model: the draft's logits
become those of the mixture, and all that drafts from logits is as it was. Knows no models.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from spec_core.drafters.base import Frontier
from spec_core.rows import rows

Past = tuple[np.ndarray, int, int]  # a text with room behind it, its length, and with its draft
Pasts = tuple[np.ndarray, np.ndarray]  # texts [B, N] with room behind them, and their lengths


class Forgetful:
    """Recalls nothing: a model drafts as it is."""

    def start(self, texts: list[list[int]], logits: Tensor) -> Tensor:
        """Logits [B, 1, V] behind the texts, with what is recalled."""
        return logits

    def behind(self, frontier: Frontier, logits: Tensor) -> Tensor:
        """Logits [B, W, V] behind drafted nodes, with what is recalled."""
        return logits

    def past(self, text: list[int], path: list[int]) -> Past:
        """The only text and a path drafted behind it, for machine code; empty: there is none."""
        return NONE

    def pasts(self, texts: list[list[int]]) -> Pasts:
        """All texts, for machine code; empty: there are none."""
        return NOBODY

    def spared(self, text: list[int], path: list[int]) -> list[bool]:
        """At which levels of a path behind a text the past is sure."""
        return [False] * len(path)

    def forget(self, row: int, length: int) -> None:
        """What stood behind so many tokens of a text may change."""

    def replace(self, row: int, source: int) -> None:
        """Row `source` takes the place of row `row`; the last row is dropped."""

    def admit(self) -> None:
        """A new text takes the row behind the last."""


NONE: Past = np.empty(0, np.int64), 0, 0
NOBODY: Pasts = np.empty((0, 0), np.int64), np.empty(0, np.int64)


class Memory(Forgetful):
    """The texts of a batch, and what is drafted behind them in this cycle."""

    def __init__(self, batch: int, slots: int, device: torch.device) -> None:
        self.texts = torch.zeros(batch, slots, dtype=torch.int64, device=device)
        self.rows: Any = list(self.texts)  # where they are written
        if device.type == "cpu":
            self.rows = list(self.texts.numpy())  # which takes a tenth of the time
        self.noted = [0] * batch  # leading tokens of each text that stand there
        self.drafted = self.texts[:, :1]  # [B, slots so far] tokens; the root's is not read

    def _note(self, texts: list[list[int]]) -> None:
        for row, text in enumerate(texts):
            new = text[self.noted[row] :]
            made = new if self.texts.is_cpu else torch.tensor(new)
            self.rows[row][self.noted[row] : len(text)] = made
            self.noted[row] = len(text)

    def start(self, texts: list[list[int]], logits: Tensor) -> Tensor:
        self._note(texts)
        self.drafted = self.texts[: len(texts), :1]
        return self._mixed(logits, torch.ones(1, 1, 1, dtype=torch.bool, device=logits.device))

    def behind(self, frontier: Frontier, logits: Tensor) -> Tensor:
        self.drafted = torch.cat((self.drafted[:, : frontier.slot], frontier.tokens), 1)
        seen = frontier.ancestors
        if seen is None:
            seen = torch.ones(1, 1, frontier.slot + 1, dtype=torch.bool, device=logits.device)
        return self._mixed(logits, seen)

    def _mixed(self, logits: Tensor, seen: Tensor) -> Tensor:
        batch, width = logits.shape[:2]
        seen = seen[..., : self.drafted.shape[1]].expand(batch, width, -1)
        texts = self.texts[:batch, : max(self.noted) + self.drafted.shape[1]]
        return rows(logits.is_cpu).recalled(logits, texts, self.noted, self.drafted, seen)

    def past(self, text: list[int], path: list[int]) -> Past:
        self._note([text])
        own, count = self.rows[0], len(text) + len(path)
        if path:
            own[len(text) : count] = path
        return own, len(text), count

    def pasts(self, texts: list[list[int]]) -> Pasts:
        self._note(texts)
        return self.texts.numpy(), np.array(self.noted)

    def spared(self, text: list[int], path: list[int]) -> list[bool]:
        from spec_core.models import recall  # where there is machine code: who asks has it

        return recall.spared(np.array(text + path), len(text), np.array(path, np.int64)).tolist()

    def forget(self, row: int, length: int) -> None:
        self.noted[row] = min(self.noted[row], length)

    def replace(self, row: int, source: int) -> None:
        self.texts[row] = self.texts[source]
        self.noted[row] = self.noted[source]
        self.noted.pop()

    def admit(self) -> None:
        self.noted.append(0)
