"""Repeated measurements of many cells, interleaved; knows nothing of what is measured.

In each round all cells have their turn, in random order: a slow cell takes once, a quick one a few
times. Rounds go on while another one fits into the time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from spec_core.clock import now

Key = tuple[Any, ...]  # what is measured, and the cell
Measure = Callable[[], float]  # seconds
Tell = Callable[[str, float, float], None]  # what goes on, seconds so far and in all
LEAST = 3  # rounds, whatever they take
TAKES = 12  # of a quick cell in one turn


class Rounds:
    """Takes of every cell, round after round, until `seconds` after `start`."""

    def __init__(
        self, cells: dict[Key, Measure], tell: Tell, start: float, seconds: float
    ) -> None:  # fmt: skip
        self.cells, self.tell, self.start, self.seconds = cells, tell, start, seconds
        self.found: dict[Key, list[float]] = {key: [] for key in cells}
        self.order, self.chance = list(cells), random.Random(0)
        self.number, self.expected = 0, seconds

    @property
    def spent(self) -> float:
        """Seconds so far."""
        return now() - self.start

    def _turns(self, takes: dict[Key, int], said: str) -> dict[Key, float]:
        """One round; the seconds that each cell's turn took, its preparation included."""
        spent: dict[Key, float] = {}
        for key in self.chance.sample(self.order, len(self.order)):
            begin = now()
            self.found[key] += [self.cells[key]() for _ in range(takes[key])]
            spent[key] = now() - begin
            self.tell(said, self.spent, self.expected)
        return spent

    def warm_up(self) -> float:
        """A round that is not counted; it says how often each cell takes, and what a round will."""
        turns = self._turns(dict.fromkeys(self.order, 1), "warming up")
        self.found = {key: [] for key in self.order}
        usual = float(np.median(list(turns.values())))  # some were compiled meanwhile
        self.takes = {key: min(TAKES, max(1, int(usual / s))) for key, s in turns.items()}
        return sum(self.takes[key] * s for key, s in turns.items())

    def once(self) -> float:
        """One round; its seconds."""
        self.number += 1
        return sum(self._turns(self.takes, f"round {self.number}").values())

    def run(self, most: int) -> dict[Key, list[float]]:
        """At least LEAST rounds and at most `most`."""
        last = self.warm_up()
        while self.number < most and (self.number < LEAST or self.spent + last <= self.seconds):
            fitting = int((self.seconds - self.spent) / last)
            left = min(max(fitting, LEAST - self.number), most - self.number)
            self.expected = self.spent + last * left
            last = self.once()
        return self.found


def spread(values: list[float]) -> float:
    """Relative spread of one take, from the median distance to the median."""
    found = np.array(values) / np.median(values)
    return float(1.4826 * np.median(np.abs(found - 1)))


@contextmanager
def bar() -> Iterator[Tell]:
    """A progress bar over seconds."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    said = TextColumn("{task.description}"), TextColumn("{task.fields[left]}")
    columns = (said[0], BarColumn(), TimeElapsedColumn(), said[1])
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("measuring", left="")

        def tell(what: str, seconds: float, whole: float) -> None:
            left = f"{max(0.0, whole - seconds):.0f} s left"
            whole = max(whole, seconds)
            progress.update(task, description=what, completed=seconds, total=whole, left=left)

        yield tell
