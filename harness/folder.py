"""A run's folder: files that never hold half of what they should; knows no policies."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class RunFolder:
    """Where one run keeps its configuration, state, results and policy."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{path}: the run folder cannot be made ({error.strerror})") from None
        if not os.access(path, os.W_OK):
            raise ValueError(f"{path}: no permission to write there; give folder=<another>")

    @classmethod
    def fresh(cls, root: Path, name: str) -> RunFolder:
        """A new folder named after the run and the time."""
        stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
        path, tries = root / f"{name}_{stamp}", 1
        while path.exists():
            tries += 1
            path = root / f"{name}_{stamp}_{tries}"
        return cls(path)

    def write(self, name: str, content: Any) -> None:
        """Write JSON (or text) so that the file is whole or what it was before."""
        text = content if isinstance(content, str) else json.dumps(content, indent=1) + "\n"
        partial = self.path / f".{name}.partial"
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, self.path / name)

    def read(self, name: str, default: Any = None) -> Any:
        """What `write` wrote as JSON, or the default where there is no such file."""
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return default
        except ValueError as error:
            raise ValueError(f"{self.path / name}: not readable as JSON ({error})") from None

    def status(self, state: str, **more: Any) -> None:
        """Say where the run stands; the last word is `done`, `stopped` or `failed`."""
        self.write("status.json", {"state": state, "pid": os.getpid(), **more})

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """A folder to fill that takes the place of `name` when it is complete."""
        partial, final = self.path / f".{name}.partial", self.path / name
        old = self.path / f".{name}.old"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        yield partial
        if final.exists():  # else the old one is all there is: a kill came between the two moves
            shutil.rmtree(old, ignore_errors=True)
            os.replace(final, old)
        os.replace(partial, final)
        shutil.rmtree(old, ignore_errors=True)

    def whole(self, name: str) -> Path | None:
        """The folder that `replacing` left, also after a kill between its two moves."""
        for path in (self.path / name, self.path / f".{name}.old"):
            if path.is_dir():
                return path
        return None
