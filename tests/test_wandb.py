"""W&B as users meet it: offline runs read back by its own program, resumed, and out of reach."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from processes import QUICK, run, started

from harness.loggers import make_logger
from spec_core import load_policy


def told(wandb_run: Path) -> list[dict]:
    """The records that wandb itself reads in a run logged offline."""
    read = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(wandb_run)]
    done = subprocess.run(read, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def of_kind(records: list[dict], kind: str) -> list[dict]:
    """What the records of a kind say."""
    return [record[kind] for record in records if record["type"] == kind]


@pytest.mark.slow
def test_a_run_leaves_results_a_report_a_policy_and_a_wandb_run(tmp_path):
    folder = tmp_path / "run"
    done = run("train.py", "policy=linucb", *QUICK, f"folder={folder}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "status.json").read_text())["state"] == "done"
    results = json.loads((folder / "results.json").read_text())
    assert set(results["summary"]["policies"]) == {"autoregressive", "best_static", "linucb"}
    assert "linucb" in (folder / "report.html").read_text()
    load_policy(folder / "policy")
    (wandb_run,) = (folder / "wandb").glob("offline-run-*")
    records = told(wandb_run)
    (about,) = of_kind(records, "run")
    assert about["config"]["update"]["policy"]["name"] == "linucb"
    logged = json.dumps(of_kind(records, "history") + of_kind(records, "summary"))
    names = ["env_step", "train/tokens_per_second", "dev/learned", "comparison"]
    for name in (*names, "eval/linucb/tokens_per_second"):
        assert name in logged, name
    kinds = {artifact["type"]: artifact for artifact in of_kind(records, "artifact")}
    files = {file["path"] for file in kinds["policy"]["manifest"]["contents"]}
    exported = {f"policy/{path.name}" for path in (folder / "policy").iterdir()}
    assert files == {"report.html", "results.json", *exported} and len(exported) == 2
    options = ["prompts=1", "static=chain-4", "max_new_tokens=16", "tune=false"]
    options += [f"policies=[{folder},chain-2]", f"folder={tmp_path / 'e'}"]
    again = run("evaluate.py", *options, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    summary = json.loads((tmp_path / "e" / "results.json").read_text())["summary"]
    assert {"run", "chain-2", "best_static"} <= set(summary["policies"])


@pytest.mark.slow
def test_a_resumed_run_keeps_its_id(tmp_path):
    folder = tmp_path / "run"
    process = started(folder, "policy=linucb", "logger=wandb", "logger.mode=offline")
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0, process.communicate()[1]
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("minutes: 5", "minutes: 0.001"))
    done = run("train.py", f"resume={folder}")
    assert done.returncode == 0, done.stderr
    runs = sorted((folder / "wandb").glob("offline-run-*"))
    ids = {of_kind(told(path), "run")[0]["run_id"] for path in runs}
    assert len(runs) == 2 and ids == {(folder / "wandb_id.txt").read_text()}


@pytest.mark.slow
def test_runs_of_a_sweep_are_a_group_of_runs_of_their_own(tmp_path):
    words = ["-m", "policy=linucb,ucb1", *QUICK, "compare=false", f"hydra.sweep.dir={tmp_path}/s"]
    done = run("train.py", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = [of_kind(told(path), "run")[0] for path in tmp_path.rglob("offline-run-*")]
    learned = {about["config"]["update"]["policy"]["name"] for about in runs}
    assert learned == {"linucb", "ucb1"} and len({about["run_id"] for about in runs}) == 2
    assert {about["run_group"] for about in runs} == {"s"}
    for file in (tmp_path / "s").rglob("status.json"):
        assert json.loads(file.read_text())["state"] == "done"
        load_policy(file.parent / "policy")


@pytest.mark.slow
def test_a_server_out_of_reach_does_not_stop_a_run(tmp_path):
    folder = tmp_path / "run"
    nobody = {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    options = [*QUICK, "policy=linucb", "compare=false", f"folder={folder}"]
    done = run("train.py", *options, cwd=tmp_path, **nobody)
    assert done.returncode == 0, done.stderr
    assert "logging offline" in done.stderr
    load_policy(folder / "policy")
    assert list((folder / "wandb").glob("offline-run-*"))


class Gone:
    """A W&B run whose server has gone away."""

    id = "gone"

    def define_metric(self, *names, **more) -> None: ...

    def log(self, *metrics) -> None:
        raise ConnectionError("no route to host")

    finish = log


def test_a_server_that_goes_away_does_not_stop_a_run(tmp_path, monkeypatch, capsys):
    anything = dict.fromkeys(("Settings", "Table"), lambda **_: None)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **_: Gone(), **anything))
    logger = make_logger("wandb", {}, tmp_path, project="any", mode="offline")
    logger.log(1, {"train/reward": 1.0})
    logger.finish({"speedup": 1.0}, [{"policy": "any"}], tmp_path)
    logger.close()
    assert capsys.readouterr().err.count("no route to host; the run goes on without it") == 1
