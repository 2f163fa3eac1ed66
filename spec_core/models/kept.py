"""Where machine code is kept between runs: apart for all the source it may be made of.

Numba keeps a function by the file it was written in; what it calls may have changed since.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from numba import config

SETTINGS: Any = config  # its names are made when it is loaded
OWN = Path(__file__).parents[1]
MARK = b"compiled"  # elsewhere a file without it has nothing of which machine code is made


@lru_cache
def place(package: str) -> str:
    """The folder for a package's functions; those of other source than today's are dropped."""
    folders = {OWN, *map(Path, getattr(sys.modules.get(package), "__path__", []))}
    digest = hashlib.sha256()
    for file in sorted(file for folder in folders for file in folder.rglob("*.py")):
        text = file.read_bytes()
        if MARK in text or file.parent == OWN / "models":
            digest.update(text)
    asked = SETTINGS.CACHE_DIR  # NUMBA_CACHE_DIR, which others may use as well
    beside = OWN / "__pycache__" if os.access(OWN, os.W_OK) else Path.home() / ".cache/draftgym"
    found = Path(asked or beside) / f"{package}-{digest.hexdigest()[:12]}"
    own = found.parent == OWN / "__pycache__" and not found.exists()
    for other in found.parent.glob(f"{package}-????????????") if own else []:
        shutil.rmtree(other, ignore_errors=True)
    return str(found)


@contextmanager
def apart(function: Callable) -> Iterator[None]:
    """What is compiled meanwhile is kept in the place of the function's package."""
    usual = SETTINGS.CACHE_DIR
    SETTINGS.CACHE_DIR = place(function.__module__.split(".")[0])
    try:
        yield
    finally:
        SETTINGS.CACHE_DIR = usual
