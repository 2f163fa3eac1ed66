"""Replay is exact: what was recorded is what live decoding does, cycle by cycle; and its prices."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from small import Letters, pair_of
from traces import SMALL, costs_of, invented, lettered, prompts, recorded

import envs  # noqa: F401  (registers the environments)
from envs.calibrate import main as calibrate
from envs.calibrate import measure, sizes_for
from envs.cost import Costs, price
from envs.replay import ReplayEnv, ReplayVectorEnv
from envs.rewards import CycleRate
from spec_core import Fixed, Menu, Pair, Plan, SpeculativeDecoder, Template
from spec_core.drafters.base import DraftState
from spec_core.extractor import Extractor
from spec_core.policy import Silent

EVERY = Menu.of(
    ["ar", "chain-2", "chain-6", "chain-8@0.3", "chain-12@0.1", "beam-4x2n8", "beam-8x2n16@0.05",
     "beam-5x3c2n9", "best-5x2n8", "best-6x1n5@0.02",
     Plan.of(Template((0, 0, 1, 2, 3, 4), (2, 1, 1, 0, 0, 0)))]
)  # fmt: skip


class Told(Silent):
    """Plans by the length of the text, and what was known before each."""

    def __init__(self, menu: Menu, plan: int | None) -> None:
        self.menu, self.fixed, self.extractor = menu, plan, Extractor()
        self.features: list[np.ndarray] = []

    def choice(self, length: int) -> int:
        return self.fixed if self.fixed is not None else length * 5 % len(self.menu)

    def plan(self, observation) -> list[Plan]:
        self.features.append(self.extractor.observe(observation)[0])
        return [self.menu.plans[self.choice(length)] for length in observation.lengths]


def live(pair: Pair, menu: Menu, plan: int | None, prompt: dict, **how) -> list[tuple]:
    """Cycles of one text: accepted, drafted, depth, committed; and the features before each."""
    policy, cycles = Told(menu, plan), []

    def watch(outcome) -> None:
        depth = int(outcome.tree.depths.max())
        cycles.append((outcome.accepted[0], outcome.drafted[0], depth, len(outcome.tokens[0])))

    decoder = SpeculativeDecoder(pair, policy)
    decoder.generate([prompt["prompt"]], watch, ids=[prompt["id"]], seed=5, **how)
    return list(zip(cycles, policy.features, strict=True))


def replayed(trace, plan: int | None) -> dict[str, list[tuple]]:
    """The same of every text, by prompt id."""
    env, policy = ReplayEnv(trace, costs_of(contexts=[100, 999])), Told(trace.menu, plan)
    texts = defaultdict(list)
    while len(texts) < len(trace.texts):
        features, _ = env.reset()
        over = False
        while not over:
            length = int(trace.lengths[env.engine.at[0]])
            then, _, over, _, info = env.step(policy.choice(length))
            cycle = tuple(int(info[k]) for k in ("accepted", "drafted", "depth", "tokens"))
            texts[info["prompt_id"]].append((cycle, features))
            features = then
    return texts


def compare(pair: Pair, menu: Menu, count: int, new: int, temperature: float) -> int:
    """Every plan and a mix of them, live against replayed; the number of cycles compared."""
    how = {"max_new_tokens": new, "temperature": temperature}
    trace, compared = recorded(pair, menu, count, **how), 0
    for plan in [None, *range(len(menu))]:
        again = replayed(trace, plan)
        for prompt in prompts(count):
            real = live(pair, menu, plan, prompt, **how)
            assert [cycle for cycle, _ in again[prompt["id"]]] == [cycle for cycle, _ in real]
            for (_, mine), (_, its) in zip(again[prompt["id"]], real, strict=True):
                np.testing.assert_allclose(mine, its, atol=1e-4)
            compared += len(real)
    return compared


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["near", "short"])
def test_replay_is_live_decoding(kind, temperature):
    assert compare(lettered(kind), SMALL, 2, 12, temperature) > 30


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_drafts_are_right_beyond_the_end_of_the_text(temperature):
    text = recorded(lettered("same"), count=1, max_new_tokens=24, temperature=temperature).tokens
    ends = (int(text[9]),)  # ten tokens at most, and the draft would go on
    assert compare(lettered("same", ends), SMALL, 2, 24, temperature) > 10
    trace = recorded(lettered("same", ends), count=1, max_new_tokens=24, temperature=temperature)
    assert len(trace) <= 10 and (trace.shapes["accepted"] >= trace.left[:, None]).any()
    slow = recorded(lettered("other", ends), count=1, max_new_tokens=24, temperature=temperature)
    assert slow.told_count[0] >= len(slow) + 5  # where live decoding would stop at the end


@pytest.mark.slow
@pytest.mark.parametrize("eos", [(), (7, 30, 41)])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["near", "same", "short", "other"])
def test_replay_is_live_decoding_for_every_kind_of_plan(kind, temperature, eos):
    assert compare(lettered(kind, eos), EVERY, 5, 24, temperature) > 200


class Rounds(DraftState):
    """A drafter that counts the rounds it is asked for."""

    def __init__(self, drafter) -> None:
        self.drafter, self.rounds = drafter, 0

    def __getattr__(self, name: str):
        return getattr(self.drafter, name)

    def open(self, batch: int, slots: int) -> Rounds:
        self.state = self.drafter.open(batch, slots)
        return self

    def start(self, *arguments):
        self.rounds += 1
        return self.state.start(*arguments)

    def expand(self, *arguments):
        self.rounds += 1
        return self.state.expand(*arguments)

    def commit(self, *arguments):
        return self.state.commit(*arguments)

    def replace(self, *arguments):
        return self.state.replace(*arguments)


@pytest.mark.parametrize(("kind", "new"), [("near", 10), ("short", 26)])
def test_the_rounds_that_are_paid_are_those_that_are_run(kind, new):
    menu = Menu.of(["ar", "chain-4", "chain-6@0.3", "beam-4x2n8@0.1", "beam-3x2n4"])
    near = lettered(kind)
    trace = recorded(near, menu, count=2, max_new_tokens=new)
    counted = Rounds(near.drafter)
    pair = Pair(near.target, counted, Letters())
    for m, plan in enumerate(menu.plans):
        for text, prompt in enumerate(prompts(2)):
            at = [int(trace.first[text])]

            def watch(outcome, at=at, m=m) -> None:
                assert counted.rounds == trace.shapes["levels"][at[0], m]
                counted.rounds, at[0] = 0, at[0] + len(outcome.tokens[0])

            decoder = SpeculativeDecoder(pair, Fixed(plan))
            decoder.generate(
                [prompt["prompt"]], watch, ids=[prompt["id"]], seed=5, max_new_tokens=new
            )
            assert at[0] == trace.first[text + 1]


def test_a_recording_does_not_depend_on_how_many_rows_were_drafted_at_once():
    one, many = (recorded(pair_of("near", tokenizer=Letters()), rows=rows) for rows in (1, 7))
    for name, values in one.shapes.items():
        np.testing.assert_allclose(many.shapes[name], values, atol=1e-5, err_msg=name)


def test_both_environments_are_gymnasiums():
    trace = recorded(lettered())
    env = gymnasium.make("SpecDecodeReplay-v0", trace=trace, costs=costs_of())
    check_env(env.unwrapped, skip_render_check=True)
    many = gymnasium.make_vec("SpecDecodeReplay-v0", num_envs=5, trace=trace, costs=costs_of())
    features, info = many.reset(seed=3)
    assert features in many.observation_space and info["prompt_id"].shape == (5,)
    many.action_space.seed(0)
    for _ in range(30):
        features, rewards, over, truncated, info = many.step(many.action_space.sample())
        assert features in many.observation_space and rewards.shape == (5,)
        assert not truncated.any() and (info["ended"] == over).all()
        if over.any():
            assert [last is not None for last in info["final_obs"]] == over.tolist()
        masks = many.unwrapped.action_masks()
        assert masks[:, 0].all() and (info["active"] == (masks.sum(1) > 1)).all()


def test_the_same_seed_gives_the_same_run_and_a_state_goes_on():
    trace, options = recorded(lettered(), count=5), {"num_envs": 3, "noise": True}

    def play(env, steps: int, seed: int | None = None) -> list:
        env.reset(seed=seed)
        seen = [env.step(np.arange(3) % 4) for _ in range(steps)]
        return [(s[0].tolist(), s[1].tolist(), s[4]["seconds"].tolist()) for s in seen]

    one, other = (ReplayVectorEnv(trace, costs_of(), **options) for _ in range(2))
    assert play(one, 20, seed=4) == play(other, 20, seed=4)
    assert play(one, 20, seed=4) != play(other, 20, seed=5)
    fresh = ReplayVectorEnv(trace, costs_of(), **options)
    fresh.restore(one.state())
    one.restore(one.state())
    assert play(one, 10) == play(fresh, 10)


def test_every_text_comes_once_a_pass():
    trace = invented([np.zeros((1, 2), np.uint8)] * 7)
    env = ReplayVectorEnv(trace, costs_of(), num_envs=2)
    _, info = env.reset(seed=1)
    seen = list(info["prompt_id"])
    for _ in range(6):
        env.step([0, 0])
        seen += list(env.engine.names[env.engine.texts, 0])
    assert len(seen) == 14 and sorted(seen[:7]) == sorted(seen[7:]) == sorted(set(seen))


def test_a_reset_behind_an_end_passes_no_text_over():
    trace = invented([np.zeros((1, 2), np.uint8)] * 7)
    env, seen = ReplayEnv(trace, costs_of()), []
    for _ in range(7):
        seen.append(env.reset()[1]["prompt_id"])
        assert env.step(0)[2]
    assert len(set(seen)) == 7


def test_rewards_are_those_of_the_live_environment():
    trace, costs = recorded(lettered()), costs_of()
    env = ReplayVectorEnv(trace, costs, num_envs=3, reward=CycleRate(3), learned=False)
    env.reset(seed=0)
    for _ in range(10):
        at = env.engine.at.copy()
        _, rewards, _, _, info = env.step([1, 2, 3])
        plans = [1, 2, 3]
        assert info["tokens"].tolist() == trace.committed[at, plans].tolist()
        assert info["seconds"] == pytest.approx(price(trace, costs).seconds[at, plans])
        assert rewards == pytest.approx(info["tokens"] / info["seconds"])


def test_a_batch_waits_for_its_longest_draft_and_its_largest_tree():
    trace = recorded(lettered(), count=4)
    costs = costs_of((1, 3))
    env = ReplayVectorEnv(trace, costs, num_envs=8, loads=(1, 3))  # batches of 1, 3, 1, 3
    features, _ = env.reset(seed=0)
    batch = features[:, -3]
    assert batch == pytest.approx(np.log2([1, 3, 3, 3, 1, 3, 3, 3]) / 6)
    plans = np.array([1, 0, 1, 3, 2, 0, 0, 0])
    for _ in range(12):
        at = env.engine.at.copy()
        info = env.step(plans)[4]
        for group, load in (([0], 1), ([1, 2, 3], 3), ([4], 1), ([5, 6, 7], 3)):
            cells = at[group], plans[group]
            width = np.array([1, 1, 1, 2])[plans[group]]
            levels = trace.shapes["levels"][cells].astype(int)
            contexts = trace.lengths[at[group]]
            draft = costs.drafting(width, levels, contexts, load).max()
            nodes = int(trace.shapes["drafted"][cells].max()) + 1
            whole = draft + costs.verifying(nodes, contexts.max(), load, 3 in plans[group]) + 0.25
            assert info["seconds"][group] == pytest.approx(whole / load)


def test_a_size_between_two_measured_ones_costs_what_the_next_does():
    costs = costs_of()
    assert costs.verifying([1, 2, 3, 4, 5], 16) == pytest.approx([11.5, 12.5, 14.5, 14.5, 18.5])
    assert costs.verifying(4, [1, 16, 17, 64]) == pytest.approx([14.5, 14.5, 18.5, 18.5])
    assert costs.verifying(4, 16, 1, [False, True]) == pytest.approx([7.5, 14.5])
    assert costs.drafting([1, 2, 3, 4], 2, 16) == pytest.approx([2032.2, 2032.4, 2032.8, 2032.8])
    assert costs.drafting(1, [0, 1, 2], 16) == pytest.approx([0, 1016.1, 2032.2])
    assert costs.seconds(1, 0, 1, 16) == pytest.approx(11.5)


def test_what_was_not_measured_is_refused_with_the_command_that_measures_it(tmp_path):
    costs = costs_of()
    for ask, said in (
        (lambda: costs.verifying(33, 16), r"nodes 33, 32 is the most.*--nodes \.\.\. 33"),
        (lambda: costs.verifying(1, 65), r"contexts 65.*--contexts \.\.\. 65"),
        (lambda: costs.drafting(5, 1, 16), r"widths 5.*envs\.calibrate"),
        (lambda: costs.deciding(2), "batches 2"),
    ):
        with pytest.raises(ValueError, match=said):
            ask()
    holes = costs.verify.copy()
    holes[0, 1, 3] = np.nan
    replace(costs, verify=holes).save(tmp_path / "costs.json")
    read = Costs.read(tmp_path / "costs.json")
    assert read.verifying([1, 4], [16, 17]) == pytest.approx(costs.verifying([1, 4], [16, 17]))
    with pytest.raises(ValueError, match="--batches 1 --contexts 20 --nodes 7"):
        read.verifying([1, 7], [[16], [20]])


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


def test_bad_actions_and_options_are_refused():
    trace, costs = recorded(lettered()), costs_of()
    env = ReplayVectorEnv(trace, costs, num_envs=2)
    with pytest.raises(ValueError, match="reset the environment first"):
        env.step([0, 0])
    env.reset()
    for actions in ([0], [0, 4], [0, -1], [0.5, 1]):
        with pytest.raises(ValueError, match="actions must be"):
            env.step(actions)
    with pytest.raises(ValueError, match="take a multiple of 4"):
        ReplayVectorEnv(trace, costs_of((1, 3)), num_envs=6, loads=(1, 3))
    with pytest.raises(ValueError, match="batches 3"):
        ReplayVectorEnv(trace, costs, num_envs=3, loads=(3,))
    with pytest.raises(ValueError, match="loads are batch sizes"):
        ReplayVectorEnv(trace, costs, num_envs=3, loads=())
    with pytest.raises(ValueError, match="num_envs"):
        ReplayVectorEnv(trace, costs, num_envs=0)


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
    [["--repeats", "0"], ["--contexts", "4000"], ["--nodes", "0"], ["--menu", "x"], ["--levels"]],
)
def test_bad_options_of_calibrate_are_one_line(tmp_path, capsys, arguments):
    try:
        code = calibrate(["--out", str(tmp_path / "costs.json"), *arguments])
    except SystemExit as left:
        code = left.code
    said = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and len(said) == 1 and said[0].startswith("error: ")
    assert not list(tmp_path.iterdir())
