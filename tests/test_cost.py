"""Cost tables: what is between two sizes, what is missing, and how they are measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benches import bench
from test_replay import written
from traces import SMALL, costs_of, invented, lettered, prompts, recorded

from envs.calibrate import main as calibrate
from envs.calibrate import measure, parser, sizes_for
from envs.cost import AXES, Costs, price
from envs.market import Market
from envs.replay import ReplayVectorEnv
from envs.trace import Trace
from harness.environments import make_env
from harness.overrides import CONF
from spec_core import DEFAULT_MENU, Menu

TABLES = sorted((CONF.parent / "benchmarks" / "costs").glob("*.json"))


def test_a_size_between_two_measured_ones_costs_what_the_next_does():
    costs = costs_of()
    assert costs.verifying([1, 2, 3, 4, 5], 16) == pytest.approx([11.5, 12.5, 14.5, 14.5, 18.5])
    lengths = [1, 16, 28, 40, 64]  # of a text: in proportion
    assert costs.verifying(4, lengths) == pytest.approx([14.5, 14.5, 15.5, 16.5, 18.5])
    assert costs.verifying(4, 16, 1, [False, True]) == pytest.approx([7.5, 14.5])
    assert costs.drafting([1, 2, 3, 4], 2, 16) == pytest.approx([2032.2, 2032.4, 2032.8, 2032.8])
    assert costs.drafting(1, [0, 1, 2], 16) == pytest.approx([0, 1016.1, 2032.2])
    assert costs.seconds(1, 0, 1, 16) == pytest.approx(11.5)


def asked(refusal: ValueError) -> dict[str, list[int]]:
    """The sizes that the command in a refusal has measured."""
    words = str(refusal).split("python -m envs.calibrate ")[1].split()
    options = parser().parse_args(words)
    return {axis: getattr(options, axis) for axis in AXES}


def test_what_was_not_measured_is_refused_with_the_command_that_measures_it(tmp_path):
    costs = costs_of()
    for ask, axis, size in (
        (lambda: costs.verifying(33, 16), "nodes", 33),
        (lambda: costs.verifying(1, 65), "contexts", 65),
        (lambda: costs.drafting(5, 1, 16), "widths", 5),
        (lambda: costs.deciding(2), "batches", 2),
    ):
        with pytest.raises(ValueError, match=f"measured for {axis} {size}, .* is the most") as said:
            ask()
        known = {a: getattr(costs, a) for a in AXES}
        assert asked(said.value) == known | {axis: [*known[axis], size]}
    holes = costs.verify.copy()
    holes[0, 1, 3] = np.nan
    replace(costs, verify=holes).save(tmp_path / "costs.json")
    read = Costs.read(tmp_path / "costs.json")
    assert read.verifying([1, 4], [16, 17]) == pytest.approx(costs.verifying([1, 4], [16, 17]))
    with pytest.raises(ValueError, match="for batches 1, contexts 20, nodes 7:") as said:
        read.verifying([1, 7], [[16], [20]])
    sizes = asked(said.value)
    assert sizes["contexts"] == [16, 20, 64] and sizes["nodes"] == [1, 2, 4, 7, 8, 16, 32]
    assert sizes["levels"] == read.levels
    pair = {"target": "my pair/big", "recall": False}
    hot = replace(costs, machine={"asked": pair, "temperature": 0.7, "threads": 2})
    again = r"--target 'my pair/big' --no-recall --temperature 0\.7 --threads 2 --out costs\.json"
    with pytest.raises(ValueError, match=again):
        hot.deciding(2)


@pytest.mark.parametrize(("loads", "axis", "size"), [("null", "widths", 2), ("[4]", "batches", 4)])
def test_training_refuses_prices_that_lack_a_cell(tmp_path, monkeypatch, loads, axis, size):
    from hydra import compose, initialize_config_dir

    monkeypatch.setattr("envs.provenance.pair_key", lambda *_: "tiny")
    costs, file = costs_of(), written(tmp_path, lettered(), prompts(3)) / "costs.json"
    costs.draft[:, :, costs.widths.index(2)] = np.nan
    costs.save(file)
    words = ["env=replay", "menu.plans=[ar,chain-2,beam-3x2n4]", f"loads={loads}", "num_envs=4"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", [*words, f"traces={tmp_path}", f"cost={file}"])
    with pytest.raises(ValueError, match=f"cost was measured for .*{axis} {size}") as said:
        make_env(config, bench(), {})
    assert size in asked(said.value)[axis], "by the command that measures it"


def everything(menu: Menu, longest: int) -> Trace:
    """An invented recording, up to so long texts: plans end after any of their rounds and nodes."""
    most = max(plan.budget for plan in menu.plans)
    ends = {"levels": [p.depth for p in menu.plans], "drafted": [p.budget - 1 for p in menu.plans]}
    made = {name: np.minimum(np.arange(most)[:, None], least) for name, least in ends.items()}
    starts = np.linspace(1, longest - most + 1, 30).astype(int)
    trace = invented([np.zeros((most, len(menu)), np.uint8)] * len(starts), menu)
    shapes = {name: np.tile(values, (len(starts), 1)) for name, values in made.items()}
    return replace(trace, prompt=starts, limit=starts + 99, shapes=trace.shapes | shapes)


def test_there_are_committed_tables():
    assert TABLES


@pytest.mark.parametrize("file", TABLES, ids=lambda file: file.stem)
def test_every_committed_table_prices_the_default_menu(file):
    costs = Costs.read(file)
    assert {"device", "threads", "temperature", "pair"} <= set(costs.machine)
    trace = everything(DEFAULT_MENU, costs.contexts[-1])
    market = Market(trace, costs, costs.batches, learned=True)  # refuses where a cell is missing
    assert trace.lengths.max() == costs.contexts[-1]
    assert market.nodes.max() == max(plan.budget for plan in DEFAULT_MENU.plans)
    assert ((market.draft > 0) == (trace.shapes["levels"] > 0)).all() and (market.verify > 0).all()
    assert (market.decide > 0).all() and (market.ask >= 0).all()
    if costs.machine["temperature"] == 0 and 1 in costs.batches:  # where texts are recalled
        assert costs.recalling() > 0


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"schema": 2}', '{"schema": 1, "draft": 0}'])
def test_a_file_that_is_no_cost_table_is_refused(tmp_path, content):
    file = tmp_path / "costs.json"
    with pytest.raises(ValueError, match=r"no such file.*python -m envs\.calibrate --out"):
        Costs.read(file)
    file.write_text(content)
    with pytest.raises(ValueError, match="not a cost table"):
        Costs.read(file)


def test_where_nothing_ends_early_the_whole_plan_is_paid():
    trace = recorded(lettered(), Menu.of(["ar", "chain-5@0.9", "beam-3x2n4@0.9"]))
    prices = price(trace, costs_of(early=False))
    far = trace.rooms >= 5
    assert far.any() and prices.nodes[far].tolist() == [[1, 6, 5]] * int(far.sum())
    assert prices.nodes[trace.rooms == 2].tolist() == [[1, 3, 5]] * 3
    assert prices.nodes[trace.rooms == 0].max() == 1
    assert (price(trace, costs_of()).seconds <= prices.seconds).all()


def test_a_measured_table_has_every_cell_a_menu_needs(tmp_path):
    pair = lettered()
    sizes = sizes_for(SMALL, 128, [1, 2]) | {"contexts": [12, 40]}
    assert sizes["widths"] == [1, 2] and sizes["levels"] == [1, 2, 3, 4, 5]
    costs = measure(pair, sizes, repeats=2)
    costs.save(tmp_path / "costs.json")
    read = Costs.read(tmp_path / "costs.json")
    assert read.draft.shape == (2, 2, 2, 5) and (read.draft > 0).all()
    assert (read.verify > 0).all() and (read.overhead > 0).all() and (read.decide >= 0).all()
    trace = recorded(pair, count=2)
    env = ReplayVectorEnv(trace, tmp_path / "costs.json", num_envs=3, loads=(1, 2))
    env.reset()
    assert (env.step([1, 2, 3])[4]["seconds"] > 0).all()


@pytest.mark.parametrize(
    "arguments",
    [["--repeats", "0"], ["--contexts", "0"], ["--nodes", "0"], ["--menu", "x"], ["--levels"]],
)
def test_bad_options_of_calibrate_are_one_line(tmp_path, capsys, arguments):
    try:
        code = calibrate(["--out", str(tmp_path / "costs.json"), *arguments])
    except SystemExit as left:
        code = left.code
    said = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and len(said) == 1 and said[0].startswith("error: ")
    assert not list(tmp_path.iterdir())
