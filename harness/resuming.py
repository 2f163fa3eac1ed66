"""What a resumed run is configured as; knows no runs, only what they left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

MORE = ("minutes", "steps")
ANEW = (*MORE, "compare")  # what a resumed run may be told anew


def resumed(config: Any, given: Sequence[str] = ()) -> Any:
    """The configuration of the run that is to be resumed; given: the overrides beside it."""
    from omegaconf import OmegaConf

    file = Path(config.resume) / "config.yaml"
    if not file.is_file():
        raise ValueError(f"{config.resume}: no config.yaml there; give resume=<run folder>")
    saved: Any = OmegaConf.load(file)
    if "policy" not in saved:
        raise ValueError(f"{config.resume}: nothing was trained there; give resume=<run folder>")
    for override in given:
        name = override.partition("=")[0]
        if name not in (*ANEW, "resume", "launcher"):
            raise ValueError(
                f"{override}: a resumed run goes on as it was configured; only "
                f"{', '.join(ANEW)} may be given anew"
            )
        if name in ANEW:
            saved[name] = config[name]
    for name in config:
        if name not in saved:  # an older run
            saved[name] = config[name]
    saved.folder, saved.resume = config.resume, config.resume
    return saved


def wants_more(given: Sequence[str]) -> bool:
    """Whether it is to learn more than it was, also where it had come to its end."""
    return any(override.partition("=")[0] in MORE for override in given)
