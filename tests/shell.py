"""A pair in folders, and what a user types to run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from small import BYTES, blur, build, save

import spec_core

ROOT = Path(spec_core.__file__).parents[1]
ALONE = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
SIZES = {"vocab_size": BYTES, "eos_token_id": None, "bos_token_id": None}


def endless(place: Path):
    """The module of a target whose texts never end, in a folder, and its draft beside it."""
    target = build(**SIZES, max_position_embeddings=60_000)
    save(blur(target, 0.1), place / "draft")
    save(target, place / "target")
    return target


def command(*arguments: str | Path) -> list[str]:
    """What the user types."""
    return [sys.executable, "-m", "spec_core", *map(str, arguments)]


def run(*arguments: str | Path, **options) -> subprocess.CompletedProcess:
    """A finished process."""
    return subprocess.run(
        command(*arguments), cwd=ROOT, env=ALONE, capture_output=True, timeout=120, **options
    )


def pair(folders: Path) -> list[str]:
    """The options of the healthy pair."""
    return ["--target", str(folders / "target"), "--draft", str(folders / "draft")]
