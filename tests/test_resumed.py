"""What a resumed run is configured as: as it was, but for what it may be told anew."""

from __future__ import annotations

import json

import pytest
from omegaconf import OmegaConf

from harness.resuming import resumed, wants_more

NOW = {"minutes": 9.0, "steps": 7, "compare": True, "temperature": 0.0, "new": "default"}
SAVED = {"policy": {"name": "linucb"}, "minutes": 1.0, "steps": 5, "temperature": 0.5}


@pytest.fixture
def config(tmp_path):
    """Of a run that came to its end."""
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(SAVED)))
    (tmp_path / "status.json").write_text(json.dumps({"state": "done"}))
    return OmegaConf.create({**NOW, "resume": str(tmp_path), "folder": None})


def test_a_resumed_run_is_what_it_was_and_knows_newer_settings(config, tmp_path):
    found = resumed(config, [f"resume={tmp_path}"])
    assert (found.minutes, found.temperature, found.policy.name) == (1.0, 0.5, "linucb")
    assert found.new == "default" and found.folder == str(tmp_path)
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "done"


def test_more_time_may_be_given(config, tmp_path):
    found = resumed(config, [f"resume={tmp_path}", "minutes=9", "launcher=slurm"])
    assert (found.minutes, found.steps) == (9.0, 5)
    assert wants_more(["minutes=9"]) and not wants_more(["compare=true", f"resume={tmp_path}"])


@pytest.mark.parametrize("override", ["temperature=1", "policy=ppo", "+policy.arguments.x=1"])
def test_other_settings_beside_it_are_refused_and_nothing_is_touched(config, tmp_path, override):
    with pytest.raises(ValueError, match="goes on as it was configured"):
        resumed(config, ["minutes=9", override])
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "done"


def test_the_folder_of_a_comparison_is_refused(config, tmp_path):
    (tmp_path / "config.yaml").write_text("policies: [ar]")
    with pytest.raises(ValueError, match="nothing was trained there"):
        resumed(config)
