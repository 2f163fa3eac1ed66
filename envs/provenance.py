"""What recordings and cost tables say of where they come from."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from pathlib import Path

import torch


def pair_key(
    target: str | Path | None = None, draft: str | Path | None = None, recall: bool = True
) -> str:
    """A hash of what drafts: the weight files, by default the embedded ones, and the recall."""
    from spec_core import embedded
    from spec_core.models.weights import files, folder

    whole = hashlib.sha256()
    for source in (target or embedded.target_path(), draft or embedded.draft_path()):
        for file in files(folder(source)):
            with file.open("rb") as data:
                whole.update(hashlib.file_digest(data, "sha256").digest())
    whole.update(b"recall" * recall)
    return whole.hexdigest()[:16]


def commit() -> str:
    """The commit of this code, where git knows it."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def device_name(device: torch.device) -> str:
    """What the device calls itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (li.split(":")[1].strip() for li in lines if li.startswith("model name"))
    return next(names, platform.processor() or "cpu")
