"""Recordings on disk: whole or not there, merged where they agree, refused where they do not."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from traces import SMALL, lettered, meta_of, prompts, recorded

from envs import record as cli
from envs.recorder import Recorder
from envs.shards import META, replace_file
from envs.trace import Trace, check_disjoint
from spec_core import Menu, Pair
from spec_core.prompts import read_prompts


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """Jobs for `envs.record` on a tiny pair in this process."""
    pair = lettered()
    monkeypatch.setitem(cli._loaded, "pair", pair)
    meta = meta_of(pair)

    def jobs(count: int, size: int = 2, folder: Path = tmp_path / "rec", meta=meta):
        todo = cli.prepare(folder, meta, prompts(count))
        return [({}, meta, folder, todo[i : i + size]) for i in range(0, len(todo), size)]

    return jobs, tmp_path / "rec", meta


def same(one: Trace, other: Trace) -> bool:
    """Whether two recordings hold the same, up to the rounding of other batches."""
    assert one.meta == other.meta and one.texts == other.texts and one.known == other.known
    arrays = [(vars(t) | t.shapes, t.pools) for t in (one, other)]
    names = [name for name, value in arrays[0][0].items() if isinstance(value, np.ndarray)]
    pooled = [
        (a[k], b[k]) for a, b in zip(arrays[0][1], arrays[1][1], strict=True) for k in a
    ]  # fmt: skip
    pairs = [(arrays[0][0][n], arrays[1][0][n]) for n in names if n in arrays[1][0]] + pooled
    return len(pairs) > 15 and all(
        a.dtype == b.dtype and np.allclose(a, b, atol=2e-5) for a, b in pairs
    )


def test_what_is_written_is_read(tiny):
    jobs, folder, _ = tiny
    assert sum(cli.run(jobs(3, size=8), 1)) == 30
    read = Trace.read(folder, menu=SMALL, pair="tiny")
    assert same(read, recorded(lettered(), count=3, rows=16))
    assert [text.id for text in read.texts] == ["p0", "p1", "p2"]
    assert read.domains.tolist() == ["a", "b", "a"]
    size = sum(f.stat().st_size for f in folder.glob("shard-*"))
    assert size < 4096 * len(read)


def test_a_stopped_recording_goes_on_with_the_rest(tiny):
    jobs, folder, _ = tiny
    next(iter(cli.run(jobs(5), 1)))  # one shard, then stopped
    done = {file: file.stat().st_mtime_ns for file in folder.glob("shard-*")}
    assert len(done) == 1
    again = jobs(5)
    assert [p["id"] for job in again for p in job[3]] == ["p2", "p3", "p4"]
    list(cli.run(again, 1))
    assert all(file.stat().st_mtime_ns == written for file, written in done.items())
    assert jobs(5) == []
    assert same(Trace.read(folder), recorded(lettered(), count=5, rows=16))


def test_a_write_that_breaks_leaves_what_was_there(tmp_path, monkeypatch):
    file = tmp_path / "file"
    replace_file(file, b"old")

    def broken(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", broken)
    with pytest.raises(KeyboardInterrupt):
        replace_file(file, b"new")
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]


def test_runs_merge_where_they_agree(tiny, tmp_path):
    jobs, folder, meta = tiny
    other = tmp_path / "other"
    list(cli.run(jobs(2), 1))
    list(cli.run(jobs(4, size=3, folder=other), 1))  # p0 and p1 are in both
    for file in other.glob("shard-*"):
        shutil.copy(file, folder)
    assert same(Trace.read(folder), recorded(lettered(), count=4, rows=16))
    hot = replace(meta, temperature=1.0)
    list(cli.run(jobs(1, folder=tmp_path / "hot", meta=hot), 1))
    shutil.copy(next((tmp_path / "hot").glob("shard-*")), folder / "shard-hot.safetensors")
    with pytest.raises(ValueError, match=r"shard-hot.*another recording \(temperature 1.0, not 0"):
        Trace.read(folder)
    assert len(Trace.read(folder, strict=False).texts) == 4


def test_a_truncated_shard_is_named(tiny, capsys):
    jobs, folder, _ = tiny
    list(cli.run(jobs(4), 1))
    file = sorted(folder.glob("shard-*"))[0]
    for left in (0, 5, 400, file.stat().st_size - 1):
        file.write_bytes(file.read_bytes()[:left] if left else b"")
        with pytest.raises(ValueError, match=rf"{file.name}: truncated .*skip_broken=True"):
            Trace.read(folder)
        assert len(Trace.read(folder, skip_broken=True).texts) == 2
    list(cli.run(jobs(4), 1))  # and recorded anew
    said = capsys.readouterr().err
    assert said.count(f"{file.name} cannot be read") == 1 and file.with_suffix(".broken").exists()
    assert len(Trace.read(folder).texts) == 4


def test_other_schemas_menus_and_pairs_are_refused(tiny):
    jobs, folder, meta = tiny
    with pytest.raises(ValueError, match=r"no meta\.json.*python -m envs\.record"):
        Trace.read(folder)
    work = jobs(2)
    with pytest.raises(ValueError, match="no text is recorded"):
        Trace.read(folder)
    list(cli.run(work, 1))
    with pytest.raises(ValueError, match=r"recorded for the menu ar chain-2.*not for ar chain-3"):
        Trace.read(folder, menu=Menu.of(["ar", "chain-3"]))
    with pytest.raises(ValueError, match=r"another pair \(tiny, here huge\)"):
        Trace.read(folder, pair="huge")
    with pytest.raises(ValueError, match=r"another recording \(seed 5, not 6\)"):
        jobs(2, meta=replace(meta, seed=6))
    content = json.loads((folder / META).read_text())
    for change, said in (
        ({"schema": 99}, "schema 99, this version reads"),
        ({"features": -1}, "features -1"),
        ({"menu": {}}, "lacks 'plans'"),
        ({"menu": {"plans": [{"depth": -1}]}}, "depth"),
    ):
        (folder / META).write_text(json.dumps({**content, **change}))
        with pytest.raises(ValueError, match=said):
            Trace.read(folder)
    (folder / META).write_text("{")
    with pytest.raises(ValueError, match="not readable"):
        Trace.read(folder)


def test_a_prompt_that_changed_is_refused(tiny):
    jobs, folder, meta = tiny
    list(cli.run(jobs(2), 1))
    with pytest.raises(ValueError, match="'p1' was recorded with another text"):
        cli.prepare(folder, meta, [{"id": "p1", "prompt": "other"}])


def test_train_and_test_may_not_share_prompts():
    trace = recorded(lettered(), count=2)
    check_disjoint(trace, prompts(4)[2:])
    with pytest.raises(ValueError, match="'p1' is also in the recording"):
        check_disjoint(trace, prompts(2)[1:])
    with pytest.raises(ValueError, match=r"'new' is also in the recording \(as 'p1'\)"):
        check_disjoint(trace, [{**prompts(2)[1], "id": "new"}])


def test_another_menu_is_read_out_of_the_same_recording():
    wide = Menu.of(["ar", "chain-6", "beam-4x2n16"])
    narrow = Menu.of(["chain-4@0.05", "beam-2x2n3@0.1", "ar", "chain-1", "beam-4x2n5"])
    for temperature in (0.0, 1.0):
        trace = recorded(lettered(), wide, count=3, temperature=temperature)
        anew = recorded(lettered(), narrow, count=3, temperature=temperature)
        drawn = trace.with_menu(narrow)
        assert drawn.menu == narrow and len(drawn) == len(anew)
        for name, values in anew.shapes.items():
            np.testing.assert_allclose(drawn.shapes[name], values, atol=1e-5, err_msg=name)
        assert (
            drawn.with_menu(wide).shapes["accepted"].tolist() == trace.shapes["accepted"].tolist()
        )
    with pytest.raises(ValueError, match="chain-7 is no part of what was recorded"):
        trace.with_menu(Menu.of(["ar", "chain-7"]))


def test_what_cannot_be_recorded_is_refused():
    pair = lettered()
    with pytest.raises(ValueError, match="no draft model"):
        Recorder(Pair(pair.target, None), meta_of(pair))
    with pytest.raises(ValueError, match="candidates, 255 can be recorded"):
        Recorder(pair, meta_of(pair, Menu.of(["ar", "beam-9x8n60"])))


def test_the_end_of_the_context_is_recorded():
    trace = recorded(lettered("short"), max_new_tokens=30, count=2)
    assert trace.shapes["drafted"][trace.lengths >= 24].max() == 0
    assert trace.shapes["drafted"][trace.lengths < 23, 1].min() == 2


def run(capsys, *arguments) -> tuple[int, str]:
    """The command line: exit code and the last line of stderr."""
    code = cli.main([str(a) for a in arguments])
    return code, (capsys.readouterr().err.strip().splitlines() or [""])[-1]


def test_the_command_line_records_and_goes_on(tmp_path, capsys):
    torch.set_num_threads(1)
    common = ("--out", tmp_path, "--max-new-tokens", 3, "--menu", "ar", "chain-2")
    assert run(capsys, *common, "--limit", 2)[0] == 0
    assert run(capsys, *common, "--limit", 3)[0] == 0
    trace = Trace.read(tmp_path, pair=cli.pair_key())
    assert len(trace.texts) == 3 and len(set(trace.domains)) == 3
    assert len(list(tmp_path.glob("shard-*"))) == 2 and not list(tmp_path.glob(".*"))
    code, said = run(capsys, *common, "--limit", 2, "--temperature", 1)
    assert code == 2 and "another recording (temperature 0.0, not 1.0)" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--limit", "0"], "--limit must be at least 1"),
        (["--workers", "x"], "invalid int value"),
        (["--menu", "chain-2"], "add `ar`"),
        (["--menu", "ar", "tree"], "'tree' is no plan"),
        (["--temperature", "-1"], "temperature must be"),
        (["--prompts", "/nowhere"], "/nowhere"),
        (["--target", "x"], "go together"),
    ],
)
def test_bad_options_are_one_line(tmp_path, capsys, arguments, said):
    try:
        code, line = run(capsys, "--out", tmp_path / "rec", *arguments)
    except SystemExit as left:
        code, line = left.code, capsys.readouterr().err.strip()
    assert code == 2 and line.startswith("error: ") and said in line
    assert not (tmp_path / "rec").exists()


@pytest.mark.parametrize("line", ["{", "[1]", '{"id": "a"}', '{"id": "a", "prompt": ""}'])
def test_a_broken_prompt_is_named(tmp_path, line):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"id": "x", "prompt": "good"}\n\n' + line)
    with pytest.raises(ValueError, match="line 3"):
        read_prompts(file)
