"""train.py and evaluate.py as their users run them: real processes, killed, resumed, read back."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest
from processes import QUICK, ROOT, command, run, small_recording, started

from spec_core import load_policy

ROLLOUT = {"ppo": ["+policy.arguments.rollout=64"], "linucb": []}


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["ppo", "linucb"])
def test_a_killed_run_goes_on_where_it_was(tmp_path, policy):
    folder = tmp_path / "run"
    process = started(folder, f"policy={policy}", *ROLLOUT[policy])
    process.kill()
    process.wait()
    before = json.loads((folder / "state" / "trainer.json").read_text())
    assert before["elapsed"] > 0
    refused = run("train.py", f"resume={folder}", "temperature=1")
    assert refused.returncode == 2 and "goes on as it was configured" in refused.stderr
    done = run("train.py", f"resume={folder}", "minutes=0.01")
    assert done.returncode == 0, done.stderr
    after = json.loads((folder / "state" / "trainer.json").read_text())
    assert after["elapsed"] >= before["elapsed"]
    load_policy(folder / "policy")


@pytest.mark.slow
@pytest.mark.parametrize("state", ["tuning", "evaluating"])
def test_sigterm_is_heard_while_nothing_is_learned(tmp_path, state):
    folder = tmp_path / "run"
    options = [*QUICK, "policy=linucb", "logger=none", f"folder={folder}", "test_prompts=9"]
    options += ["static=auto", "tune_rounds=[3]"] if state == "tuning" else []
    process = subprocess.Popen(
        command("train.py", *options), cwd=ROOT, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    now = ""
    while now != state:
        with suppress(FileNotFoundError):
            now = json.loads((folder / "status.json").read_text())["state"]
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
            raise AssertionError(process.communicate()[1])
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 0, said
    told = json.loads((folder / "status.json").read_text())
    assert (told["state"], told["during"]) == ("stopped", state)
    if state == "evaluating":  # with which it goes on, and learns no more
        learned, file = (folder / "state" / "trainer.json").read_bytes(), folder / "config.yaml"
        file.write_text(file.read_text().replace("test_prompts: 9", "test_prompts: 1"))
        done = run("train.py", f"resume={folder}")
        assert done.returncode == 0, done.stderr
        assert (folder / "state" / "trainer.json").read_bytes() == learned
        assert json.loads((folder / "status.json").read_text())["state"] == "done"


@pytest.mark.slow
def test_sigterm_saves_and_leaves_with_zero(tmp_path):
    folder = tmp_path / "run"
    process = started(folder, "policy=linucb")
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert "go on with resume=" in said
    assert json.loads((folder / "status.json").read_text())["state"] == "stopped"


@pytest.mark.slow
def test_recordings_are_made_once_and_learned_from(tmp_path):
    words = ["policy=regression", "env=replay", *QUICK, *small_recording(tmp_path), "compare=false"]
    words += ["logger=none"]
    for number in (1, 2):
        done = run("train.py", *words, f"folder={tmp_path / str(number)}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        load_policy(tmp_path / str(number) / "policy")
        assert ("everything is recorded already" in done.stdout) == (number == 2)
    (shard,) = (tmp_path / "runs" / "recordings").glob("*/shard-*")
    words += [f"traces={shard.parent}", "compare=true"]  # of train prompts, not of those compared
    cut = shard.with_name("shard-cut.safetensors")
    cut.write_bytes(shard.read_bytes()[:-9])
    refused = run("train.py", *words, f"folder={tmp_path / 'refused'}", cwd=tmp_path)
    assert refused.returncode == 2 and f"{cut.name}: truncated" in refused.stderr
    words += ["skip_broken=true"]
    done = run("train.py", *words, f"folder={tmp_path / 'given'}", cwd=tmp_path)
    assert done.returncode == 0 and "best_static" in done.stdout, done.stderr


@pytest.mark.slow
def test_an_evaluation_knows_the_oracle_of_its_own_recording_and_nobody_learns_from_it(tmp_path):
    traces, cost = tmp_path / "traces", ROOT / "benchmarks" / "costs" / "epyc-1-thread.json"
    words = ["--split", "test", "--limit", "7", "--max-new-tokens", "16", "--out", str(traces)]
    record = [sys.executable, "-m", "envs.record", "--menu", "ar", "chain-4", "chain-8", *words]
    assert subprocess.run(record, cwd=ROOT).returncode == 0
    words = ["prompts=1", "static=chain-4", "max_new_tokens=16", "tune=false", "logger=none"]
    words += ["policies=[chain-8]", f"traces={traces}", f"runs={tmp_path}"]
    for more, said in (
        ([], "give cost="),
        ([f"cost={cost}", "temperature=1"], "recorded with temperature 0.0, not 1"),
        ([f"cost={cost}", "prompts=2"], "not recorded there"),
    ):
        done = run("evaluate.py", *words, *more)
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert not list(tmp_path.rglob("results.json"))
    done = run("evaluate.py", *words, f"cost={cost}", f"folder={tmp_path / 'e'}")
    assert done.returncode == 0, done.stderr
    oracle = json.loads((tmp_path / "e" / "results.json").read_text())["oracle"]
    assert oracle["shares"]["best_static"] == 0 and oracle["lead_oracle"] > 1
    words = ["policy=table", "env=replay", f"traces={traces}", f"cost={cost}", "logger=none"]
    words += ["static=chain-4", "max_new_tokens=16", f"runs={tmp_path}"]
    done = run("train.py", *words, "menu.plans=[ar,chain-4,chain-8]")  # who would learn from it
    assert done.returncode == 2 and "train and test must not share prompts" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("env", ["live", "replay"])
def test_a_live_learner_starts_from_recordings(tmp_path, env):
    words = ["policy=linucb", f"env={env}", *QUICK, *small_recording(tmp_path), "compare=false"]
    words += ["logger=none", "pretrain=0.02", f"folder={tmp_path / 'run'}"]
    done = run("train.py", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "pretrained" / "learner.pt").exists() == (env == "live")
    with (tmp_path / "run" / "metrics.csv").open() as lines:
        steps = [int(row["env_step"]) for row in csv.DictReader(lines)]
    begun = json.loads((tmp_path / "run" / "state" / "trainer.json").read_text())["begun"]
    assert (begun > 0) == (env == "live") and steps[-1] > begun  # and then it learned


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["policy=ppoo"], "did you mean 'ppo'"),
        pytest.param(["temperatur=1"], "did you mean 'temperature'", marks=pytest.mark.slow),
    ],
)
def test_bad_overrides_are_one_line(arguments, said):
    done = run("train.py", *arguments)
    assert done.returncode == 2 and said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        ("train.py", ["menu.plans=[ar,chain-99]"], "verifies 100 nodes"),
        ("train.py", ["menu.plans=[chain-2]"], "lacks the plain"),
        ("train.py", ["data=jsonl", "data.path=nowhere.jsonl"], "cannot be read"),
        ("train.py", ["resume=nowhere"], "no config.yaml there"),
        ("train.py", ["pair=folders", "pair.target=nowhere", "pair.draft=nowhere"], "nowhere"),
        ("evaluate.py", ["policies=[optree]", "static=chain-2"], "no policy 'optree'"),
        ("evaluate.py", ["static=chain-x"], "is no plan"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, script, arguments, said):
    quiet = ["logger=none", f"runs={tmp_path}"]
    if script == "train.py":
        quiet += ["static=chain-2"]
    done = run(script, *quiet, *arguments)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr


def test_arrows_point_left():
    """spec_core <- policies, envs <- reports, harness <- the scripts."""
    forbidden = {
        "spec_core": ("policies", "envs", "harness", "reports", "gymnasium", "hydra", "wandb",
                      "stable_baselines3", "sb3_contrib", "omegaconf"),
        "policies": ("envs", "harness", "reports", "hydra", "wandb", "omegaconf"),
        "envs": ("policies", "harness", "reports", "hydra", "wandb", "omegaconf"),
        "reports": ("policies", "envs", "harness", "gymnasium", "hydra", "wandb", "torch"),
    }  # fmt: skip
    for package, others in forbidden.items():
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text()
            for other in others:
                for start in (f"import {other}", f"from {other}"):
                    assert not any(
                        line.strip().startswith((start + " ", start + ".")) or line.strip() == start
                        for line in text.splitlines()
                    ), f"{path.relative_to(ROOT)} imports {other}"
