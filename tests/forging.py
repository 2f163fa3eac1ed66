"""Exported policies changed on disk, with or without a seal that fits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from spec_core.policy import WEIGHTS, seal


def forged(folder: Path, change: Callable[[dict], object], sealed: bool = True) -> None:
    """Change what policy.json says; sealed: as if it had been exported like that."""
    file = folder / "policy.json"
    content = json.loads(file.read_text())
    change(content)
    if sealed:
        content.pop("sha256", None)
        weights = folder / WEIGHTS
        content["sha256"] = seal(content, weights.read_bytes() if weights.exists() else b"")
    file.write_text(json.dumps(content))
