"""Evaluation, tuning, run folders, prompts and overrides on tiny models."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from benches import PROMPTS, bench
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from harness import full
from harness.build import make_prompts
from harness.comparing import BASELINE, STATIC, compare
from harness.edge import guarded
from harness.evaluation import Bench, evaluate, interleaved, speed
from harness.folder import RunFolder
from harness.loggers import Nowhere
from harness.overrides import CONF, problem
from reports.statistics import check_lossless
from spec_core import (
    AUTOREGRESSIVE,
    Fixed,
    Menu,
    MenuPolicy,
    Network,
    Plan,
    StopPolicy,
    Table,
    TrimPolicy,
)
from spec_core.clock import Seconds
from spec_core.features import LEVEL_FEATURES, NAMES, TREE_FEATURES
from spec_core.learned import Chosen
from spec_core.prompts import read_prompts


def choosing() -> MenuPolicy:
    """A policy that chooses by what was accepted before."""
    table = Table([NAMES.index("hit_fast")], [[0.4]], np.array([0, 1]))
    return MenuPolicy(Menu.of(["ar", "chain-3"]), table)


def learned() -> dict[str, Chosen]:
    """A policy of every head."""
    chance = np.random.default_rng(0)

    def network(more: int, outputs: int) -> Network:
        weight = chance.normal(size=(outputs, len(NAMES) + more)).astype(np.float32)
        return Network([weight], [np.zeros(outputs, np.float32)])

    stop = StopPolicy(Plan(3, budget=4), network(len(LEVEL_FEATURES), 2))
    verify = TrimPolicy(Plan(3, budget=4), [1, 2, 4], network(len(TREE_FEATURES), 3))
    return {"menu": choosing(), "stop": stop, "verify": verify}


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_policy_runs_on_every_prompt_and_nothing_is_lost(batch, temperature):
    policies = {"ar": Fixed(AUTOREGRESSIVE), "chain": Fixed(Plan(3)), **learned()}
    at = bench(batch_size=batch, temperature=temperature)
    found = evaluate(at, policies, PROMPTS, repeats=2)
    keys = {(r["policy"], r["prompt_id"], r["repeat"]) for r in found["rows"]}
    assert len(keys) == len(found["rows"]) == 5 * 5 * 2
    assert all(r["new_tokens"] == len(r["output_tokens"]) == 16 for r in found["rows"])
    check_lossless(found["rows"])
    assert set(found["decisions"]) == {"menu", "stop", "verify"}
    for shown in (entry for entries in found["decisions"].values() for entry in entries):
        sums = [sum(column) for column in zip(*shown["shares"].values(), strict=True)]
        assert len(sums) == len(shown["bins"]) + 1
        assert all(abs(total - 1) < 1e-3 or total == 0 for total in sums)
    assert {tree["policy"] for tree in found["trees"]} >= {"chain"}
    assert policies["menu"].chooser.kind == "table" and not hasattr(
        policies["menu"].chooser, "inner"
    )
    json.dumps(found)


class Counting(Fixed):
    """Keeps how many texts it was asked for."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.asked: list[int] = []

    def plan(self, observation):
        self.asked.append(observation.batch)
        return super().plan(observation)


@pytest.mark.parametrize(("batch", "together"), [(1, 1), (1, 5), (2, 5), (4, 4), (7, 5)])
def test_measured_batches_are_kept_full_and_their_seconds_shared(monkeypatch, batch, together):
    ticks = iter(range(0, 10**6, batch))  # a cycle takes as long as there are texts
    monkeypatch.setattr(full, "now", lambda: next(ticks))

    def timed(*session, real=full.cycle):
        outcome = real(*session)
        outcome.seconds = Seconds(draft=batch, verify=2 * batch, commit=3 * batch)
        return outcome

    monkeypatch.setattr(full, "cycle", timed)
    at, policy, rows = bench(batch_size=batch), Counting(Plan(2)), list[dict]()
    for start in range(0, len(PROMPTS), together):
        rows += at.measure(policy, PROMPTS[start : start + together])
    assert set(policy.asked) == {batch}
    for row in rows:
        cycles = row["cycles"]
        assert row["seconds"] == cycles and row["drafted"] >= row["accepted"] >= 14 - cycles
        assert row["phases"] == {"draft": cycles, "verify": 2 * cycles, "decide": 0,
                                 "commit": 3 * cycles}  # fmt: skip
    assert [row["prompt_id"] for row in rows] == [prompt["id"] for prompt in PROMPTS]
    assert speed(rows) == 5 * 16 / sum(r["seconds"] for r in rows)
    alone = [row["output_tokens"] for row in bench().measure(Fixed(AUTOREGRESSIVE), PROMPTS)]
    assert [row["output_tokens"] for row in rows] == alone
    turns = at.turns(PROMPTS)
    assert [p for turn in turns for p in turn] == PROMPTS and len(turns) == {1: 5}.get(batch, 1)


def test_policies_take_turns_at_every_prompt_in_random_order():
    at, names, orders = bench(), ("a", "b", "c"), set()
    at.measure = lambda policy, turn: [{"prompt_id": p["id"], "by": policy} for p in turn]
    rounds = list(interleaved(at, dict(zip(names, names, strict=True)), PROMPTS, 20, seed=0))
    for number, prompt in enumerate(PROMPTS * 20):
        taken = [row for rows in rounds[3 * number :][:3] for row in rows]
        assert all(r["prompt_id"] == prompt["id"] and r["policy"] == r["by"] for r in taken)
        orders.add(tuple(row["by"] for row in taken))
    assert len(rounds) == 300 and orders == set(permutations(names))


def test_no_prompts_are_refused():
    with pytest.raises(ValueError, match="no prompts"):
        evaluate(bench(), {"ar": Fixed(AUTOREGRESSIVE)}, [])


class Forging(Bench):
    """A bench where one policy changes the text."""

    def measure(self, policy, prompts):
        rows = super().measure(policy, prompts)
        if isinstance(policy, Fixed) and policy.plan_.depth == 3:
            rows[0]["output_tokens"][-1] += 1
        return rows


def test_a_comparison_in_which_texts_differ_fails(tmp_path):
    config = OmegaConf.create({"seed": 0, "temperature": 0.0, "batch_size": 1,
                               "max_new_tokens": 16, "verifier": {"name": "coupled"}})  # fmt: skip
    honest = bench()
    policies = {BASELINE: Fixed(AUTOREGRESSIVE), STATIC: Fixed(Plan(2)), "other": Fixed(Plan(3))}
    compare(config, honest, policies, PROMPTS, RunFolder(tmp_path / "a"), Nowhere(), [])
    forging = Forging(honest.pair, honest.workload)
    with pytest.raises(ValueError, match="differ"):
        compare(config, forging, policies, PROMPTS, RunFolder(tmp_path / "b"), Nowhere(), [])
    assert (tmp_path / "a" / "results.json").exists()
    assert not (tmp_path / "b" / "results.json").exists()


def test_a_split_that_no_prompt_falls_into_is_named(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"id": "one", "prompt": "x"}) + "\n")
    config = OmegaConf.create({"data": {"kind": "jsonl", "path": str(file)}})
    found, lacking = [], []
    for split in ("train", "dev", "test"):
        try:
            found += make_prompts(config, split)
        except ValueError as error:
            lacking.append(str(error))
    assert len(found) == 1 and len(lacking) == 2
    assert all("no prompt falls into the" in said for said in lacking)


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.replacing("state") as state:
        (state / "x").write_text("1")
    with pytest.raises(RuntimeError), folder.replacing("state") as state:
        (state / "x").write_text("2")
        raise RuntimeError
    assert (folder.whole("state") / "x").read_text() == "1"
    os.replace(folder.path / "state", folder.path / ".state.old")  # a kill between the two moves
    assert (folder.whole("state") / "x").read_text() == "1"
    with folder.replacing("state") as state:
        (state / "x").write_text("3")
    assert (folder.whole("state") / "x").read_text() == "3"


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be made"):
        RunFolder(tmp_path / "file" / "run")
    folder = RunFolder(tmp_path / "run")
    folder.write("a.json", {"b": 1})
    assert folder.read("a.json") == {"b": 1} and folder.read("c.json", 7) == 7
    (folder.path / "a.json").write_text("{")
    with pytest.raises(ValueError, match="not readable"):
        folder.read("a.json")
    assert RunFolder.fresh(tmp_path, "x").path != RunFolder.fresh(tmp_path, "x").path


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2"),
        ('{"id": "x"}', "line 2"),
        ("[1]", "line 2"),
        ('{"id": "first", "prompt": "x"}', "there twice"),
        ('{"id": "x", "prompt": ""}', "is empty"),
    ],
)
def test_a_broken_prompt_line_is_named(tmp_path, line, said):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"id": "first", "domain": "d", "prompt": "p"}\n')
    assert read_prompts(file) == [{"id": "first", "domain": "d", "prompt": "p"}]
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(ValueError, match=said):
        read_prompts(file)


@given(st.lists(st.text('a\u2028\x85\x0b\r\n"', min_size=1) | st.text(min_size=1), min_size=1))
def test_any_prompts_come_back_from_their_file(texts):
    wanted = [{"id": str(i), "domain": "d", "prompt": text} for i, text in enumerate(texts)]
    lines = "".join(json.dumps(prompt, ensure_ascii=False) + "\n" for prompt in wanted)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "prompts.jsonl"
        file.write_bytes(lines.encode("utf-8"))
        assert read_prompts(file) == wanted
        file.write_bytes(lines.replace("\n", "\r\n").encode("utf-8"))
        assert read_prompts(file) == wanted


def test_empty_and_missing_prompt_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        read_prompts(tmp_path / "none")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ValueError, match="no prompts"):
        read_prompts(tmp_path / "empty")


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("policy=pppo", "did you mean 'ppo'"),
        ("temprature=1", "did you mean 'temperature'"),
        ("polcy=ppo", "did you mean 'policy'"),
        ("env.haed=stop", "did you mean 'head'"),
        ("policy=ppo,dqm", "did you mean 'dqn'"),
    ],
)
def test_mistyped_overrides_get_a_suggestion(argument, said):
    found = problem("train", ["seed=1", argument])
    assert found and said in found and "\n" not in found


@pytest.mark.parametrize(
    "arguments",
    [
        ["policy=ppo", "temperature=1.0", "-m", "seed=0,1", "+extra=1", "env.head=stop"],
        ["policy=ppo,dqn", "policy.arguments.rate=3", "hydra.sweep.dir=x", "pair.target=a/b"],
        ["experiment=null", "data.path=x=y"],
    ],
)
def test_good_overrides_pass(arguments):
    assert problem("train", arguments) is None


def test_configuration_files_are_short():
    for path in CONF.rglob("*.yaml"):
        assert len(path.read_text().splitlines()) <= 25, path


@pytest.mark.parametrize("leave", [True, False])
def test_a_full_disk_is_one_line_that_says_how_to_go_on(capsys, leave):
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(SystemExit if leave else OSError) as caught:
        guarded(full, leave)
    if leave:
        said = capsys.readouterr().err
        assert caught.value.code == 1 and "No space left" in said and "resume=" in said
        assert len(said.strip().splitlines()) == 1


def test_benchmarks_and_the_decoder_need_neither_environments_nor_pictures():
    hidden = ("gymnasium", "stable_baselines3", "hydra", "omegaconf", "wandb", "rich", "numba",
              "matplotlib", "tqdm")  # fmt: skip
    code = f"import sys; sys.modules |= dict.fromkeys({hidden}); import benchmarks.gpu, spec_core"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=CONF.parent
    )
    assert done.returncode == 0, done.stderr
