"""One request: its tokens, its seed and where it ends; knows no models and no trees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum


class Ending(Enum):
    """Why a sequence stopped."""

    EOS = "eos"
    STOP = "stop"  # a stop string was completed
    LENGTH = "length"  # max_new_tokens
    CONTEXT = "context"  # the model's context is full
    BROKEN = "broken"  # the target's logits were not finite


@dataclass
class Sequence:
    """A growing text; `limit` is the most tokens it may have, the prompt included."""

    tokens: list[int]
    limit: int
    seed: int = 0
    eos: frozenset[int] = frozenset()
    stops: tuple[str, ...] = ()
    decode: Callable[[list[int]], str] | None = None  # only needed with stops
    full: Ending = Ending.LENGTH  # which limit it is
    ending: Ending | None = None
    prompt: int = field(init=False)

    def __post_init__(self) -> None:
        self.prompt = len(self.tokens)
        assert not self.stops or self.decode is not None, "stop strings need a decoder"
        if self.remaining <= 0:
            self.ending = self.full

    @property
    def remaining(self) -> int:
        """Tokens that may still come."""
        return self.limit - len(self.tokens)

    @property
    def new(self) -> list[int]:
        """The tokens that were generated."""
        return self.tokens[self.prompt :]

    def extend(self, tokens: list[int]) -> list[int]:
        """Append up to the end of the sequence, exactly where one token at a time would end it."""
        before = len(self.tokens)
        for token in tokens:
            self.tokens.append(token)
            if token in self.eos:
                self.ending = Ending.EOS
            elif self.stops and self._stopped():
                self.ending = Ending.STOP
            elif len(self.tokens) >= self.limit:
                self.ending = self.full
            if self.ending is not None:
                break
        return self.tokens[before:]

    def _stopped(self) -> bool:
        assert self.decode is not None
        # a character is at most 4 tokens (bytes), so the tail holds any stop string
        tail = self.new[-(4 * max(map(len, self.stops)) + 4) :]
        return any(stop in self.decode(tail) for stop in self.stops)
