"""Where machine code is kept between runs: apart for all the source it may be made of.

Numba keeps a function by the file it was written in; what it calls may have changed since.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from functools import lru_cache
from pathlib import Path

from numba import config

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
    asked = config.CACHE_DIR  # NUMBA_CACHE_DIR, which others may use as well
    home = Path(asked or OWN / "__pycache__")
    found = home / f"{package}-{digest.hexdigest()[:12]}"
    for other in [] if asked or found.exists() else home.glob(f"{package}-????????????"):
        shutil.rmtree(other, ignore_errors=True)
    return str(found)
