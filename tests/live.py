"""Live environments on the tiny pair, and what tests of them share."""

from __future__ import annotations

from itertools import count

import pytest
from small import pair_of

from envs.batch import Engine
from envs.live import SpecDecodeEnv, SpecDecodeVectorEnv
from spec_core import AUTOREGRESSIVE, Fixed, SpeculativeDecoder
from spec_core.menu import Menu

PROMPTS = [
    {"id": f"p{i}", "domain": "even" if i % 2 == 0 else "odd", "prompt": tokens}
    for i, tokens in enumerate([[1, 2, 3], [5], [7, 8, 9, 10, 11], [4, 4], [2, 60]])
]
MENU = Menu.of(["ar", "chain-2", "chain-4", "beam-4x2n8", "chain-6@0.1"])
BUDGETS = [1, 2, 3, 5]
NEW = 18
OPTIONS = {"menu": MENU, "budgets": BUDGETS, "max_new_tokens": NEW, "max_nodes": 16}
HEADS = {"menu": None, "stop": "chain-4", "verify": "beam-4x2n8"}
heads = pytest.mark.parametrize("head", HEADS)


def single(head: str = "menu", **options) -> SpecDecodeEnv:
    """A single environment on the tiny pair."""
    options = {"pair": pair_of("near"), "prompts": PROMPTS, "plan": HEADS[head], **options}
    return SpecDecodeEnv(head=head, **{**OPTIONS, **options})


def several(head: str = "menu", num_envs: int = 3, **options) -> SpecDecodeVectorEnv:
    """A batch on the tiny pair."""
    options = {"pair": pair_of("near"), "prompts": PROMPTS, "plan": HEADS[head], **options}
    return SpecDecodeVectorEnv(num_envs=num_envs, head=head, **{**OPTIONS, **options})


def plain(temperature: float, seed: int) -> dict[str, list[int]]:
    """The texts by plain decoding, one prompt at a time."""
    decoder = SpeculativeDecoder(pair_of("near"), Fixed(AUTOREGRESSIVE))
    options = {"max_new_tokens": NEW, "temperature": temperature, "seed": seed}
    return {
        p["id"]: decoder.generate([p["prompt"]], ids=[p["id"]], **options).tokens[0]
        for p in PROMPTS
    }


def random_actions(env, seed: int = 0):
    """Draws from the action space, for ever."""
    env.action_space.seed(seed)
    return (env.action_space.sample() for _ in count())


@pytest.fixture
def texts(monkeypatch) -> list[tuple[str, list[int]]]:
    """(prompt id, text) of every text that ends, in order."""
    made, admit = [], Engine._admit

    def recording(engine, env, old):
        made.append((engine.prompts[env].id, engine.session.sequences[old].new))
        admit(engine, env, old)

    monkeypatch.setattr(Engine, "_admit", recording)
    return made


@pytest.fixture
def ticking(monkeypatch):
    """A clock that advances by a millisecond whenever it is read."""
    ticks = count()
    for place in ("spec_core.session.now", "spec_core.cycles.now", "spec_core.clock.now"):
        monkeypatch.setattr(place, lambda: next(ticks) / 1000)
