"""Recordings: what every plan of a menu drafts at every position of generated texts.

A position is a place where a cycle could begin: after the prompt, or after any generated token. The
positions of all texts stand in one row, text by text. Knows no models and no prices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.shapes import NUMBERS, Pool, Recorded, Shape, columns, gains, levels, pools, served
from envs.shards import Meta, Shard, Text, agreeing, digest, read_meta, read_shards
from spec_core.features import Facts
from spec_core.menu import Menu
from spec_core.plan import Plan

Arrays = dict[str, NDArray]
PER_TEXT = ("prompt", "limit", "count", "told_count")
PER_TOLD = ("told", "tokens")  # a row per token, those behind the text's end included


@dataclass(frozen=True, eq=False)
class Trace:
    """N positions of P texts under M plans; Q tokens, some of them behind the texts' ends."""

    meta: Meta
    texts: list[Text]
    prompt: NDArray  # [P] tokens of the prompt
    limit: NDArray  # [P] most tokens that the text may have
    count: NDArray  # [P] positions: tokens generated
    told_count: NDArray  # [P] tokens recorded: those behind the end included
    told: NDArray  # [Q, 4] top, margin, entropy, surprise of each generated token
    tokens: NDArray  # [Q]
    shapes: Arrays  # the fields of Shape, [N, M] each
    known: tuple[Plan, ...]  # the plans whose candidates were recorded
    pools: list[Arrays]  # the fields of Recorded; levels [N, depth - 1, features]

    def __len__(self) -> int:
        return int(self.count.sum())

    @property
    def menu(self) -> Menu:
        """The plans."""
        return self.meta.menu

    @cached_property
    def first(self) -> NDArray:
        """[P + 1] the first position of every text, and N."""
        return np.concatenate(([0], np.cumsum(self.count, dtype=np.int64)))

    @cached_property
    def text(self) -> NDArray:
        """[N] which text a position is in."""
        return np.repeat(np.arange(len(self.texts)), self.count)

    @cached_property
    def place(self) -> NDArray:
        """[N] tokens generated before the position."""
        return np.arange(len(self)) - self.first[self.text]

    @cached_property
    def lengths(self) -> NDArray:
        """[N] tokens of the text so far, the prompt included."""
        return self.prompt[self.text] + self.place

    @cached_property
    def remaining(self) -> NDArray:
        """[N] tokens that may still come."""
        return self.limit[self.text] - self.lengths

    @cached_property
    def left(self) -> NDArray:
        """[N] tokens that do still come."""
        return self.count[self.text] - self.place

    @cached_property
    def told_at(self) -> NDArray:
        """[N] the row of `told` of the token at this position."""
        begin = np.concatenate(([0], np.cumsum(self.told_count, dtype=np.int64)[:-1]))
        return begin[self.text] + self.place

    @cached_property
    def committed(self) -> NDArray:
        """[N, M] tokens that a cycle from here adds to the text."""
        return np.minimum(self.shapes["accepted"].astype(np.int64) + 1, self.left[:, None])

    @cached_property
    def domains(self) -> NDArray:
        """[P] names."""
        return np.array([text.domain for text in self.texts])

    @cached_property
    def rooms(self) -> NDArray:
        """[N] the deepest tree that fits."""
        return room(self.lengths, self.remaining, self.meta.reach)

    @cached_property
    def _numbers(self) -> NDArray:
        """[N, M, 6] accepted, drafted, depth, expected, trust, doubt."""
        names = ("accepted", "drafted", "depth", *NUMBERS)
        return np.stack([self.shapes[name].astype(np.float32) for name in names], 2)

    def facts(self, positions: NDArray, plans: NDArray) -> Facts:
        """What a cycle with these plans [B] says at these positions [B]."""
        numbers = self._numbers[positions, plans]
        stops = self.told_at[positions] + self.shapes["accepted"][positions, plans]
        return Facts(*numbers.T, *self.told[stops].T)

    def visited(self, plan: int) -> NDArray:
        """Where cycles begin, in all texts, under one plan."""
        at, ends, found = self.first[:-1], self.first[1:], []
        while len(at):
            found.append(at)
            at = at + self.committed[at, plan]
            at, ends = at[at < ends], ends[at < ends]
        return np.concatenate(found)

    def with_menu(self, menu: Menu) -> Trace:
        """The same recording under other plans, as far as its candidates serve them."""
        recorded = [_recorded(pool) for pool in self.pools]
        made = columns(menu.plans, self.known, recorded, self.rooms, self.meta.max_nodes)
        return replace(self, meta=replace(self.meta, menu=menu), shapes=made)

    def _pool(self, plan: Plan) -> tuple[Pool, NDArray]:
        """The candidates that serve a plan, and the entropies behind their best paths."""
        pool = self.pools[served(plan, self.known)]
        return Pool.of(_recorded(pool)), pool["levels"][:, :, -1]

    def levels(self, plan: Plan) -> NDArray:
        """[N, depth, LEVEL_FEATURES] after each level of a plan."""
        pool, entropies = self._pool(plan)
        return levels(plan, pool, self.rooms, entropies)

    def gains(self, plan: Plan) -> NDArray:
        """[N, TREE_FEATURES] of the trees of a plan."""
        return gains(plan, self._pool(plan)[0], self.rooms, self.meta.max_nodes)

    def part(self, texts: Sequence[int]) -> Trace:
        """Some of the texts, in this order."""
        ends, told = self.first[1:], np.cumsum(self.told_count)
        at = np.concatenate([np.arange(ends[i] - self.count[i], ends[i]) for i in texts])
        rows = np.concatenate([np.arange(told[i] - self.told_count[i], told[i]) for i in texts])
        return replace(
            self, texts=[self.texts[i] for i in texts],
            **{name: getattr(self, name)[list(texts)] for name in PER_TEXT},
            **{name: getattr(self, name)[rows] for name in PER_TOLD},
            shapes={name: values[at] for name, values in self.shapes.items()},
            pools=[{name: values[at] for name, values in pool.items()} for pool in self.pools],
        )  # fmt: skip

    def fold(self, every: int) -> tuple[Trace, Trace] | None:
        """All but the last of every so many texts of a domain, and those; None: so many are not."""
        known = Counter[str]()
        held, kept = list[int](), list[int]()
        for i, text in enumerate(self.texts):
            known[text.domain] += 1
            (kept if known[text.domain] % every else held).append(i)
        return (self.part(kept), self.part(held)) if kept and held else None

    @classmethod
    def read(
        cls, folder: str | Path, menu: Menu | None = None, pair: str | None = None,
        strict: bool = True, skip_broken: bool = False,
    ) -> Trace:  # fmt: skip
        """All shards of a folder; refuses another menu or pair than the given ones.

        strict: shards of another recording are refused, not left out.
        """
        path = Path(folder)
        meta = read_meta(path)
        _check(path, meta, menu, pair)
        parts = _split(agreeing(meta, read_shards(path, skip_broken), strict))
        if not parts:
            raise ValueError(f"{path}: no text is recorded there yet; run envs.record to its end")
        return assemble(meta, parts)


def _recorded(pool: Arrays) -> Recorded:
    return Recorded(*(pool[name] for name in Recorded._fields))


def room(lengths: NDArray, remaining: NDArray, reach: int) -> NDArray:
    """The deepest tree that a session would let grow there."""
    return np.minimum(remaining - 1, reach - lengths)


def _check(path: Path, meta: Meta, menu: Menu | None, pair: str | None) -> None:
    if menu is not None and menu != meta.menu:
        raise ValueError(
            f"{path}: recorded for the menu {' '.join(meta.menu.names)}, not for "
            f"{' '.join(menu.names)}; record anew, or use Trace.with_menu"
        )
    if pair is not None and pair != meta.pair:
        raise ValueError(
            f"{path}: recorded with another pair ({meta.pair}, here {pair}); record anew"
        )


Part = tuple[Text, Arrays]


def _split(shards: list[Shard]) -> list[Part]:
    """Every text of the shards once, by id."""
    found: dict[str, Part] = {}
    for shard in shards:
        arrays = shard.arrays()
        for text, part in zip(shard.texts, _cut(arrays), strict=True):
            known = found.setdefault(text.id, (text, part))[0]
            if known.digest != text.digest:
                raise ValueError(f"{shard.path}: prompt {text.id!r} is there twice and differs")
    return [found[name] for name in sorted(found)]


def _cut(arrays: Arrays) -> list[Arrays]:
    """A shard's arrays, text by text."""
    counts = {True: arrays["told_count"], False: arrays["count"]}
    ends = {told: np.cumsum(count)[:-1] for told, count in counts.items()}
    pieces = {
        name: np.split(array, len(array)) if name in PER_TEXT
        else np.split(array, ends[name in PER_TOLD])
        for name, array in arrays.items()
    }  # fmt: skip
    return [{name: parts[i] for name, parts in pieces.items()} for i in range(len(counts[True]))]


def assemble(meta: Meta, parts: list[Part]) -> Trace:
    """A trace of texts and their arrays."""
    whole = {name: np.concatenate([part[name] for _, part in parts]) for name in parts[0][1]}
    known = pools(meta.menu.plans)
    kinds = (*Recorded._fields, "levels")
    return Trace(
        meta, [text for text, _ in parts],
        **{name: whole[name] for name in (*PER_TEXT, *PER_TOLD)},
        shapes={name: whole[name] for name in Shape._fields}, known=known,
        pools=[{kind: whole[f"pool.{g}.{kind}"] for kind in kinds} for g in range(len(known))],
    )  # fmt: skip


def check_disjoint(trace: Trace, prompts: Iterable[dict[str, Any]]) -> None:
    """Refuse prompts that the trace was recorded on, by id or by text."""
    ids = {text.id for text in trace.texts}
    digests = {text.digest: text.id for text in trace.texts}
    for prompt in prompts:
        same = prompt["id"] if prompt["id"] in ids else digests.get(digest(prompt["prompt"]))
        if same is not None:
            raise ValueError(
                f"prompt {prompt['id']!r} is also in the recording (as {same!r}): train and test "
                "must not share prompts; record another split"
            )
