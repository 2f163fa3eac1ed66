"""Cost tables: what is between two sizes, what is missing, and how they are measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from traces import SMALL, costs_of, lettered, recorded

from envs.calibrate import main as calibrate
from envs.calibrate import measure, parser, sizes_for
from envs.cost import AXES, Costs, price
from envs.replay import ReplayVectorEnv
from spec_core import Menu


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
