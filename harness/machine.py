"""What a result ran on; knows nothing of the result."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """The processor, the versions and the commit."""
    import torch
    import transformers

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _processor(), "gpu": gpu, "threads": torch.get_num_threads(),
        "python": platform.python_version(), "torch": torch.__version__,
        "transformers": transformers.__version__, "commit": _commit(), "command": _command(),
    }  # fmt: skip


def _command() -> str:
    """How the running script was started, as a user would write it."""
    name = Path(sys.argv[0])
    package = name.parent.name if name.parent.name in ("benchmarks", "envs") else ""
    start = f"python -m {package}.{name.stem}" if package else f"python {name.name}"
    return " ".join([start, *(shlex.quote(argument) for argument in sys.argv[1:])])


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    named = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    where = Path(__file__).resolve().parent
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=where)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()
