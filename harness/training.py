"""The training loop: a learner learns, looks are taken at its policy, the best one is kept.

Knows no configuration: learners, environments and benches are handed in.
"""

from __future__ import annotations

import csv
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.folder import RunFolder
from harness.leaning import Lean
from harness.loggers import Logger
from harness.looks import Look

TELL_EVERY = 0.5  # seconds of learning
SAVING = 0.1  # of the time at most: rollouts are saved one by one, unless they are that short
LOOKS = 5  # at what learns from recordings


@dataclass(frozen=True)
class Budget:
    """When training ends and how often it looks at the policy."""

    steps: int
    minutes: float
    probe_every: float = 60.0  # seconds of learning between two probes

    def __post_init__(self) -> None:
        if self.steps < 1 or self.minutes <= 0 or self.probe_every <= 0:
            raise ValueError("steps, minutes and probe_every must be positive")


class Stopped(Exception):
    """Somebody asked the run to stop; its state is saved."""


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """A question whether SIGTERM has come; the signal itself interrupts nothing."""
    asked: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGTERM, before)


def ticking(stop: Callable[[], bool]) -> Callable[[], None]:
    """For work that nothing is saved of: ends it when somebody asks the run to stop."""

    def tick() -> None:
        if stop():
            raise Stopped

    return tick


class Trainer:
    """One learner in one environment, with its checkpoints in one folder."""

    def __init__(
        self, learner: Any, env: Any, look: Look, budget: Budget, folder: RunFolder,
        logger: Logger, bar: Any,
    ) -> None:  # fmt: skip
        self.learner, self.env, self.look = learner, env, look
        self.budget, self.folder, self.logger, self.bar = budget, folder, logger, bar
        self.elapsed, self.probed, self.best = 0.0, 0.0, 0.0  # best: speed over the static's
        self.begun = learner.steps  # it may have learned elsewhere; those steps are not counted
        self.clock, self.stopping = time.monotonic(), False
        self.saved = self.told = -TELL_EVERY  # when that was last done, in seconds of learning
        self.saving = 0.0  # seconds that it took
        self._resume()

    def _resume(self) -> None:
        saved = self.folder.whole("state")
        if saved is None:
            return
        self.learner.restore(saved / "learner")
        clock = RunFolder(saved).read("trainer.json")
        self.elapsed, self.probed, self.best = clock["elapsed"], clock["probed"], clock["best"]
        self.begun = clock["begun"]
        if hasattr(self.env, "restore"):
            self.env.restore(clock["env"])

    def save(self) -> None:
        """Everything that a resumed run needs, whole or not at all."""
        start = time.monotonic()
        clock = {"elapsed": self.elapsed, "probed": self.probed, "best": self.best}
        clock["begun"] = self.begun
        clock["env"] = self.env.state() if hasattr(self.env, "state") else {}
        with self.folder.replacing("state") as state:
            self.learner.save(state / "learner")
            RunFolder(state).write("trainer.json", clock)
        self.saved, self.saving = self.elapsed, time.monotonic() - start

    def run(self, stop: Callable[[], bool]) -> None:
        """Learn to the end of the budget; raises Stopped when asked to stop before."""
        self.clock = time.monotonic()
        self.bar.total = round(60 * self.budget.minutes)
        if self.learner.steps and not self.best:
            self.probe()  # what it knows already may be the best it will ever know

        def watch(progress: Any) -> bool:
            self._tick()
            if self.elapsed - self.told >= TELL_EVERY:
                self._tell(progress)
            if SAVING * (self.elapsed - self.saved) >= self.saving:
                self.save()
            self.stopping = stop()
            return not self.stopping and self.elapsed < 60 * self.budget.minutes

        self.learner.learn(self.env, self.begun + self.budget.steps, watch)
        self._tick()
        self.save()
        if self.stopping:
            raise Stopped
        self.probe()
        self.save()

    def _tick(self) -> None:
        now = time.monotonic()
        self.elapsed, self.clock = self.elapsed + now - self.clock, now
        if self.elapsed - self.probed >= self.budget.probe_every:
            self.probe()

    def probe(self) -> None:
        """Measure the policy against the static plan; the best so far is exported."""
        policy, learned, static = self.look(self.learner.policy())
        ratio = learned / static
        if ratio > self.best:
            self.best = ratio
            with self.folder.replacing("policy") as folder:
                policy.save(folder)
            self.saved = -math.inf  # what it has to beat is saved next
        self.probed = self.elapsed
        self.clock = time.monotonic()  # probing is not learning
        metrics = {
            "dev/learned": learned,
            "dev/static": static,
            "dev/best": self.best,
        }
        self._log(metrics)
        self.bar.set_postfix_str(
            f"dev {learned:.1f} tok/s, best static {static:.1f}, "
            f"best {100 * (self.best - 1):+.1f} %"
        )

    def _tell(self, progress: Any) -> None:
        rate = float(getattr(self.env, "rate", 0.0))
        self.told = self.elapsed
        metrics = {f"train/{name}": value for name, value in progress.metrics.items()}
        self._log({**metrics, "train/tokens_per_second": rate, "train/reward": progress.reward})
        self.bar.set_description_str(f"step {progress.steps} | now {rate:.1f} tok/s")
        self.bar.n = min(round(self.elapsed), self.bar.total)
        self.bar.refresh()

    def _log(self, metrics: dict[str, float]) -> None:
        append_metrics(self.folder.path / "metrics.csv", self.learner.steps, metrics)
        self.logger.log(self.learner.steps, metrics)


class Pretraining:
    """Learning for some time from a recording, of which the best by some looks is kept.

    Without a look, what is learned in the end is kept. Looking is not learning. The folder takes
    `pretrained`, what is kept, and `pretraining`, to go on with.
    """

    def __init__(
        self, seconds: float, learner: Any, env: Any, look: Look | None, folder: RunFolder, bar: Any
    ) -> None:
        self.seconds, self.learner, self.env, self.look = seconds, learner, env, look
        self.folder, self.bar = folder, bar
        self.spent, self.best, self.looked, self.lean = 0.0, -1.0, 0, Lean()
        self.saved, self.saving, self.clock = -1.0, 0.0, time.monotonic()
        found = folder.whole("pretraining")
        if found is not None:
            learner.restore(found / "learner")
            told = RunFolder(found).read("pretraining.json")
            self.spent, self.best, self.looked = told["spent"], told["best"], told["looked"]
            self.lean = Lean(*told["lean"])
            if hasattr(env, "restore"):
                env.restore(told["env"])

    def run(self, stop: Callable[[], bool]) -> None:
        """To the end; raises Stopped when asked to stop."""

        def watch(progress: Any) -> bool:
            now = time.monotonic()
            self.spent, self.clock = self.spent + now - self.clock, now
            rate = float(getattr(self.env, "rate", 0.0))
            said = f"recordings, step {progress.steps} | now {rate:.1f} tok/s"
            self.bar.set_description_str(said)
            self.bar.n = min(round(self.spent), self.bar.total)
            asked = stop()
            if asked or SAVING * (self.spent - self.saved) >= self.saving:
                self._save()
            if asked:
                raise Stopped
            if self.look and self.looked < LOOKS - 1:
                if self.spent * LOOKS > self.seconds * (self.looked + 1):
                    self.looked += 1
                    self._judge()
            return self.spent < self.seconds

        self.clock = time.monotonic()
        self.learner.learn(self.env, sys.maxsize, watch)
        self._judge()
        self._save()

    def _save(self) -> None:
        start = time.monotonic()
        told = {"spent": self.spent, "best": self.best, "looked": self.looked, "lean": self.lean}
        env = self.env.state() if hasattr(self.env, "state") else {}
        with self.folder.replacing("pretraining") as path:
            self.learner.save(path / "learner")
            RunFolder(path).write("pretraining.json", {**told, "env": env})
        self.saved, self.saving = self.spent, time.monotonic() - start

    def _judge(self) -> None:
        look = self.look or (lambda policy: (policy, 1.0, 1.0))
        _, learned, static = look(self.learner.policy())
        if learned / static >= self.best:
            self.best, self.lean = learned / static, getattr(self.look, "lean", Lean())
            with self.folder.replacing("pretrained") as path:
                self.learner.save(path)
        if self.look:
            lead = f"held out {100 * (learned / static - 1):+.1f} %"
            self.bar.set_postfix_str(f"best static {static:.1f} tok/s, {lead}")
        self.clock = time.monotonic()


def leaning(folder: RunFolder) -> Lean:
    """How what was pretrained leans; not at all where nothing was."""
    found = folder.whole("pretraining")
    return Lean(*RunFolder(found).read("pretraining.json")["lean"]) if found else Lean()


def append_metrics(file: Path, step: int, metrics: dict[str, float]) -> None:
    """One line per number: step, name, value."""
    with file.open("a", newline="") as lines:
        writer = csv.writer(lines)
        if not lines.tell():
            writer.writerow(("env_step", "name", "value"))
        writer.writerows((step, name, value) for name, value in metrics.items())
