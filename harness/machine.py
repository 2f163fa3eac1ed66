"""What a result ran on; knows nothing of the result."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any


def machine(device: str = "cpu") -> dict[str, Any]:
    """The processor, the versions and the commit."""
    import torch
    import transformers

    gpu = torch.cuda.get_device_name() if device.startswith("cuda") else None
    return {
        "cpu": _processor(), "gpu": gpu, "threads": torch.get_num_threads(),
        "python": platform.python_version(), "torch": torch.__version__,
        "transformers": transformers.__version__, "commit": _commit(),
    }  # fmt: skip


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
