"""Ctrl-C: what was made until then is kept and shown."""

from __future__ import annotations

import json
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from shell import ALONE, ROOT, command, endless, pair

from spec_core import decoder
from spec_core.cli import Printer, main


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """A pair that never ends by itself."""
    place = tmp_path_factory.mktemp("models")
    endless(place)
    return place


def test_interrupted_while_loading(monkeypatch, capsys):
    def load_pair(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr("spec_core.pair.load_pair", load_pair)
    assert main(["Hello"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_interrupted_while_streaming(folders):
    options = ["--max-new-tokens", "50000", "--no-baseline"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    words = command("Hello", *pair(folders), *options)
    process = subprocess.Popen(words, cwd=ROOT, env=ALONE, **pipes)
    first = process.stdout.read(1)  # waits for the first character
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == b"interrupted\n"
    assert first and rest.endswith(b"\n")


def test_an_interrupt_that_a_library_makes_another_error_of_is_one(folders, monkeypatch, capsys):
    """As a compiler does that is interrupted at work; what was printed stays."""
    step, limit = decoder.cycle, ["--max-new-tokens", "50"]
    plain = ["Hello", *pair(folders), *limit, "--no-baseline"]
    assert main(plain) == 0
    text = capsys.readouterr().out.splitlines()[0]

    def compiling(session, policy):
        if session.cycles == 3 and session.sequences[0].limit > 50:  # behind the warm-up
            with suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            raise RuntimeError("the compiler failed")
        return step(session, policy)

    monkeypatch.setattr(decoder, "cycle", compiling)
    assert main(plain) == 130
    out, err = capsys.readouterr()
    assert err == "interrupted\n"
    said = out.splitlines()[0]
    assert text.startswith(said) and len(said) > 2


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("call", [3, 4])  # of sessions: behind two warm-ups, the text's, the other
@pytest.mark.parametrize("cycles", [0, 3])
def test_what_was_made_is_delivered(folders, monkeypatch, capsys, tmp_path, call, cycles, as_json):
    step, opening, opened, file = decoder.cycle, decoder.Session, [], tmp_path / "out"
    words = ["Hello", *pair(folders), "--max-new-tokens", "50"]
    assert main([*words, "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)

    def session(*arguments):
        opened.append(arguments)
        if len(opened) == call and not cycles:
            signal.raise_signal(signal.SIGINT)
        return opening(*arguments)

    def cycle(session, policy):
        if len(opened) == call and session.cycles == cycles:
            signal.raise_signal(signal.SIGINT)
        return step(session, policy)

    monkeypatch.setattr(decoder, "cycle", cycle)
    monkeypatch.setattr(decoder, "Session", session)
    assert main([*words, *["--json"] * as_json, "--output", str(file)]) == 130
    out, err = capsys.readouterr()
    assert err == "interrupted\n"
    if call == 3 and not cycles:
        assert not file.exists() and not out.strip()
    elif as_json:
        assert file.read_text() == out
        made = json.loads(out)
        count = len(made["tokens"])
        assert made["tokens"] == whole["tokens"][:count]
        assert (count == 50, made["ending"]) == ((True, "length") if call == 4 else (False, None))
        assert made["stats"]["speedup"] is made["stats"]["identical"] is None
        assert made["stats"]["cycles"] == (whole["stats"]["cycles"] if call == 4 else cycles)
    else:
        text = file.read_text()
        assert whole["text"].startswith(text) and (len(text) == len(whole["text"])) == (call == 4)
        assert out.startswith(text + "\n") and "tokens/s" in out and "* '" in out[len(text) :]
        assert "plain decoding" not in out[len(text) :]


def test_an_interrupt_that_a_library_swallows_ends_the_next_cycle():
    printer = Printer(stream=None, quiet=True)
    with suppress(KeyboardInterrupt):  # as such a library would
        printer.interrupt()
    with pytest.raises(KeyboardInterrupt):
        printer.watch(None)
