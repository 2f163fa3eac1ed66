"""Learning for a time: what is kept, what is saved how often, and how it goes on after a stop."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from harness import training
from harness.folder import RunFolder
from harness.loggers import Nowhere
from harness.training import LOOKS, Budget, Pretraining, Stopped, Trainer


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when they are told to."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


class Learner:
    """Learns in steps of a second; its policy is the number of its steps."""

    def __init__(self, clock) -> None:
        self.clock, self.steps = clock, 0

    def learn(self, env, steps, watch) -> None:
        going = True
        while going:
            self.steps += 1
            self.clock.seconds += 1
            going = watch(SimpleNamespace(steps=self.steps, metrics={}, reward=0.0))

    def policy(self) -> int:
        return self.steps

    def save(self, path: Path) -> None:
        path.mkdir(exist_ok=True)
        (path / "steps").write_text(str(self.steps))

    def restore(self, path: Path) -> None:
        self.steps = int((path / "steps").read_text())


def kept(folder: RunFolder) -> int:
    """The steps of what was kept."""
    return int((folder.path / "pretrained" / "steps").read_text())


class Bar:
    """Shows nothing."""

    total = 100

    def set_description_str(self, text: str) -> None: ...

    def refresh(self) -> None: ...

    set_postfix_str = set_description_str


def test_the_best_by_the_looks_is_kept(clock, tmp_path):
    learner, folder, seen = Learner(clock), RunFolder(tmp_path), []

    def look(policy: int) -> tuple[int, float, float]:
        seen.append(policy)
        clock.seconds += 100  # looking is not learning
        return policy, {1: 1.0, 2: 0.5, 3: 3.0}.get(len(seen), 2.0), 1.0

    Pretraining(50, learner, None, look, folder, Bar()).run(lambda: False)
    assert len(seen) == LOOKS and seen[-1] == learner.steps == 50
    assert kept(folder) == seen[2]


def test_without_a_look_the_last_is_kept(clock, tmp_path):
    folder = RunFolder(tmp_path)
    Pretraining(20, Learner(clock), None, None, folder, Bar()).run(lambda: False)
    assert kept(folder) == 20


@pytest.mark.parametrize("end", [1, 7, 19])
def test_pretraining_that_was_stopped_goes_on_where_it_was(clock, tmp_path, end):
    folder, learner = RunFolder(tmp_path), Learner(clock)
    with pytest.raises(Stopped):
        Pretraining(20, learner, None, None, folder, Bar()).run(lambda: learner.steps == end)
    again = Learner(clock)
    Pretraining(20, again, None, None, folder, Bar()).run(lambda: False)
    assert kept(folder) == again.steps == 20


@pytest.mark.parametrize(("cost", "apart"), [(0.0, 1), (0.1, 1), (0.5, 5), (2.0, 20)])
def test_every_rollout_is_saved_unless_saving_takes_a_tenth_of_the_time(
    clock, tmp_path, cost, apart
):
    saved = []

    class Costly(Learner):
        def save(self, path: Path) -> None:
            self.clock.seconds += cost
            saved.append(self.steps)
            super().save(path)

    exported = SimpleNamespace(save=lambda folder: None)
    training = Trainer(
        Costly(clock), None, lambda policy: (exported, 1.0, 1.0), Budget(10**9, 5.0),
        RunFolder(tmp_path), Nowhere(), Bar(),
    )  # fmt: skip
    training.run(lambda: False)
    gaps = np.diff(saved[:-2])  # the last two are those of the end
    assert len(gaps) > 8 and 0.9 * apart <= gaps.min() and gaps.max() <= apart + 1


@pytest.mark.parametrize("kills", list(product((1, 2), (1, 2))))
def test_a_folder_is_whole_after_kills_between_its_moves(tmp_path, monkeypatch, kills):
    folder, real = RunFolder(tmp_path), os.replace
    with folder.replacing("state") as path:
        (path / "number").write_text("0")
    for number, kill in enumerate(kills, start=1):
        moves: list[Path] = []

        def move(old, new, moves=moves, kill=kill):
            moves.append(new)
            if len(moves) == kill:
                raise KeyboardInterrupt
            real(old, new)

        monkeypatch.setattr(os, "replace", move)
        with suppress(KeyboardInterrupt), folder.replacing("state") as path:
            (path / "number").write_text(str(number))
        left = folder.whole("state")
        assert left is not None and int((left / "number").read_text()) <= number
