"""Make a virtual environment with pip, also where Debian's python3-venv is not installed.

Runs before anything is installed: the standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
import venv
from pathlib import Path

INDEX = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple")  # as pip itself has it
KIND = "application/vnd.pypi.simple.v1+json"


def fetched(address: str) -> bytes:
    """What an address holds."""
    request = urllib.request.Request(address, headers={"Accept": KIND})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def newest_pip(folder: Path) -> Path:
    """pip's newest wheel, fetched into a folder."""
    files = json.loads(fetched(f"{INDEX.rstrip('/')}/pip/"))["files"]
    wheels = [f for f in files if f["filename"].endswith(".whl") and not f.get("yanked")]
    newest = max(wheels, key=lambda file: file.get("upload-time", ""))
    content = fetched(newest["url"])
    if hashlib.sha256(content).hexdigest() != newest["hashes"]["sha256"]:
        raise ValueError("pip came broken")
    wheel = folder / newest["filename"]
    wheel.write_bytes(content)
    return wheel


def main(folder: str) -> None:
    """The environment; pip comes from the interpreter where it has it, else from PyPI."""
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        venv.create(folder, symlinks=True)
        python = str(Path(folder, "bin", "python"))
        with tempfile.TemporaryDirectory() as place:
            wheel = newest_pip(Path(place))
            install = [python, f"{wheel}/pip", "install", "--quiet", str(wheel)]
            subprocess.run(install, check=True)
    else:
        venv.create(folder, symlinks=True, with_pip=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except (OSError, KeyError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"no virtual environment: {error}; install the Debian package python3-venv.")
