"""From prompts to recordings: generates each text once, then drafts at every position of it.

Knows no files. Drafting needs the drafter's memory of the text before a position only, and writes
behind it: so the positions of a text are visited from its end to its beginning, and what was
remembered once stays right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from envs.shapes import MOST, Recorded, branches, columns, pools
from envs.shards import Meta, Text, digest
from envs.trace import Arrays, Part, room
from spec_core.decoder import SpeculativeDecoder
from spec_core.features import LEVEL_FEATURES, level_features, target_facts
from spec_core.noise import TARGET, NoiseWindow
from spec_core.pair import Pair
from spec_core.plan import Plan
from spec_core.sampling import Sampling
from spec_core.sequence import Sequence
from spec_core.session import DRAFT_ROOM, Outcome, Session
from spec_core.tree import Tree
from spec_core.verifiers.base import Chance
from spec_core.verifiers.coupled import Coupled

Prompt = dict[str, str]


@dataclass
class Written:
    """A generated text; behind `end` stands what the target would have said next."""

    tokens: list[int]
    prompt: int
    limit: int
    end: int
    seed: int
    told: NDArray  # [tokens behind the prompt, 4]


class Recorder:
    """Records texts of one pair under one menu; `rows` positions are drafted at a time."""

    def __init__(self, pair: Pair, meta: Meta, rows: int = 16) -> None:
        if pair.drafter is None:
            raise ValueError("the pair has no draft model: there is nothing to record")
        meta.menu.check(meta.max_nodes, pair.target.vocab_size)
        self.pair, self.meta, self.rows = pair, meta, rows
        self.plans = pools(meta.menu.plans)
        self.tail = max(plan.depth for plan in meta.menu.plans)
        self.verifier = Coupled(meta.coupled)
        self.decoder = SpeculativeDecoder(pair, None, self.verifier, meta.max_nodes)

    @torch.no_grad()
    def record(self, prompts: list[Prompt]) -> Iterator[Part]:
        """Each prompt's text and its arrays."""
        written = self._write(prompts)
        longest = max(len(text.tokens) for text in written)
        places = _Places(self.pair, self.rows, longest, self.meta, self.verifier)
        for prompt, text in zip(prompts, written, strict=True):
            about = Text(prompt["id"], prompt.get("domain", "all"), digest(prompt["prompt"]))
            yield about, self._arrays(text, places)

    def _write(self, prompts: list[Prompt]) -> list[Written]:
        """Generate; a text that ends early goes on until the longest draft from it has ended."""
        meta, told = self.meta, [list[NDArray]() for _ in prompts]
        session = self.decoder.open(
            [p["prompt"] for p in prompts], meta.max_new_tokens, meta.temperature, meta.top_k,
            meta.top_p, meta.seed, ids=[p["id"] for p in prompts], ignore_eos=True,
        )  # fmt: skip
        limits = [sequence.limit for sequence in session.sequences]
        ends = list(limits)

        def watch(outcome: Outcome) -> None:
            for b, (row, tokens) in enumerate(zip(outcome.rows, outcome.tokens, strict=True)):
                nodes = [0, *outcome.path[b]][: len(tokens)]
                logits = outcome.logits[b, nodes].float().cpu().numpy()
                told[row].append(np.stack(target_facts(logits, tokens), 1))
                sequence = session.sequences[row]
                begin = len(sequence.tokens) - len(tokens)
                last = [begin + i for i, token in enumerate(tokens) if token in self.pair.eos]
                if last and ends[row] == limits[row]:
                    ends[row] = last[0] + 1
                    sequence.limit = min(sequence.limit, ends[row] + self.tail)

        self.decoder.run(session, watch)
        return [
            Written(s.tokens, s.prompt, limit, end, s.seed, np.concatenate(facts))
            for s, limit, end, facts in zip(session.sequences, limits, ends, told, strict=True)
        ]

    def _arrays(self, text: Written, places: _Places) -> Arrays:
        count = text.end - text.prompt
        lengths = np.arange(text.prompt, text.end)
        drafted = [_Drafted(plan, count) for plan in self.plans]
        places.forget()
        for last in range(text.end - 1, text.prompt - 1, -self.rows):
            chunk = [max(last - row, text.prompt) for row in range(self.rows)]
            places.move(text, chunk)
            for made in drafted:
                made.take(np.array(chunk) - text.prompt, *places.grow(made.plan))
        known = [Recorded(made.scores, made.parents, made.hits, made.spared) for made in drafted]
        rooms = room(lengths, text.limit - lengths, self.meta.reach)
        plans, nodes = self.meta.menu.plans, self.meta.max_nodes
        per_text = {"prompt": text.prompt, "limit": text.limit, "count": count}
        per_text["told_count"] = len(text.told)
        return {
            **{name: np.array([value], np.int32) for name, value in per_text.items()},
            "told": text.told.astype(np.float32),
            "tokens": np.array(text.tokens[text.prompt :], np.int32),
            **columns(plans, self.plans, known, rooms, nodes),
            **{f"pool.{g}.{k}": v for g, d in enumerate(drafted) for k, v in d.arrays.items()},
        }  # fmt: skip


class _Drafted:
    """The candidates of one plan at the positions of one text."""

    def __init__(self, plan: Plan, count: int) -> None:
        self.plan = plan
        self.scores = np.full((count, plan.budget), -np.inf, np.float32)
        self.parents = np.zeros((count, plan.budget), np.uint8)
        self.hits = np.zeros((count, plan.budget), np.bool_)
        self.spared = np.zeros((count, plan.depth), np.bool_)
        self.levels = np.zeros((count, plan.depth - 1, len(LEVEL_FEATURES)), np.float32)

    @property
    def arrays(self) -> Arrays:
        """By name."""
        names = ("scores", "parents", "hits", "spared", "levels")
        return {name: getattr(self, name) for name in names}

    def take(
        self, rows: NDArray, tree: Tree, hits: torch.Tensor, spared: NDArray, levels: list[NDArray]
    ) -> None:
        """Keep what was drafted at some positions."""
        nodes = tree.nodes
        self.scores[rows, :nodes] = tree.scores.float().cpu().numpy()
        self.parents[rows, :nodes] = tree.parents.cpu().numpy()
        self.hits[rows, :nodes] = hits.cpu().numpy()
        self.spared[rows, : spared.shape[1]] = spared
        for depth, values in enumerate(levels):
            self.levels[rows, depth] = values


class _Places(Session):
    """Positions of one text as the rows of a batch: drafts like a session, runs no target."""

    def __init__(self, pair: Pair, rows: int, longest: int, meta: Meta, verifier: Coupled) -> None:
        assert pair.drafter is not None
        self.pair, self.target, self.verifier = pair, pair.target, verifier
        self.max_nodes, self.rows = MOST + 1, list(range(rows))
        sampling = Sampling(meta.temperature, meta.top_k, meta.top_p)
        self.drafting = pair.drafter.open(rows, longest + DRAFT_ROOM, sampling.greedy)
        depth = max(plan.depth for plan in meta.menu.plans)
        window = NoiseWindow(pair.target.vocab_size, TARGET, depth + 1)
        self.chance = Chance(sampling, [], [], window, pair.target.device)

    def forget(self) -> None:
        """Another text comes."""
        self._rewind(0 for _ in self.rows)

    def move(self, text: Written, positions: list[int]) -> None:
        """To lengths of a text, each not behind where its row was before."""
        self.sequences = [Sequence(text.tokens[:i], text.limit, text.seed) for i in positions]
        ahead = [text.tokens[i : i + MOST] for i in positions]
        width = max(map(len, ahead))
        padded = [[*tokens, *[-2] * (width - len(tokens))] for tokens in ahead]
        self.ahead = torch.tensor(padded, device=self.target.device)  # [B, tokens that come]

    def _rewind(self, lengths: Iterable[int]) -> None:
        """Let the drafter know no more than so much of each text."""
        assert self.drafting is not None
        for row, length in enumerate(lengths):
            self.drafting.commit(row, length, [])

    def grow(self, plan: Plan) -> tuple[Tree, torch.Tensor, NDArray, list[NDArray]]:
        """Trees, which nodes the text will match, levels that cost nothing, features of levels."""
        self._rewind(len(s.tokens) - 1 for s in self.sequences)
        nobody = torch.zeros(len(self.rows), dtype=torch.bool)
        growing, levels = self.draft([plan] * len(self.rows), ask=True), list[NDArray]()
        try:
            view = next(growing)
            while True:
                levels.append(level_features(view))
                view = growing.send(nobody)
        except StopIteration as grown:
            tree: Tree = grown.value
        return tree, self._hits(tree), self._spared(plan, tree), levels

    def _spared(self, plan: Plan, tree: Tree) -> NDArray:
        """[B, levels] which of a chain's one text would draft by itself at hardly any cost."""
        assert self.drafting is not None
        if branches(plan):
            return np.zeros((len(self.rows), 0), bool)
        paths = zip(self.sequences, tree.tokens[:, 1:].tolist(), strict=True)
        return np.array([self.drafting.spared(text.tokens, path) for text, path in paths])

    def _hits(self, tree: Tree) -> torch.Tensor:
        """[B, N] whether the text goes through a node."""
        step = (tree.depths - 1).clamp(min=0, max=self.ahead.shape[1] - 1)
        same = tree.tokens == self.ahead.gather(1, step)
        same[:, 0] = True
        return (same[:, None, :] | ~tree.ancestors).all(2)
