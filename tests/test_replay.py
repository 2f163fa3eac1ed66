"""Replay is exact: what was recorded is what live decoding does, cycle by cycle."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from replays import Rounds
from small import Letters, pair_of
from traces import SMALL, costs_of, lettered, meta_of, prompts, recorded

from envs import record
from envs.replay import ReplayEnv
from envs.trace import Trace
from spec_core import (
    DEFAULT_MENU,
    Fixed,
    Menu,
    Pair,
    Plan,
    SpeculativeDecoder,
    Template,
    embedded,
    load_pair,
)
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


def compared(pair: Pair, trace: Trace, texts: list[dict], every: int = 1, **how) -> int:
    """Every plan and a mix of them, live against replayed; the number of cycles compared.

    every: a plan takes one text of so many, the next plan the next ones; the mix takes all.
    """
    count = 0
    for turn, plan in enumerate([None, *range(len(trace.menu))]):
        again = replayed(trace, plan)
        for prompt in texts if plan is None else texts[turn % every :: every]:
            real = live(pair, trace.menu, plan, prompt, **how)
            assert [cycle for cycle, _ in again[prompt["id"]]] == [cycle for cycle, _ in real]
            for (_, mine), (_, its) in zip(again[prompt["id"]], real, strict=True):
                np.testing.assert_allclose(mine, its, atol=1e-4)
            count += len(real)
    return count


def compare(pair: Pair, menu: Menu, count: int, new: int, temperature: float) -> int:
    """The same of a recording of letters."""
    how = {"max_new_tokens": new, "temperature": temperature}
    return compared(pair, recorded(pair, menu, count, **how), prompts(count), **how)


def written(folder: Path, pair: Pair, texts: list[dict], menu: Menu = SMALL, **fields) -> Path:
    """A recording on disk."""
    meta = meta_of(pair, menu, **fields)
    with patch.dict(record._loaded, pair=pair):
        record.work(({}, meta, folder, record.prepare(folder, meta, texts)))
    return folder


def repeated(text: str) -> int:
    """Characters of a text's end that stood in it before."""
    return next(n for n in range(len(text) - 1, -1, -1) if text[len(text) - n :] in text[:-1])


def repetitive() -> list[dict]:
    """Of every domain the prompt that repeats the most of itself: its past is recalled at once."""
    found = embedded.prompts("test")
    domains = dict.fromkeys(prompt["domain"] for prompt in found)
    ends = {prompt["id"]: repeated(prompt["prompt"]) for prompt in found}
    groups = ([prompt for prompt in found if prompt["domain"] == name] for name in domains)
    return [max(group, key=lambda prompt: ends[prompt["id"]]) for group in groups]


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


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_replay_is_live_decoding_for_the_default_menu_on_the_embedded_pair(tmp_path, temperature):
    pair, texts = load_pair(), repetitive()
    how = {"max_new_tokens": 32, "temperature": temperature}
    trace = Trace.read(written(tmp_path, pair, texts, DEFAULT_MENU, **how))
    assert len(trace.texts) == 7
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 4096 * len(trace)
    assert trace.shapes["spared"].any() == (temperature == 0)  # where the past drafts alone
    assert compared(pair, trace, texts, 2, **how) > 200


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
