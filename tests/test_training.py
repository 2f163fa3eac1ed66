"""Learning for a time: what is kept, said and saved how often, and how it goes on after an end."""

from __future__ import annotations

import csv
import errno
import os
from contextlib import suppress
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from tqdm import tqdm

from harness import training
from harness.folder import RunFolder
from harness.loggers import Nowhere
from harness.run import BAR
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
        while going and self.steps < steps:
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


class Exported(NamedTuple):
    """What a look finds worth keeping of a policy: the number."""

    steps: int

    def save(self, path: Path) -> None:
        (path / "steps").write_text(str(self.steps))


def kept(folder: RunFolder, name: str = "pretrained") -> int:
    """The steps of what was kept."""
    return int((folder.path / name / "steps").read_text())


class Bar:
    """Keeps what it is to show."""

    total, n = 100, 0

    def __init__(self) -> None:
        self.said: list[str] = []
        self.behind: list[str] = []

    def set_description_str(self, text: str) -> None:
        self.said.append(text)

    def set_postfix_str(self, text: str) -> None:
        self.behind.append(text)

    def refresh(self) -> None: ...


class World:
    """An env that gets faster by a token per second every second."""

    def __init__(self, clock) -> None:
        self.clock = clock

    @property
    def rate(self) -> float:
        return self.clock.seconds


def steady(policy: int) -> tuple[Exported, float, float]:
    """A look to which all policies are alike."""
    return Exported(policy), 1.0, 1.0


def trainer(learner: Learner, path: Path, look=steady, **others) -> Trainer:
    """One that learns for a minute and looks every ten seconds."""
    usual = {"env": None, "budget": Budget(10**9, 1.0, 10.0), "logger": Nowhere(), "bar": Bar()}
    return Trainer(learner, look=look, folder=RunFolder(path), **{**usual, **others})


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

    never = {"look": lambda policy: (Exported(policy), 0.0, 1.0), "budget": Budget(10**9, 5.0)}
    trainer(Costly(clock), tmp_path, **never).run(lambda: False)  # what is exported is saved soon
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


def test_the_policy_furthest_ahead_of_the_static_plan_is_exported(clock, tmp_path):
    speeds = iter([(1, 1), (2, 1), (3, 1), (40, 20), (1, 1), (5, 2), (2, 1)])

    def look(policy: int) -> tuple[Exported, float, float]:
        clock.seconds += 100  # looking is not learning
        return Exported(policy), *next(speeds)

    made = trainer(Learner(clock), tmp_path, look)
    made.run(lambda: False)
    assert made.learner.steps == 60 and made.best == 3 and next(speeds, None) is None
    assert kept(made.folder, "policy") == 30


@pytest.mark.parametrize("end", [1, 17, 39])
def test_training_that_was_stopped_goes_on_where_it_was(clock, tmp_path, end):
    restored: list[dict] = []
    env = SimpleNamespace(state=lambda: {"text": 7}, restore=restored.append)
    how, learner = {"budget": Budget(40, 5.0, 10.0), "env": env}, Learner(clock)
    learner.steps = 5  # which it learned elsewhere
    first = trainer(learner, tmp_path, lambda policy: (Exported(policy), 3.0, 1.0), **how)
    with pytest.raises(Stopped):
        first.run(lambda: learner.steps == 5 + end)
    again = trainer(Learner(clock), tmp_path, **how)
    assert again.learner.steps == 5 + end and restored == [{"text": 7}]
    assert (again.begun, again.elapsed, again.best) == (5, end, 3) and again.probed == first.probed
    again.run(lambda: False)
    assert again.learner.steps == 45 and again.elapsed == 40
    assert kept(again.folder, "policy") == 5  # those of later were worse


def goes_on(learner: Learner, path: Path) -> None:
    """Another trainer goes on after what ended the first, a rollout behind it at most."""
    again = trainer(Learner(learner.clock), path)
    assert learner.steps - again.learner.steps <= 1 and again.elapsed == again.learner.steps
    again.run(lambda: False)
    assert again.learner.steps == again.elapsed == 60 and kept(again.folder, "policy") <= 10


@pytest.mark.parametrize("where", ["look", "watch"])
def test_a_kill_loses_one_rollout_at_most(clock, tmp_path, where):
    learner = Learner(clock)

    def killed(place: str) -> bool:
        if place == where and learner.steps == 30:
            raise KeyboardInterrupt
        return False

    def look(policy: int) -> tuple[Exported, float, float]:
        killed("look")
        return steady(policy)

    with pytest.raises(KeyboardInterrupt):
        trainer(learner, tmp_path, look).run(lambda: killed("watch"))
    goes_on(learner, tmp_path)


# In the tenth step a policy is exported; the state of a step is two files.
WRITES = [*product([(training, "append_metrics")], (1, 10, 11)),
          *product([(Path, "write_text")], (1, 2, 19, 20, 21))]  # fmt: skip


@pytest.mark.parametrize(("writes", "last"), WRITES)
def test_a_full_disk_ends_training_and_it_goes_on_from_what_was_saved(
    clock, tmp_path, monkeypatch, writes, last
):
    learner, real, calls = Learner(clock), getattr(*writes), []

    def full(*given, **more):
        calls.append(given)
        if len(calls) == last:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*given, **more)

    monkeypatch.setattr(*writes, full)
    with pytest.raises(OSError, match="No space left"):
        trainer(learner, tmp_path).run(lambda: False)
    goes_on(learner, tmp_path)


def test_the_bar_says_the_speed_of_now_and_of_the_best_static_plan(clock, tmp_path):
    bar = Bar()
    how = {"look": lambda policy: (Exported(policy), 30.0, 20.0), "env": World(clock), "bar": bar}
    trainer(Learner(clock), tmp_path, **how).run(lambda: False)
    assert bar.said == [f"step {n} | now {n:.1f} tok/s" for n in range(1, 61)]
    assert len(bar.behind) == 7 and all("best static 20.0" in words for words in bar.behind)
    assert bar.n == bar.total == 60
    line = tqdm.format_meter(
        60, 60, 1.0, None, bar.said[-1], postfix=bar.behind[-1], bar_format=BAR
    )
    assert bar.said[-1] in line and bar.behind[-1] in line


def test_metrics_go_to_one_file_and_to_the_logger(clock, tmp_path):
    logged: list[tuple] = []

    def log(step: int, metrics: dict[str, float]) -> None:
        logged.extend((step, *metric) for metric in metrics.items())

    how, learner = {"env": World(clock), "logger": SimpleNamespace(log=log)}, Learner(clock)
    with pytest.raises(Stopped):
        trainer(learner, tmp_path, **how).run(lambda: learner.steps == 20)
    trainer(Learner(clock), tmp_path, **how).run(lambda: False)
    with (tmp_path / "metrics.csv").open(newline="") as lines:
        rows = [(int(r["env_step"]), r["name"], float(r["value"])) for r in csv.DictReader(lines)]
    assert rows == logged and {"dev/learned", "dev/static"} <= {name for _, name, _ in rows}
    told = [(step, value) for step, name, value in rows if name == "train/tokens_per_second"]
    assert told == [(second, second) for second in range(1, 61)]
