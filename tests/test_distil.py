"""Exported policies as decision tables: what they choose, on the run's pair and workload."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from benches import PROMPTS, bench

from harness import build
from harness.distil import AXES, EDGES, configuration, content, distil, distilled, main
from spec_core import Menu, MenuPolicy, Network, Plan
from spec_core.features import FEATURES, LEVEL_FEATURES, NAMES
from spec_core.learned import StopPolicy

SHAPE = tuple(len(edges) + 1 for edges in EDGES)
RUN = {"temperature": 0.7, "top_k": 5, "top_p": 0.9, "max_new_tokens": 6}


def exported(folder: Path, weight: np.ndarray, bias: list[float]) -> Path:
    """A policy over two plans, in a folder of its own."""
    network = Network([weight.astype(np.float32)], [np.array(bias, np.float32)])
    MenuPolicy(Menu.of(["ar", "chain-3"]), network).save(folder)
    return folder


def test_a_distilled_table_says_what_was_chosen_most_in_its_cell():
    chance = np.random.default_rng(0)
    features = np.zeros((500, len(NAMES)), np.float32)
    for axis, edges in zip(AXES, EDGES, strict=True):
        features[:, NAMES.index(axis)] = chance.uniform(0, 1.2 * max(edges), 500)
    slow = features[:, NAMES.index("accepted_slow")]
    choices = (slow >= 0.3).astype(np.int64)
    table = distilled(features, choices, 2)
    assert (table.choose(features) == choices).all()
    told = content(table, Menu.of(["ar", "chain-3"]), 1.0)
    assert np.array(told["cells"], object).shape == SHAPE
    assert told["axes"][0]["edges"] == [2, 4, 8, 16] and set(told["plans"]) == {"ar", "chain-3"}
    lone = distilled(features[:1], choices[:1], 2)  # empty cells take the nearest that is not
    assert (lone.cells == choices[0]).all()


@pytest.mark.parametrize("inside", ["", "policy"])
def test_a_network_is_watched_on_the_pair_and_the_workload_of_its_run(
    tmp_path, monkeypatch, inside
):
    from omegaconf import OmegaConf

    config, make_bench, made = configuration(tmp_path), build.make_bench, []
    assert config.temperature == 0 and config.pair.target is None  # where there is no run
    config = OmegaConf.merge(config, RUN)
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(config))
    monkeypatch.setattr(build, "make_pair", lambda config: bench().pair)
    monkeypatch.setattr(build, "make_prompts", lambda config, split: PROMPTS)

    def kept(config, pair):
        made.append(make_bench(config, pair))
        return made[-1]

    monkeypatch.setattr(build, "make_bench", kept)
    length = np.zeros((2, len(FEATURES)))
    length[1, NAMES.index("batch")] = 9  # alone plain decoding, together a chain
    policy = exported(tmp_path / "policy", length, [1, 0])
    told = json.loads(distil(tmp_path / inside).read_text())
    assert {name: getattr(made[0].workload, name) for name in RUN} == RUN
    cells = np.array(told["cells"], object)
    assert cells.shape == SHAPE and told["agreement"] == 1
    assert (cells[0] == "ar").all() and (cells[-1] == "chain-3").all()
    assert (policy / "decision_table.json").is_file()


def test_a_constant_policy_becomes_a_table_of_one_plan(tmp_path):
    policy = exported(tmp_path / "bandit", np.zeros((2, len(FEATURES))), [0, 1])
    told = json.loads(distil(policy).read_text())
    assert (np.array(told["cells"], object) == np.full(SHAPE, "chain-3")).all()
    assert told["agreement"] == 1


def test_the_command_says_where_the_table_is_and_refuses_other_heads(tmp_path, monkeypatch, capsys):
    policy = exported(tmp_path / "bandit", np.zeros((2, len(FEATURES))), [0, 1])
    monkeypatch.setattr("sys.argv", ["distil", str(policy)])
    main()
    assert capsys.readouterr().out.strip() == str(policy / "decision_table.json")
    weight = np.zeros((2, len(FEATURES) + len(LEVEL_FEATURES)), np.float32)
    StopPolicy(Plan(4), Network([weight], [np.zeros(2, np.float32)])).save(tmp_path / "stop")
    monkeypatch.setattr("sys.argv", ["distil", str(tmp_path / "stop")])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "only policies over a menu become tables" in capsys.readouterr().err
