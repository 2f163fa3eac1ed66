"""A small language model as the drafter: keeps its own KV in step with the text."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from spec_core.drafters.base import Candidates, Frontier, Rank
from spec_core.models.base import Cache, Model, View

CATCH_UP = 2  # a cycle leaves at most this many tokens unseen: the last accepted one and the bonus


@lru_cache(maxsize=64)
def causal(queries: int, device: torch.device) -> Tensor:
    """Every query sees itself and those before it, [1, Q, Q]."""
    return torch.ones(1, queries, queries, dtype=torch.bool, device=device).tril()


@lru_cache(maxsize=8)
def steps(device: torch.device) -> Tensor:
    """0, 1, 2, ... for slicing."""
    return torch.arange(4096, device=device)


@lru_cache(maxsize=8)
def everything(device: torch.device) -> Tensor:
    """True, for slicing: one query that sees all, [1, 1, K]."""
    return torch.ones(1, 1, 4096, dtype=torch.bool, device=device)


def prefill(
    model: Model, cache: Cache, row: int, text: list[int], start: int, chunk: int = 512
) -> None:
    """Write the KV of text[start:] into one row, in chunks."""
    mine = cache.rows(row, row + 1)
    for begin in range(start, len(text), chunk):
        end = min(begin + chunk, len(text))
        tokens = torch.tensor([text[begin:end]], device=model.device)
        slots = torch.arange(begin, end, device=model.device)[None]
        view = View(slots[:, 0], causal(end - begin, model.device), span=end)
        positions = slots.clamp(max=model.max_context - 1)  # a draft may have the smaller context
        model.forward(tokens, positions, slots, view, mine, keep=1)


class ModelDrafter:
    """Drafts with a causal language model of the target's vocabulary."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.vocab_size, self.max_context = model.vocab_size, model.max_context

    def open(self, batch: int, slots: int) -> ModelDraftState:
        """Start on `batch` sequences with room for `slots` tokens each."""
        return ModelDraftState(self.model, batch, slots)


class ModelDraftState:
    """The draft model's KV of a batch; `known[b]` leading tokens of text b are in it."""

    def __init__(self, model: Model, batch: int, slots: int) -> None:
        self.model, self.known, self.max_context = model, [0] * batch, model.max_context
        self.store = self.cache = model.new_cache(batch, slots)
        self.base = torch.zeros(batch, 1, dtype=torch.int64)

    def start(self, texts: list[list[int]], rank: Rank) -> Candidates:
        """Feed the unseen ends of the texts and propose what follows, [B, 1, C]."""
        behind = min(CATCH_UP, *map(len, texts))  # a text of one token has no two
        for row, text in enumerate(texts):
            if self.known[row] == 0 or len(text) - self.known[row] > behind:
                prefill(self.model, self.cache, row, text[:-1], self.known[row])
                self.known[row] = len(text) - 1
        lag = max(len(text) - known for text, known in zip(texts, self.known, strict=True))
        device, lengths = self.model.device, [len(text) for text in texts]
        tokens = torch.tensor([text[-lag:] for text in texts], device=device)
        first = torch.tensor([[length - lag] for length in lengths], device=device)
        slots = first + torch.arange(lag, device=device)
        full = lag == 1 and len(texts) == 1
        view = View(first[:, 0], causal(lag, device), span=max(lengths), full=full)
        positions = slots.clamp(max=self.max_context - 1)  # texts beyond it draft nothing
        logits = self.model.forward(tokens, positions, slots, view, self.cache, keep=1)
        self.known, self.base, self.longest = lengths, slots[:, -1:], max(lengths)
        return rank(logits, 0)

    def expand(self, frontier: Frontier, rank: Rank) -> Candidates:
        """One forward over the frontier, each node behind its ancestors."""
        width = frontier.tokens.shape[1]
        slots = self.base + steps(self.base.device)[frontier.slot : frontier.slot + width]
        positions = slots if frontier.chain else (self.base + frontier.depths).expand(slots.shape)
        if len(slots) > 1:  # padding of a sequence near the end of the context
            positions = positions.clamp(max=self.max_context - 1)
        ancestors = frontier.ancestors
        if ancestors is None:
            ancestors = everything(slots.device)[:, :, : frontier.slot + 1]
        view = View(
            self.base[:, 0], ancestors, span=self.longest - 1 + frontier.slot + width,
            full=frontier.chain and len(slots) == 1,
        )  # fmt: skip
        tokens = frontier.tokens if frontier.chain else frontier.tokens.clamp(min=0)
        return rank(
            self.model.forward(tokens, positions, slots, view, self.cache, width), frontier.depths
        )

    def commit(self, row: int, length: int, path: list[int]) -> None:
        """Move the accepted nodes' KV behind the text; those never fed stay unseen."""
        held = path[: path.index(-1)] if -1 in path else path
        if held != list(range(1, len(held) + 1)):
            device, root = self.model.device, length - 1
            source = torch.tensor(held, device=device) + root
            target = torch.arange(root + 1, root + 1 + len(held), device=device)
            self.cache.move(row, source, target)
        self.known[row] = min(self.known[row], length) + len(held)

    def replace(self, row: int, source: int) -> None:
        """Row `source` takes the place of row `row`; the last row is dropped."""
        if row != source:
            self.cache.copy_row(source, row, self.known[source])
            self.known[row] = self.known[source]
        self.known.pop()
        self.cache = self.store.rows(0, len(self.known))

    def admit(self) -> None:
        """A new text, of which nothing is known, takes the row behind the last."""
        self.known.append(0)
        self.cache = self.store.rows(0, len(self.known))
