"""What one word on the command line trains: every experiment and every policy, a step each."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from processes import small_recording

from harness.overrides import CONF
from spec_core import load_policy

EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
POLICIES = sorted(path.stem for path in (CONF / "policy").glob("*.yaml"))
TINY = [
    "steps=2",
    "minutes=0.01",
    "static=chain-2",
    "max_new_tokens=8",
    "logger=none",
    "dev_prompts=1",
]


def trained(folder: Path, *words: str) -> None:
    """One run within this process; its policy can be loaded."""
    from hydra import compose, initialize_config_dir

    from harness.run import train

    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", [*TINY, f"folder={folder}", *words])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "wandb", None)  # as if it were not installed
        train(config)
    assert json.loads((folder / "status.json").read_text())["state"] == "done"
    load_policy(folder / "policy")


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_runs_a_step(tmp_path, name):
    some = ["pretrain=0.01" if name == "finetune" else "pretrain=0", "compare=false"]
    some += ["+policy.arguments.rollout=32", "+policy.arguments.batch_size=16"]
    trained(tmp_path, f"experiment={name}", *some, *small_recording(tmp_path))
    assert (tmp_path / "pretrained").exists() == (name == "finetune")


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_is_a_word_away(tmp_path_factory, name):
    shared = tmp_path_factory.getbasetemp() / "shared"  # one recording serves all
    shared.mkdir(exist_ok=True)
    file = shared / "prompts.jsonl"
    lines = [json.dumps({"id": f"q{i}", "prompt": f"x{i} = "}) + "\n" for i in range(12)]
    file.write_text("".join(lines))
    some = ["pretrain=0", "compare=false", "tune_rounds=[1]", "data=jsonl", f"data.path={file}"]
    some += [*small_recording(shared)]
    trained(tmp_path_factory.mktemp(name), f"policy={name}", *some)


@pytest.mark.slow
def test_the_same_seed_learns_the_same_decisions_from_a_recording(tmp_path):
    words = ["policy=ppo", "env=replay", *small_recording(tmp_path), "compare=false", "minutes=9"]
    words += ["steps=2048", "+policy.arguments.rollout=256"]
    learned = []
    for seed in (0, 0, 1):
        folder = tmp_path / str(len(learned))
        trained(folder, *words, f"seed={seed}")
        learned.append((folder / "policy" / "policy.safetensors").read_bytes())
    assert learned[0] == learned[1] != learned[2]
