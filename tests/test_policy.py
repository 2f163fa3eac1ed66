"""Fixed policies go to disk and back; what was tampered with is refused."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from forging import forged
from hypothesis import given
from small import plans

from spec_core import Fixed, Plan, load_policy


@given(plans())
def test_a_policy_comes_back_as_it_was_saved(plan):
    with TemporaryDirectory() as folder:
        Fixed(plan).save(folder)
        assert load_policy(folder).plan_ == plan


@pytest.mark.parametrize(
    "change",
    [
        {"format": 99},
        {"kind": "other"},
        {"plan": {"depth": -1}},
        {"plan": {"depth": "3"}},
        {"plan": "depth"},
        {"plan": [3]},
        {"plan": None},
        {"plan": {"depth": 2.5}},
        {"plan": {"depth": float("inf")}},
        {"plan": {"depth": True}},
        {"plan": {"depth": 3, "width": 1.5}},
        {"plan": {"depth": 3, "budget": float("inf")}},
        {"plan": {"depth": 3, "threshold": "0.1"}},
        {"plan": {"depth": 3, "frontier": []}},
        {"plan": {"depth": 1, "template": {"parents": [0.0], "ranks": [0]}}},
        {"plan": {"depth": 1, "template": [0]}},
        {"plan": {"depth": 3, "hue": 1}},
        {"plan": {}},
        {"plan": {"depth": 1, "template": {"parents": [3], "ranks": [0]}}},
        {"plan": {"depth": 1, "threshold": float("nan")}},
    ],
)
def test_a_tampered_file_is_refused(tmp_path: Path, change):
    Fixed(Plan(3)).save(tmp_path)
    forged(tmp_path, lambda content: content.update(change))
    with pytest.raises(ValueError, match="not a valid policy"):
        load_policy(tmp_path)


def test_a_plan_that_was_changed_is_refused(tmp_path: Path):
    Fixed(Plan(3)).save(tmp_path)
    forged(tmp_path, lambda content: content["plan"].update(depth=4), sealed=False)
    with pytest.raises(ValueError, match="not what was exported"):
        load_policy(tmp_path)


def test_no_file_and_no_json_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no policy\.json"):
        load_policy(tmp_path)
    (tmp_path / "policy.json").write_text("{")
    with pytest.raises(ValueError, match="not readable"):
        load_policy(tmp_path)
    (tmp_path / "policy.json").write_text("[1]")
    with pytest.raises(ValueError, match="not a valid policy"):
        load_policy(tmp_path)
