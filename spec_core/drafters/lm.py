"""A small language model as the drafter: keeps its own KV in step with the text."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from spec_core.beams import Beam
from spec_core.drafters.base import Candidates, DraftState, Frontier, Rank
from spec_core.models.base import Cache, Model, View
from spec_core.recall import Forgetful, Memory
from spec_core.tensors import ahead, causal, tensor

if TYPE_CHECKING:
    from spec_core.doubt import Doubt, Halt
    from spec_core.growth import Growth
    from spec_core.level import Drafting
    from spec_core.models.cache import SlotCache
    from spec_core.models.compiled import CompiledModel
    from spec_core.ranking import Ranker

NOTHING_RECALLED = Forgetful()
CHUNK = 512  # tokens of a prefill that are read at once, unless a model knows better
CATCH_UP = 2  # the last accepted token and the bonus, which a cycle with the model leaves unseen


@lru_cache(maxsize=8)
def everything(device: torch.device) -> Tensor:
    """True, for slicing: one query that sees all, [1, 1, K]."""
    return torch.ones(1, 1, 4096, dtype=torch.bool, device=device)


def straight(model: Model, tokens: Tensor, first: int, cache: Cache, keep: int) -> Tensor:
    """Logits [1, keep, V] of tokens [1, Q] that follow each other in one text.

    They go to slots from `first` on. A model may have a shorter way of its own.
    """
    if hasattr(model, "straight"):
        return model.straight(tokens, first, cache, keep)
    queries = tokens.shape[1]
    slots = torch.arange(first, first + queries, device=model.device)[None]
    view = View(slots[:, 0], causal(queries, model.device), first + queries, full=queries == 1)
    positions = slots.clamp(max=model.max_context - 1)  # a draft may have the smaller context
    return model.forward(tokens, positions, slots, view, cache, keep)


def prefill(
    model: Model, cache: Cache, row: int, text: list[int], start: int, chunk: int | None = None
) -> None:
    """Write the KV of text[start:] into one row, in chunks."""
    mine = cache.rows(row, row + 1)
    step = getattr(model, "chunk", CHUNK) if chunk is None else chunk
    for begin in range(start, len(text), step):
        tokens = tensor([text[begin : begin + step]], model.device)
        straight(model, tokens, begin, mine, keep=1)


class ModelDrafter:
    """Drafts with a causal language model of the target's vocabulary, and with what it recalls."""

    def __init__(self, model: Model, recall: bool = False) -> None:
        self.model, self.recall = model, recall
        self.vocab_size, self.max_context = model.vocab_size, model.max_context
        self.packs = getattr(model, "packs", False)

    def open(self, batch: int, slots: int, greedy: bool = True) -> ModelDraftState:
        """Start on `batch` sequences with room for `slots` tokens each.

        Only greedy text repeats itself so often that its past is of use.
        """
        kind = ChainDraftState if hasattr(self.model, "chain") else ModelDraftState
        memory = Memory(batch, slots, self.model.device) if self.recall and greedy else Forgetful()
        return kind(self.model, batch, slots, memory)


class ModelDraftState(DraftState):
    """The draft model's KV of a batch; `known[b]` leading tokens of text b are in it."""

    misses = False

    def __init__(
        self, model: Model, batch: int, slots: int, memory: Forgetful = NOTHING_RECALLED
    ) -> None:
        self.model, self.known, self.max_context = model, [0] * batch, model.max_context
        self.memory = memory
        self.store = self.cache = model.new_cache(batch, slots)
        self.base = torch.zeros(batch, 1, dtype=torch.int64)

    def _catch_up(self, texts: list[list[int]]) -> int:
        """Prefill all but the texts' ends; how many tokens those have, which are to be fed now."""
        behind = min(CATCH_UP, *map(len, texts))  # a text of one token has no two
        for row, text in enumerate(texts):
            if self.known[row] == 0 or len(text) - self.known[row] > behind:
                prefill(self.model, self.cache, row, text[:-1], self.known[row])
                self.known[row] = len(text) - 1
        return max(len(text) - known for text, known in zip(texts, self.known, strict=True))

    def start(self, texts: list[list[int]], rank: Rank) -> Candidates:
        """Feed the unseen ends of the texts and propose what follows, [B, 1, C]."""
        lag = self._catch_up(texts)
        device, lengths = self.model.device, [len(text) for text in texts]
        tokens = tensor([text[-lag:] for text in texts], device)
        first = tensor([[length - lag] for length in lengths], device)
        slots = ahead(first, 0, lag)
        full = lag == 1 and len(texts) == 1
        view = View(first[:, 0], causal(lag, device), span=max(lengths), full=full)
        positions = slots.clamp(max=self.max_context - 1)  # texts beyond it draft nothing
        logits = self.model.forward(tokens, positions, slots, view, self.cache, keep=1)
        self.known, self.base, self.longest = lengths, slots[:, -1:], max(lengths)
        return rank(self.memory.start(texts, logits), 0)

    def expand(self, frontier: Frontier, rank: Rank) -> Candidates:
        """One forward over the frontier, each node behind its ancestors."""
        width = frontier.tokens.shape[1]
        slots = ahead(self.base, frontier.slot, width)
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
        logits = self.model.forward(frontier.tokens, positions, slots, view, self.cache, width)
        return rank(self.memory.behind(frontier, logits), frontier.depths)

    def commit(self, row: int, length: int, path: list[int]) -> None:
        """Move the accepted nodes' KV behind the text; those never fed stay unseen."""
        held = path[: path.index(-1)] if -1 in path else path
        if held and held[-1] != len(held):  # children come behind their parents
            source, target = [length - 1 + slot for slot in held], range(length, length + len(held))
            self.cache.move(row, source, list(target))
        self.known[row] = min(self.known[row], length) + len(held)
        self.memory.forget(row, length)

    def replace(self, row: int, source: int) -> None:
        """Row `source` takes the place of row `row`; the last row is dropped."""
        if row != source:
            self.cache.copy_row(source, row, self.known[source])
            self.known[row] = self.known[source]
        self.known.pop()
        self.memory.replace(row, source)
        self.cache = self.store.rows(0, len(self.known))

    def admit(self) -> None:
        """A new text, of which nothing is known, takes the row behind the last."""
        self.known.append(0)
        self.memory.admit()
        self.cache = self.store.rows(0, len(self.known))


class ChainDraftState(ModelDraftState):
    """With a model that drafts a chain or a tree by itself."""

    model: CompiledModel
    cache: SlotCache
    judges = True

    def follow(
        self, text: list[int], path: list[int], score: float, rank: Ranker, levels: int, halt: Halt
    ) -> tuple[list[int], list[float], int]:
        """All levels in one call, or those up to a halt; the model is fed when it is needed."""
        depth = len(path)
        if not path:
            if self.known[0] == 0 or len(text) - self.known[0] > CHUNK:
                self._catch_up([text])
            self.reached = self.known[0]
        self.reached = min(self.reached, len(text) + depth - 1)
        unseen = text[self.reached :] + path[max(self.reached - len(text), 0) :]
        noise = None if rank.sound is None else np.asarray(rank.sound)[:, depth:]
        ranking, past = (rank.temperature, score, depth), self.memory.past(text, path)
        tokens, scores, rank.found, fed = self.model.chain(
            unseen, self.reached, noise, levels, ranking, halt, past, self.cache
        )
        self.reached += fed
        self.known = [min(self.reached, len(text))]
        return tokens, scores, max(self.reached - len(text) + 1, 0)

    def chains(
        self, texts: list[list[int]], growth: Growth, rank: Ranker, thins: bool
    ) -> tuple[Tensor, Tensor]:
        """All levels of all texts in one call."""
        lag = self._catch_up(texts)
        self.known = [len(text) for text in texts]
        ends, rules = [text[-lag:] for text in texts], (len(growth.levels), thins, *growth.lines)
        tokens, path = self.model.chains(
            ends, self.known, rank.sound, rank.temperature, rules, self.memory.pasts(texts),
            self.cache,
        )  # fmt: skip
        return torch.from_numpy(tokens), torch.from_numpy(path)

    def spared(self, text: list[int], path: list[int]) -> list[bool]:
        """Where the past is sure."""
        return self.memory.spared(text, path)

    def branch(
        self, text: list[int], growth: Growth, rank: Ranker, doubt: Doubt | None
    ) -> Drafting:
        """A tree, of all levels between two questions in one call."""
        fed = text[-self._catch_up([text]) :]
        self.known = [len(text)]
        past = self.memory.past(text, [])
        return Beam(self.model, self.cache, past, growth, rank).grow(fed, len(text), doubt)
