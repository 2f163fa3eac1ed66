"""Starts train.py and evaluate.py as their users do: as processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from harness.overrides import CONF

ROOT = CONF.parent
SECONDS = 60
QUICK = ["experiment=quick", "minutes=0.05", "max_new_tokens=16", "test_prompts=1"]


def command(script: str, *arguments: str) -> list[str]:
    """A script with its arguments."""
    return [sys.executable, str(ROOT / script), *arguments]


def run(script: str, *arguments: str, cwd: Path = ROOT, **environment: str):
    """Run to the end; nobody is logged in to W&B unless the environment says so."""
    known = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    env = {**known, "OMP_NUM_THREADS": "1", "HOME": str(cwd), **environment}
    return subprocess.run(
        command(script, *arguments), capture_output=True, text=True, cwd=cwd, env=env
    )


def started(folder: Path, *arguments: str) -> subprocess.Popen:
    """A run that would last long, once it has saved its state."""
    options = [*QUICK, "minutes=5", "logger=none", "compare=false", f"folder={folder}"]
    process = subprocess.Popen(
        command("train.py", *options, *arguments), cwd=ROOT, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    while not (folder / "state" / "trainer.json").exists():
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
            raise AssertionError(process.communicate()[1])
    return process


def small_recording(folder: Path) -> list[str]:
    """Overrides: a prompt per domain is recorded, at the prices of another machine."""
    costs = ROOT / "benchmarks" / "costs" / "epyc-1-thread.json"
    return ["recorded=1", "num_envs=8", f"runs={folder / 'runs'}", f"cost={costs}"]


def until(there: Callable[[], object]) -> None:
    """Wait for something that has to come."""
    end = time.monotonic() + SECONDS
    while not there():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
