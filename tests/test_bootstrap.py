"""The environment's first step without ensurepip: pip comes from an index that really answers."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import bootstrap

OLD, NEW, YANKED = (f"pip-{number}-py3-none-any.whl" for number in (8, 10, 11))


@pytest.fixture
def index(monkeypatch):
    """Files by path, served on this machine; the index knows three wheels and an archive."""
    pages = {f"/files/{name}": name.encode() for name in (OLD, NEW, YANKED)}

    def about(name: str, time: str, yanked: bool = False) -> dict:
        told = {"sha256": hashlib.sha256(name.encode()).hexdigest()}
        address = f"http://127.0.0.1:{server.server_port}/files/{name}"
        return {"filename": name, "url": address, "hashes": told, "upload-time": time,
                "yanked": yanked}  # fmt: skip

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path in pages else 404)
            self.end_headers()
            self.wfile.write(pages.get(self.path, b""))

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    files = [about(NEW, "2026-02"), about(OLD, "2025-12"), about(YANKED, "2026-03", yanked=True)]
    pages["/simple/pip/"] = json.dumps({"files": [*files, {"filename": "pip-12.tar.gz"}]}).encode()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(bootstrap, "INDEX", f"http://127.0.0.1:{server.server_port}/simple/")
    yield pages
    server.shutdown()
    server.server_close()


def test_the_newest_wheel_is_taken(index, tmp_path):
    assert bootstrap.newest_pip(tmp_path).name == NEW
    assert (tmp_path / NEW).read_text() == NEW


def test_a_wheel_that_is_not_what_the_index_says_is_refused(index, tmp_path):
    index[f"/files/{NEW}"] += b"more"
    with pytest.raises(ValueError, match="pip came broken"):
        bootstrap.newest_pip(tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_index_out_of_reach_is_one_line(tmp_path):
    without = "import sys; sys.modules['ensurepip'] = None; import runpy; sys.argv = sys.argv[1:]; "
    words = ["-c", without + "runpy.run_path(sys.argv[0], run_name='__main__')"]
    done = subprocess.run(
        [sys.executable, *words, bootstrap.__file__, str(tmp_path / "venv")],
        capture_output=True, text=True, env={**os.environ, "PIP_INDEX_URL": "http://127.0.0.1:9"},
    )  # fmt: skip
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "no virtual environment" in done.stderr and "python3-venv" in done.stderr
