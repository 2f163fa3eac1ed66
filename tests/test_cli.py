"""The command line as a user meets it: real processes, bad input, large numbers, JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from shell import ALONE, ROOT, SIZES, endless, pair, run
from small import blur, build, save, tokenizer

from policies.rules import make_rule
from spec_core import Fixed, Plan, decoder, embedded
from spec_core.cli import main
from spec_core.policy import KINDS

WEIGHTS = (embedded.target_path(), embedded.draft_path())
EMBEDDED = all((path / "model.safetensors").is_file() for path in WEIGHTS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """A pair that never ends by itself, and everything that is wrong with models."""
    place = tmp_path_factory.mktemp("models")
    target, folder = endless(place), place / "target"
    save(build(**{**SIZES, "vocab_size": 300}), place / "other")
    for name in ("missing", "truncated", "pickled", "unknown", "nan"):
        (place / name).mkdir()
        for file in folder.iterdir():
            if file.name != "model.safetensors":
                (place / name / file.name).write_bytes(file.read_bytes())
    weights = (folder / "model.safetensors").read_bytes()
    (place / "truncated" / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    torch.save({}, place / "pickled" / "pytorch_model.bin")
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "nonesuch"}
    (place / "unknown" / "config.json").write_text(json.dumps(config))
    save(break_at(target, len("Hello") + 20), place / "nan")
    return place


def break_at(module, position: int):
    """A copy of the module: one token, that "Hello" leads to at this position, poisons it."""
    ids = torch.tensor([tokenizer().encode("Hello")])
    text = module.generate(ids, do_sample=False, max_new_tokens=60, pad_token_id=0)[0].tolist()
    late = [t for i, t in enumerate(text) if i > position and t not in text[:i]]
    copy = blur(module, 0.0)
    with torch.no_grad():
        copy.model.embed_tokens.weight[late[0]] = torch.nan
    return copy


def bad(folders: Path) -> dict[str, tuple[list[str], str]]:
    """Arguments and a word of the line they cause."""
    good, file = pair(folders), folders / "target" / "config.json"
    cases = {"long": (["x" * 60_001, *good], "context"), "empty": (["", *good], "empty")}
    for value in ("-1", "nan", "inf"):
        cases[f"temperature {value}"] = (["Hi", *good, f"--temperature={value}"], "temperature")
    for name in ("missing", "truncated", "pickled"):
        cases[name] = (["Hi", "--target", str(folders / name)], name)
    return cases | {
        "vocabulary": (["Hi", *good, "--draft", str(folders / "other")], "vocabular"),
        "architecture": (["Hi", "--target", str(folders / "unknown")], "architecture"),
        "hf missing": (["Hi", "--target", str(folders / "missing"), "--backend", "hf"], "missing"),
        "no folder": (["Hi", "--target", str(folders / "nowhere")], "nowhere"),
        "output": (["Hi", *good, "--output", str(folders / "no" / "file")], "no/file"),
        "output folder": (["Hi", *good, "--output", str(folders)], "directory"),
        "no policy": (["Hi", *good, "--policy", str(folders)], "policy.json"),
        "policy file": (["Hi", *good, "--policy", str(file)], "policy"),
        "device": (["Hi", *good, "--device", "toaster"], "toaster"),
        "dtype": (["Hi", *good, "--dtype", "float7"], "float7"),
        "new tokens": (["Hi", *good, "--max-new-tokens", "0"], "max-new-tokens"),
        "plan": (["Hi", *good, "--width", "0"], "width"),
        "wide": (["Hi", *good, f"--width={10**30}"], "width"),
        "both": (["Hi", *good, "--width", "2", "--policy", str(folders)], "exclude"),
        "stop": (["Hi", *good, "--stop", ""], "stop"),
        "no prompt": ([], "prompt"),
    }


NAMES = list(bad(Path("/")))


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_is_one_line(folders, name, capsys):
    arguments, word = bad(folders)[name]
    try:
        code = main(arguments)
    except SystemExit as stop:  # argparse
        code = stop.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.count("\n") == 1 and word in err, err


ALSO = ("temperature nan", "truncated", "vocabulary")
PROCESSES = ["policy file", *(pytest.param(name, marks=pytest.mark.slow) for name in ALSO)]


@pytest.mark.parametrize("name", PROCESSES)
def test_bad_input_of_a_process(folders, name):
    arguments, word = bad(folders)[name]
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.count(b"\n") == 1 and word.encode() in done.stderr, done.stderr
    assert b"Traceback" not in done.stderr


def test_an_output_that_may_not_be_written_is_one_line(folders, tmp_path, monkeypatch, capsys):
    path = tmp_path / "kept" / "out.txt"
    path.parent.mkdir()
    opened = Path.open

    def forbidden(self, mode="r", *rest, **options):  # whoever runs the tests may write anywhere
        if self == path and mode != "r":
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", forbidden)
    assert main(["Hi", *pair(folders), "--max-new-tokens", "2", "--output", str(path)]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ") and "Permission denied" in said and "out.txt" in said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk is full here")
def test_a_full_disk_takes_nothing_of_what_is_printed(folders, capsys):
    words = ["Hi", *pair(folders), "--max-new-tokens", "4", "--json", "--output", "/dev/full"]
    assert main(words) == 2
    said = capsys.readouterr()
    assert len(json.loads(said.out)["tokens"]) == 4 and "No space left" in said.err


def test_an_output_that_fails_leaves_no_file(folders, tmp_path):
    path = tmp_path / "out.txt"
    assert main(["", *pair(folders), "--output", str(path)]) == 2
    assert not path.exists()


def test_text_statistics_and_trees(folders, tmp_path):
    path = tmp_path / "out.txt"
    options = ["--max-new-tokens", "40", "--depth", "3", "--width", "2", "--budget", "8"]
    done = run("-", *pair(folders), *options, "--output", path, input="Grüße".encode())
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    out, text = done.stdout.decode(), path.read_text()
    assert out.startswith(text + "\n")
    for word in ("40 tokens | ", "tokens/s", "x plain decoding", "tokens/cycle", "draft", "* '"):
        assert word in out[len(text) :]
    assert "\x1b" not in out[len(text) :]


@pytest.mark.parametrize("options", [[], ["--temperature", "1.5"], ["--no-baseline"]])
def test_json_is_all_there_is(folders, options, capsys):
    assert main(["Hello", *pair(folders), "--json", "--max-new-tokens", "30", *options]) == 0
    out, err = capsys.readouterr()
    record, plain = json.loads(out), "--no-baseline" not in options
    assert err == "" and out.count("\n") == 1
    assert (record["ending"], len(record["tokens"])) == ("length", 30)
    assert record["text"] == tokenizer().decode(record["tokens"])
    stats = record["stats"]
    assert (stats["speedup"] is not None) == plain
    assert stats["identical"] is (True if plain else None)
    assert sum(stats["phases"].values()) == pytest.approx(1)
    assert stats["tokens_per_cycle"] == pytest.approx(30 / stats["cycles"])


def test_policy_and_stop(folders, tmp_path, capsys):
    Fixed(Plan(depth=2, width=2, budget=6)).save(tmp_path)
    main(["Hello", *pair(folders), "--json", "--policy", str(tmp_path)])
    text = json.loads(capsys.readouterr().out)["text"]
    main(["Hello", *pair(folders), "--json", "--stop", text[20:23]])
    record = json.loads(capsys.readouterr().out)
    assert record["ending"] == "stop"
    assert text.startswith(record["text"]) and text[20:23] in record["text"]


def test_nan_keeps_the_text_and_names_the_step(folders, capsys):
    code = main(["Hello", "--target", str(folders / "nan"), "--max-new-tokens", "99"])
    out, err = capsys.readouterr()
    assert code == 1 and err.count("\n") == 1
    assert "step" in err and "not finite" in err
    assert len(out.splitlines()[0]) > 5


def test_another_text_than_plain_decoding_is_an_error(folders, capsys, monkeypatch):
    gather, calls = decoder.SpeculativeDecoder._gather, []

    def forge(self, session, stats):
        made = gather(self, session, stats)
        calls.append(made)
        if len(calls) == 4:  # warm-ups of both, the run, the comparison
            made.tokens[0][3] += 1
        return made

    monkeypatch.setattr(decoder.SpeculativeDecoder, "_gather", forge)
    assert main(["Hello", *pair(folders), "--max-new-tokens", "9"]) == 1
    assert "token 4" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not EMBEDDED, reason="the embedded pair is not built")
def test_embedded_pair_in_little_memory():
    # VmHWM, because ru_maxrss of a child also counts its parent's memory before exec.
    code = (
        "import sys; from spec_core.cli import main; code = main(sys.argv[1:]); "
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr); "
        "sys.exit(code)"
    )
    words = [sys.executable, "-c", code, "Once upon a time", "--max-new-tokens", "20", "--json"]
    done = subprocess.run(words, cwd=ROOT, env=ALONE, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["stats"]["identical"]
    assert int(done.stderr) <= 800 * 1024


LARGE = ["--budget=1000000000000000", "--depth=90", f"--top-k={10**20}", "--temperature=1"]


@pytest.mark.parametrize("options", [LARGE[:1], LARGE[:2], LARGE[2:]])
def test_large_numbers_are_as_large_as_it_gets(folders, options, capsys, monkeypatch):
    monkeypatch.setattr("spec_core.session.DRAFT_ROOM", 50)
    assert main(["Hello", *pair(folders), "--json", *options]) == 0
    assert json.loads(capsys.readouterr().out)["stats"]["identical"]


@pytest.mark.parametrize("error", [MemoryError, RuntimeError])
def test_no_memory_is_one_line(error, monkeypatch, capsys):
    def load_pair(**_):
        raise error("DefaultCPUAllocator: can't allocate memory:\nyou tried")

    monkeypatch.setattr("spec_core.pair.load_pair", load_pair)
    assert main(["Hello"]) == 1
    assert "can't allocate memory: you tried\n" in capsys.readouterr().err


def test_an_exported_rule_says_how_it_is_used(folders, tmp_path, capsys, monkeypatch):
    make_rule("confidence").save(tmp_path)
    words = ["Hi", *pair(folders), "--policy", str(tmp_path)]
    assert main(words) == 0  # for `policies` is imported here
    capsys.readouterr()
    monkeypatch.delitem(KINDS, "rule")
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "import policies" in err and "export it again" not in err


def test_recall_changes_the_draft_and_not_the_text(folders, capsys):
    found = []
    for flag in ("--recall", "--no-recall"):
        line = ["abcabcabcabcabcabcabcabcabc", *pair(folders), "--max-new-tokens", "40", "--json"]
        assert main([*line, flag]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["tokens"] == found[1]["tokens"]
    assert found[0]["stats"]["cycles"] != found[1]["stats"]["cycles"]
