"""A batch of sequences at work: what is known of it, and the steps of which a cycle is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from spec_core.clock import Seconds, clock, now
from spec_core.doubt import Doubt
from spec_core.drafters.base import DraftState
from spec_core.drafters.lm import prefill, straight
from spec_core.drafting import Drafting, draft
from spec_core.growth import grow, rounds
from spec_core.models.base import View
from spec_core.plan import Plan
from spec_core.sampling import Sampling
from spec_core.sequence import Ending, Sequence
from spec_core.tensors import ahead, tensor
from spec_core.tree import NOTHING, Grown, Line, Tree
from spec_core.verifiers.base import Verifier, chance

if TYPE_CHECKING:
    from spec_core.pair import Pair


DRAFT_ROOM = 512  # nodes that one cycle may expand


def most_nodes(plan: Plan, context: int) -> int:
    """A bound on the nodes that a plan can grow in this context."""
    expanded = min(1 + plan.width * (min(plan.depth, context) - 1), DRAFT_ROOM)
    return min(plan.budget, 1 + (plan.children or plan.width) * expanded)


@dataclass(slots=True)
class Observation:
    """What a policy may know before it plans; one entry per sequence still at work."""

    rows: list[int]  # which request each entry is
    lengths: list[int]  # tokens of the text so far, the prompt included
    remaining: list[int]  # tokens that may still come
    temperature: float
    last: Outcome | None  # the cycle before; its entries are those of its own `rows`

    @property
    def batch(self) -> int:
        """Sequences at work."""
        return len(self.rows)


@dataclass(slots=True)
class Outcome:
    """What a cycle produced, one entry per sequence that was at work in it."""

    rows: list[int]
    plans: list[Plan]  # as they were run: shrunk where they did not fit
    tokens: list[list[int]]  # committed: the accepted, the bonus; cut where the sequence ended
    accepted: list[int]
    drafted: list[int]  # nodes verified, the root not counted
    tree: Tree
    path: list[list[int]]  # accepted nodes
    bonus: list[int]  # the target's own token behind the path, committed unless the text ended
    scored: Any  # the target's logits [B, N, V], a tensor or an array
    seconds: Seconds = field(default_factory=Seconds)

    @property
    def logits(self) -> torch.Tensor:
        """The target's logits [B, N, V]."""
        return torch.as_tensor(self.scored)


class Broken(RuntimeError):
    """The target gave no usable logits; the tokens so far are kept, and the outcome that broke."""

    def __init__(self, said: str, outcome: Outcome) -> None:
        super().__init__(said)
        self.outcome = outcome


class Session:
    """Sequences of one pair, advanced cycle by cycle; finished ones leave the batch."""

    def __init__(
        self, pair: Pair, sequences: list[Sequence], sampling: Sampling, verifier: Verifier,
        max_nodes: int = 64, room: int = 0,
    ) -> None:  # fmt: skip
        assert sequences, "a session needs at least one sequence"
        assert all(s.tokens for s in sequences), "a sequence needs at least one token"
        self.pair, self.target, self.verifier = pair, pair.target, verifier
        self.sequences, self.max_nodes = sequences, max_nodes
        self.rows = list(range(len(sequences)))
        self.capacity = len(sequences)
        self.longest = longest = max(room, *(s.limit for s in sequences))
        slots = longest + max_nodes + 8
        self.store = self.cache = self.target.new_cache(len(sequences), slots)
        self.drafting: DraftState | None = None
        if pair.drafter is not None:
            self.drafting = pair.drafter.open(len(sequences), longest + DRAFT_ROOM, sampling.greedy)
        self.chance = chance(sampling, self.target.vocab_size, self.target.device)
        self.seconds, self.cycles = Seconds(), 0
        self.clock = clock(self.target.device)
        self.last: Outcome | None = None
        start = now()
        for row, sequence in enumerate(sequences):
            prefill(self.target, self.cache, row, sequence.tokens[:-1], 0)
        self.prefill_seconds = now() - start
        self._drop_finished()

    @cached_property
    def near(self) -> bool:
        """Whether a host read waits for nothing."""
        return self.target.device.type == "cpu"

    @property
    def done(self) -> bool:
        """Whether every sequence has ended."""
        return not self.rows

    @property
    def active(self) -> list[Sequence]:
        """The sequences still at work, in row order."""
        return [self.sequences[row] for row in self.rows]

    def observe(self) -> Observation:
        """What policies may know now."""
        rows, lengths, remaining = self.rows[:], [], []
        for row in rows:  # without calls: in cold caches each takes a microsecond
            sequence = self.sequences[row]
            length = len(sequence.tokens)
            lengths.append(length)
            remaining.append(sequence.limit - length)
        return Observation(rows, lengths, remaining, self.chance.sampling.temperature, self.last)

    def fit(self, plans: list[Plan]) -> tuple[Plan, ...]:
        """Plans shrunk to what each sequence can still use; the text does not depend on it."""
        assert len(plans) == len(self.rows), f"{len(plans)} plans for {len(self.rows)} sequences"
        reach = self.pair.drafter.max_context if self.pair.drafter is not None else 0
        fitted, width, depth = tuple[Plan, ...](), 0, 0
        for row, wanted in zip(self.rows, plans, strict=True):
            sequence = self.sequences[row]
            length = len(sequence.tokens)
            room = min(sequence.limit - length - 1, reach - length, DRAFT_ROOM)
            plan = wanted.within(room, self.max_nodes)
            fitted += (plan,)
            width = max(width, plan.budget if plan.template else plan.width)
            depth = max(depth, plan.depth)
        if width * depth <= DRAFT_ROOM:  # an upper bound
            return fitted
        depth = rounds(fitted, DRAFT_ROOM)
        return tuple(plan.within(depth, plan.budget) for plan in fitted)

    def draft(self, plans: list[Plan], ask: bool | Doubt = False) -> Drafting:
        """Grow one tree per sequence; `ask`: with questions, after all levels or those in doubt."""
        active = self.active
        self.plans = self.fit(plans)
        self.chance.seeds = [s.seed for s in active]
        self.chance.lengths = [len(s.tokens) for s in active]
        growth = grow(self.plans, self.verifier.sampled and not self.greedy, self.target.device)
        depth = len(growth.levels)
        alone, roots = self.near and len(active) == 1, None
        if not alone:  # an upload waits for the device: here nothing is under way yet
            roots = tensor([s.tokens[-1:] for s in active], self.target.device)
        if not self.near:
            self.base = self._base()
            self.verifier.prepare(self.chance, depth)
        if growth.idle:
            return Line(active[0].tokens[-1:], [0.0], 0) if roots is None else Tree.roots(roots)
        assert self.drafting is not None
        if growth.children > self.target.vocab_size:
            raise ValueError("the plan asks for more children than the vocabulary has tokens")
        rank = self.verifier.ranker(self.chance, depth)
        texts = [s.tokens for s in active]
        tree = yield from draft(self.drafting, texts, growth, rank, roots, ask)
        if tree.chain or not self.near:
            return tree
        return tree.first(max(tree.counts))  # a host read is free, padding is not

    @property
    def greedy(self) -> bool:
        """Whether the text is the argmax at every step."""
        return self.chance.sampling.greedy

    def _base(self) -> torch.Tensor:
        """The roots' slots [B, 1]."""
        return self.chance.column([length - 1 for length in self.chance.lengths])

    def score(self, tree: Tree) -> Any:
        """The target's logits [B, N, V] on the trees, a tensor or an array: one forward."""
        lengths = self.chance.lengths
        if isinstance(tree, Line) and hasattr(self.target, "feed"):
            return self.target.feed(tree.row, lengths[0] - 1, self.cache, tree.nodes)
        if isinstance(tree, Grown) and hasattr(self.target, "branch"):
            return self.target.branch(tree.numbers, tree.sees, lengths[0] - 1, self.cache)
        if tree.chain and len(lengths) == 1:
            return straight(self.target, tree.tokens, lengths[0] - 1, self.cache, tree.nodes)
        base = self._base() if self.near else self.base
        slots = ahead(base, 0, tree.nodes)
        positions = slots if tree.chain else base + tree.depths
        span = max(lengths) - 1 + tree.nodes
        view = View(base[:, 0], tree.ancestors, span)
        return self.target.forward(tree.tokens, positions, slots, view, self.cache, keep=tree.nodes)

    def verify(self, tree: Tree) -> Outcome:
        """One target forward, accept, keep the accepted path's KV, end what has ended."""
        start = self.clock.mark()
        logits = self.score(tree)
        verdict = self.verifier.accept(logits, tree, self.chance)
        verified, read = self.clock.mark(), now()
        rows = list(self.rows)
        tokens, broken = list[list[int]](), list[int]()
        for row, request in enumerate(rows):
            sequence = self.sequences[request]
            if tree.nodes > 1:
                self._keep(row, len(sequence.tokens), verdict.path[row], verdict.slots[row])
            tokens.append(sequence.extend(verdict.tokens[row]))
            if not verdict.finite[row] and sequence.ending is None:
                sequence.ending = Ending.BROKEN
                broken.append(request)
        self._drop_finished()
        self.cycles += 1
        outcome = Outcome(
            rows, list(self.plans), tokens, [len(path) for path in verdict.path],
            verdict.drafted, tree, verdict.path,
            [made[-1] if made else NOTHING for made in verdict.tokens], logits,
            Seconds(verify=self.clock.between(start, verified), commit=now() - read),
        )  # fmt: skip
        if broken:
            raise Broken(
                f"the target's logits are not finite at step {self.cycles} (sequence {broken[0]}, "
                f"token {len(self.sequences[broken[0]].tokens) + 1}); the tokens so far are kept",
                outcome,
            )
        return outcome

    def count(self, outcome: Outcome) -> None:
        """Make a finished round the last one and add its seconds up."""
        self.last = outcome
        self.seconds.add(outcome.seconds)

    def _keep(self, row: int, length: int, path: list[int], slots: list[int]) -> None:
        """Move the accepted nodes' KV behind the text, in the target's cache and the drafter's."""
        if path and path[-1] != len(path):  # children come behind their parents
            source = [length - 1 + node for node in path]
            target = list(range(length, length + len(path)))
            self.cache.move(row, source, target)
        if self.drafting is not None:
            self.drafting.commit(row, length, slots)

    def admit(self, sequence: Sequence) -> int:
        """Put a new sequence where an ended one was; returns its request number."""
        assert len(self.rows) < self.capacity, "every place of the batch is taken"
        assert sequence.limit <= self.longest, "the session's caches are too short for it"
        start = now()
        self.sequences.append(sequence)
        self.rows.append(len(self.sequences) - 1)
        self.cache = self.store.rows(0, len(self.rows))
        prefill(self.target, self.cache, len(self.rows) - 1, sequence.tokens[:-1], 0)
        if self.drafting is not None:
            self.drafting.admit()
        self.prefill_seconds += now() - start
        return self.rows[-1]

    def _drop_finished(self) -> None:
        """Ended sequences leave; the last one takes the place of each."""
        ended = [r for r, i in enumerate(self.rows) if self.sequences[i].ending is not None]
        if not ended:
            return
        for row in reversed(ended):
            last = len(self.rows) - 1
            if row != last:
                length = len(self.sequences[self.rows[last]].tokens)
                self.cache.copy_row(last, row, length)
                self.rows[row] = self.rows[last]
            if self.drafting is not None:
                self.drafting.replace(row, last)
            self.rows.pop()
        if self.rows:
            self.cache = self.store.rows(0, len(self.rows))
