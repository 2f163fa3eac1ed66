"""Follows the texts of a session from cycle to cycle; what is computed is in `features`."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spec_core.facts import address, at_hand, facts, said_of, sources, stop_logits
from spec_core.features import (
    FEATURES,
    FRESH,
    Array,
    Wide,
    along,
    follow_all,
    moved,
    place_level,
)
from spec_core.tree import Grown, Line

if TYPE_CHECKING:
    from collections.abc import Callable

    from spec_core.session import Observation, Outcome

NEW = FRESH, address(FRESH)  # of who has not been in a cycle; only read
NOWHERE = (0,) * 11  # nothing of `sources` is looked at
CHAIN = np.zeros((4, 1, 0), np.int64)  # its parents and depths are known
IDLE = -1, 0, 0, 0, 0  # nothing was said of a sequence


@cache
def ready() -> None:
    """Have the machine code at hand before a clock runs; once for all."""
    rows, numbers = np.zeros((1, len(FEATURES)), np.float32), np.zeros(16, np.float32)
    there, history = numbers.ctypes.data, FRESH.copy()
    for place in (0, -1):
        texts = np.array([(address(history), 1, 1, 1, place, 0, 0, 0, 0)])
        follow_all(rows, texts, 0.0, (there, 0, 0, there, 1, len(numbers), *NOWHERE[6:]))
    place_level(rows, 0, 1, 0.0, 0.0, 1.0, 1.0, there, len(numbers))
    rehearse(along, len(FEATURES))


def rehearse(move: Callable, size: int) -> None:
    """The same of what is to take a glance at rows of that size."""
    rows, logits = np.zeros((1, size), np.float32), np.zeros((1, 2, 8), np.float32)
    for view in (logits, logits[:, :, :7]):  # rows may have room behind them
        move(rows, FRESH.copy(), 1, 1, 0.0, np.zeros((1, 2), np.float32), CHAIN, view, *[0] * 5)


class Extractor:
    """Follows the requests of one session and gives their features; one call per cycle.

    room: columns behind the features, for who adds to them.
    """

    def __init__(self, projections: int = 0, room: int = 0) -> None:
        ready()
        self.projections = projections  # low-rank features of the target's last hidden state
        self.requests: dict[int, tuple[Wide, int]] = {}  # histories, and where they are
        self.hidden: dict[int, Array] = {}
        self.seen: list | None = None  # the last outcome's paths; to hold all of it costs time
        self.places: dict[int, int] = {}  # in that outcome, of requests that nobody looked at since
        self.matrix: Array | None = None
        self.near: bool | None = None  # whether the tensors of this session can be read in place
        self.rows = np.zeros((0, self.size + room), np.float32)

    @property
    def size(self) -> int:
        """Floats per sequence."""
        return len(FEATURES) + self.projections

    def observe(self, observation: Observation) -> Array:
        """The features [B, size] of the sequences at work."""
        return self.look(observation)[:, : self.size].copy()

    def look(self, observation: Observation) -> Array:
        """The same and the room behind them, [B, size + room], until somebody looks again."""
        if self.glance(observation, along) is not None:
            return self.rows
        last = observation.last
        if last is None:
            self.requests, self.hidden, self.near, self.places = {}, {}, None, {}
        elif last.path is not self.seen:
            self.places, self.seen = self._learn(last), last.path
        if len(self.rows) != observation.batch:
            self.rows = np.zeros((observation.batch, self.rows.shape[1]), np.float32)
        where = sources(last) if last is not None and self.places else NOWHERE
        follow_all(self.rows, self._texts(observation), float(observation.temperature), where)
        if self.projections:
            for known, row in zip(self.rows, observation.rows, strict=True):
                known[len(FEATURES) : self.size] = self.hidden.get(row, 0)
        return self.rows

    def _texts(self, observation: Observation) -> NDArray[np.int64]:
        """What `follow_all` reads of every sequence."""
        last, texts = observation.last, []
        said = said_of(last) if last is not None and self.places else []
        for b, row in enumerate(observation.rows):
            place, (_, where) = self.places.pop(row, -1), self.requests.get(row, NEW)
            seen = IDLE if place < 0 else said[place]
            first = int(row not in self.requests)
            texts.append((where, observation.lengths[b], observation.remaining[b], first, *seen))
        return np.array(texts)

    def glance(self, observation: Observation, move: Callable) -> Any:
        """What `along`, or who calls it, says of the only text, whose tree is read where it is.

        None: it is not so, or there is nothing new; then one has to look.
        """
        last, rows = observation.last, observation.rows
        if last is None or type(last.scored) is not np.ndarray or last.rows != rows:
            return None
        tree, mine = last.tree, self.requests.get(rows[0])
        if mine is None or last.path is self.seen or self.projections or len(self.rows) != 1:
            return None
        if type(tree) is Line:
            numbers = CHAIN
        elif type(tree) is Grown:
            numbers = tree.numbers
        else:
            return None
        self.seen, self.places = last.path, {}
        return move(
            self.rows, mine[0], observation.lengths[0], observation.remaining[0],
            float(observation.temperature), tree.path, numbers, last.scored, *said_of(last)[0],
        )  # fmt: skip

    def _learn(self, outcome: Outcome) -> dict[int, int]:
        """The requests whose histories are moved on when they are looked at: their places."""
        if self.near is None:
            self.near = at_hand(outcome)
        for row in outcome.rows:
            if row not in self.requests:
                history = FRESH.copy()
                self.requests[row] = history, address(history)
        if self.projections:
            self.hidden |= dict(zip(outcome.rows, self._project(outcome), strict=True))
        if self.near:
            return {row: b for b, row in enumerate(outcome.rows)}
        for row, seen in zip(outcome.rows, facts(outcome), strict=True):
            history, _ = self.requests[row]
            history[:] = moved(history, seen)
        return {}

    def _project(self, outcome: Outcome) -> Array:
        """Fixed random directions of the logits: a linear map of the target's last hidden state."""
        logits: Array = stop_logits(outcome).cpu().numpy()
        if self.matrix is None:
            noise = np.random.default_rng(0).standard_normal((logits.shape[1], self.projections))
            self.matrix = (noise / logits.shape[1] ** 0.5).astype(np.float32)
        return (logits - logits.mean(1, keepdims=True)) @ self.matrix / 4
