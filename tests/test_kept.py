"""Machine code that is kept is that of the source as it is, in what it calls as well."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from numba import config

from spec_core.models import kept
from spec_core.models.load import cold

CALLED = """
from spec_core.models.tiles import compiled
@compiled
def rate(x): return {} * x
"""
CALLER = """
from spec_core.models.tiles import compiled
from mine.called import rate
@compiled
def twice(x): return 2 * rate(x)
"""
READY = "import mine.caller; from spec_core.models.linked import ready; ready(); "
RUN = "from mine.caller import twice; print(twice(1), sum(twice.stats.cache_hits.values()))"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two files, and where its machine code is kept."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "kept"))
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "called.py").write_text(CALLED.format(3))
    (folder / "caller.py").write_text(CALLER)
    return folder


def ran(folder: Path, first: str = "") -> str:
    """What a process prints that calls the package."""
    environment = {
        "PYTHONPATH": f"{folder.parent}:{Path.cwd()}",
        "NUMBA_CACHE_DIR": config.CACHE_DIR,
    }
    command = [sys.executable, "-c", first + RUN]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, cwd=folder.parent
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_a_caller_is_compiled_anew_when_what_it_calls_has_changed(package):
    assert ran(package) == "6 0" and ran(package) == "6 1"
    (package / "called.py").write_text(CALLED.format(5))
    assert ran(package) == "10 0"


@pytest.mark.slow
def test_a_caller_read_from_disk_finds_what_it_is_linked_to(package):
    linked = "from numba import int64\nfrom spec_core.models.linked import linked\n@linked(int64)\n"
    (package / "called.py").write_text(f"{linked}def rate(x): return 3 * x\n")
    assert ran(package, READY) == "6 0" and ran(package, READY) == "6 1"


def test_the_place_depends_on_what_machine_code_may_be_made_of(package, monkeypatch):
    found = []
    monkeypatch.syspath_prepend(package.parent)
    import mine  # type: ignore[import-not-found]

    monkeypatch.setitem(sys.modules, "mine", mine)
    for name, text in (("called.py", CALLED.format(4)), ("other.py", "x = 1"), ("new.py", CALLED)):
        kept.place.cache_clear()
        found.append(kept.place("mine"))
        (package / name).write_text(text)
    kept.place.cache_clear()
    found.append(kept.place("mine"))
    assert found[0] != found[1] == found[2] != found[3] and found[0] != found[3]
    kept.place.cache_clear()


def test_whether_code_is_yet_to_be_compiled(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    kept.place.cache_clear()
    assert cold("cpu") and not cold("cuda")
    Path(kept.place("spec_core")).mkdir()
    assert not cold("cpu")
    kept.place.cache_clear()


def test_constants_of_machine_code_are_of_files_that_count():
    for file in (kept.OWN / "models").glob("*.py"):
        for line in re.findall(r"^from spec_core\.(\w+) import (.+)$", file.read_text(), re.M):
            if any(name.strip().isupper() for name in line[1].split(",")):
                assert kept.MARK in (kept.OWN / f"{line[0]}.py").read_bytes(), (file.name, line)


def test_what_is_of_other_source_is_dropped_beside_the_package_only(tmp_path, monkeypatch):
    own = tmp_path / "own"
    for asked in (str(tmp_path / "asked"), ""):
        monkeypatch.setattr(config, "CACHE_DIR", asked)
        monkeypatch.setattr(kept, "OWN", own)
        old = Path(asked or own / "__pycache__") / "nothing-0123456789ab"
        old.mkdir(parents=True)
        kept.place.cache_clear()
        kept.place("nothing")
        assert old.exists() == bool(asked)
    kept.place.cache_clear()
