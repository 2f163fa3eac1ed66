"""A learner's state in one file, replaced in one atomic step; knows no learner."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

STATE = "learner.pt"


def write_state(folder: Path, learner: Any, state: dict[str, Any]) -> None:
    """Put a learner's state into its file: the old one stays until the new one is whole."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {"learner": type(learner).__name__, "seat": learner.seat.key, **state}
    whole = BytesIO()  # torch says of a full disk what `OSError` says better
    torch.save(state, whole)
    (folder / f"{STATE}.new").write_bytes(whole.getvalue())
    os.replace(folder / f"{STATE}.new", folder / STATE)


def read_state(folder: Path, learner: Any) -> dict[str, Any]:
    """What `write_state` wrote, if it was the same learner in the same seat."""
    file = Path(folder) / STATE
    try:
        state = torch.load(file, weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{folder}: no {STATE} there; give a learner's folder") from None
    except Exception as error:
        raise ValueError(f"{file}: not readable as a learner's state ({error})") from None
    for name, mine in (("learner", type(learner).__name__), ("seat", learner.seat.key)):
        if state[name] != mine:
            raise ValueError(
                f"{file}: its {name} is {state[name]}, here it is {mine}; train anew, or go on "
                "with the settings and the version that it was made with"
            )
    return state
