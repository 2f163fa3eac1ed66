"""Prompts for environments: checked, encoded, and served pass after pass. Knows no sessions."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from spec_core.decoder import SpeculativeDecoder, request_seed
from spec_core.sequence import Sequence


@dataclass(frozen=True)
class Prompt:
    """One text's beginning."""

    id: str
    domain: str
    tokens: tuple[int, ...]


def read_prompts(decoder: SpeculativeDecoder, items: Iterable[dict[str, Any]]) -> list[Prompt]:
    """Prompts {"id", "domain", "prompt"}, whose text may be a string or tokens."""
    made = []
    for item in items:
        if not isinstance(item, dict) or "id" not in item or "prompt" not in item:
            raise ValueError('a prompt is an object {"id", "domain", "prompt"}')
        try:
            tokens = decoder.sequence(item["prompt"], 1, 0).tokens
        except ValueError as error:
            raise ValueError(f"prompt {item['id']}: {error}") from None
        made.append(Prompt(str(item["id"]), str(item.get("domain", "")), tuple(tokens)))
    if not made:
        raise ValueError("there are no prompts; give at least one")
    return made


class Feed:
    """All prompts, then all again, in an order that seed and pass determine.

    In the first pass a prompt's text is that of `SpeculativeDecoder.generate` with the same seed
    and id; sampled texts of later passes differ.
    """

    def __init__(
        self, decoder: SpeculativeDecoder, prompts: list[Prompt], new: int, shuffle: bool
    ) -> None:
        if new < 1:
            raise ValueError(f"max_new_tokens must be at least 1, not {new}")
        self.decoder, self.prompts, self.new, self.shuffle = decoder, prompts, new, shuffle
        self.begin(0)

    def begin(self, seed: int, taken: int = 0) -> None:
        """Start over, or where `taken` prompts were handed out."""
        self.seed, self.taken, self.turn = seed, taken, -1
        self.order = list(range(len(self.prompts)))

    @property
    def room(self) -> int:
        """Tokens of the longest text there will be."""
        longest = max(len(prompt.tokens) for prompt in self.prompts)
        return min(longest + self.new, self.decoder.pair.target.max_context)

    def take(self) -> tuple[Prompt, Sequence]:
        """The next prompt, and its request."""
        turn, place = divmod(self.taken, len(self.prompts))
        if turn != self.turn and self.shuffle:
            self.order.sort()
            random.Random(f"{self.seed}/{turn}").shuffle(self.order)
        self.turn, self.taken = turn, self.taken + 1
        prompt = self.prompts[self.order[place]]
        name = f"{prompt.id}#{turn}" if turn else prompt.id
        own = request_seed(self.seed, name)
        return prompt, self.decoder.sequence(list(prompt.tokens), self.new, own)
