"""Prompts to texts: opens sessions, drives the cycle, gathers what users ask for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from typing import Any

import torch

from spec_core.clock import Seconds, now
from spec_core.cycles import cycle
from spec_core.pair import Pair
from spec_core.plan import Plan
from spec_core.policy import Fixed, Policy
from spec_core.sampling import Sampling
from spec_core.sequence import Ending, Sequence
from spec_core.session import Broken, Outcome, Session
from spec_core.verifiers.base import Verifier
from spec_core.verifiers.coupled import Coupled

# A short chain that ends where the draft doubts: gains on any pair whose draft is several times
# cheaper than its target, and costs little where the draft is poor.
DEFAULT_PLAN = Plan(depth=8, budget=9, threshold=0.1)


@dataclass
class Stats:
    """Counters of a generation; ratios are computed when they are asked for."""

    new_tokens: int = 0
    cycles: int = 0  # of all sequences: a batch of 3 that runs once counts 3
    drafted: int = 0
    accepted: int = 0
    seconds: float = 0.0  # decoding, prefill not included
    prefill_seconds: float = 0.0
    phases: Seconds = field(default_factory=Seconds)

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed."""
        return self.new_tokens / self.seconds if self.seconds else 0.0

    @property
    def tokens_per_cycle(self) -> float:
        """Committed tokens per target forward and sequence."""
        return self.new_tokens / self.cycles if self.cycles else 0.0

    def count(self, outcome: Outcome) -> None:
        """Add one cycle."""
        self.cycles += len(outcome.rows)
        self.new_tokens += sum(map(len, outcome.tokens))
        self.drafted += sum(outcome.drafted)
        self.accepted += sum(outcome.accepted)


@dataclass
class Generation:
    """What was generated: one entry per prompt."""

    tokens: list[list[int]]
    text: list[str]
    endings: list[Ending | None]
    stats: Stats


def request_seed(seed: int, request: int | str) -> int:
    """A request's own seed, from the run's and the request's index or id."""
    digest = hashlib.blake2b(f"{seed}/{request}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


class SpeculativeDecoder:
    """Generates with a pair under a policy; the text is the same under every policy."""

    def __init__(
        self, pair: Pair, policy: Policy | None = None, verifier: Verifier | None = None,
        max_nodes: int = 64,
    ) -> None:  # fmt: skip
        self.pair, self.max_nodes = pair, max_nodes
        self.policy = policy or Fixed(DEFAULT_PLAN)
        self.verifier = verifier or Coupled()

    @torch.no_grad()
    def open(
        self, prompts: Items[str | list[int]], max_new_tokens: int = 128, temperature: float = 0.0,
        top_k: int = 0, top_p: float = 1.0, seed: int = 0, stop: Items[str] = (),
        ids: Items[str] | None = None, ignore_eos: bool = False, room: int = 0,
    ) -> Session:  # fmt: skip
        """A session on these prompts; ids name the requests, so seeds do not depend on order.

        room: tokens of the longest text that will be admitted later, if any.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
        if not prompts:
            raise ValueError("there are no prompts")
        if any(not s for s in stop):
            raise ValueError("a stop string is empty")
        sampling = Sampling(temperature, top_k, top_p)
        names: Items[int | str] = ids if ids is not None else range(len(prompts))
        sequences = [
            self.sequence(prompt, max_new_tokens, request_seed(seed, name), tuple(stop), ignore_eos)
            for prompt, name in zip(prompts, names, strict=True)
        ]
        return Session(self.pair, sequences, sampling, self.verifier, self.max_nodes, room)

    def sequence(
        self, prompt: str | list[int], new: int, seed: int, stop: tuple[str, ...] = (),
        ignore_eos: bool = False,
    ) -> Sequence:  # fmt: skip
        """One request, checked; `seed` is its own."""
        tokens = self.pair.encode(prompt) if isinstance(prompt, str) else list(prompt)
        context = self.pair.target.max_context
        if not tokens:
            raise ValueError("the prompt is empty; give at least one token")
        if not all(0 <= t < self.pair.target.vocab_size for t in tokens):
            raise ValueError(f"a prompt token is not in 0..{self.pair.target.vocab_size - 1}")
        if len(tokens) >= context:
            raise ValueError(
                f"the prompt has {len(tokens)} tokens, the model's context is {context}"
            )
        limit = min(len(tokens) + new, context)
        full = Ending.LENGTH if limit == len(tokens) + new else Ending.CONTEXT
        eos = frozenset() if ignore_eos else self.pair.eos
        return Sequence(tokens, limit, seed, eos, stop, self.pair.decode if stop else None, full)

    @torch.no_grad()
    def run(
        self, session: Session, watch: Callable[[Outcome], None] = lambda outcome: None,
        stats: Stats | None = None,
    ) -> Stats:  # fmt: skip
        """Cycle until every sequence has ended; `watch` sees each outcome, counted in `stats`."""
        stats = stats or Stats()
        stats.prefill_seconds, stats.phases = session.prefill_seconds, session.seconds
        broken: Broken | None = None
        while not session.done and broken is None:
            start = now()
            try:
                outcome = cycle(session, self.policy)
            except Broken as stop:
                outcome, broken = stop.outcome, stop
            stats.seconds += now() - start
            stats.count(outcome)
            watch(outcome)
        if broken:
            raise broken
        return stats

    def generate(
        self,
        prompts: Items[str | list[int]],
        watch: Callable[[Outcome], None] = lambda outcome: None,
        **options: Any,
    ) -> Generation:
        """Generate for each prompt; options are those of `open`.

        What ends it early, as Ctrl-C does, has what was made as its `generation`.
        """
        session = self.open([prompts] if isinstance(prompts, str) else prompts, **options)
        stats = Stats()
        try:
            self.run(session, watch, stats)
        except BaseException as stop:
            stop.generation = self._gather(session, stats)  # type: ignore[attr-defined]
            raise
        return self._gather(session, stats)

    def _gather(self, session: Session, stats: Stats) -> Generation:
        tokens = [s.new for s in session.sequences]
        text = [self.pair.decode(t) if self.pair.tokenizer else "" for t in tokens]
        return Generation(tokens, text, [s.ending for s in session.sequences], stats)
