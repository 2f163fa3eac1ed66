"""envs.record with workers: what it leaves however it ends, and that it records the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from processes import SECONDS, until
from test_trace import same

from envs.record import main
from envs.trace import Trace
from harness.overrides import CONF

PROMPTS = 8


def options(folder: Path, workers: int) -> list[str]:
    """Record a few prompts, each a shard of its own."""
    words = ["--menu", "ar", "chain-2", "--max-new-tokens", 16, "--limit", PROMPTS]
    words += ["--shard-size", 1, "--workers", workers, "--out", folder]
    return list(map(str, words))


def told(*words: str) -> list[str]:
    """What a command says."""
    return subprocess.run(words, capture_output=True, text=True).stdout.split()


def alive(workers: list[str]) -> bool:
    """Whether one of them still runs."""
    return any(state[0] != "Z" for state in told("ps", "-o", "stat=", "-p", ",".join(workers)))


def ended(folder: Path, number: int) -> tuple[int, str]:
    """Send a signal to a recording at work; its exit code and words once its workers have ended."""
    before = len(list(folder.glob("shard-*")))
    parent = subprocess.Popen(
        [sys.executable, "-m", "envs.record", *options(folder, 2)], cwd=CONF.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until(lambda: len(list(folder.glob("shard-*"))) > before)
    workers = told("pgrep", "-P", str(parent.pid), "-f", "spawn_main")
    parent.send_signal(number)
    try:
        said = parent.communicate(timeout=SECONDS)[1]  # to the end: the workers hold it too
        until(lambda: not alive(workers))
    finally:
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(int(worker), signal.SIGKILL)
    assert len(workers) == 2
    return parent.returncode, said


@pytest.mark.slow
def test_workers_end_with_their_parent_and_the_rest_is_recorded_later(tmp_path):
    folder, alone = tmp_path / "workers", tmp_path / "alone"
    assert ended(folder, signal.SIGKILL)[0] == -signal.SIGKILL
    code, said = ended(folder, signal.SIGTERM)
    assert code == 130 and said.strip().endswith("goes on with the rest")
    assert "Traceback" not in said and len(list(folder.glob("shard-*"))) < PROMPTS
    assert main(options(folder, 2)) == main(options(alone, 1)) == 0
    assert same(Trace.read(folder), Trace.read(alone))
