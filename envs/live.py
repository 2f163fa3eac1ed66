"""`SpecDecode-v0`: live decoding with the real clock, as one environment or as a batch of them.

Both are thin shells over one engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from envs.batch import Engine, Step
from envs.feed import Feed, read_prompts
from envs.heads import make_head
from envs.market import Batches
from envs.rewards import Reward, make_reward
from envs.shell import SAME_STEP, Columns, Several, Shell, Single
from envs.together import Together
from spec_core import embedded
from spec_core.decoder import SpeculativeDecoder
from spec_core.doubt import ALWAYS, Doubt
from spec_core.menu import DEFAULT_MENU, Menu
from spec_core.pair import Pair, load_pair
from spec_core.plan import Plan
from spec_core.render import plain
from spec_core.sampling import Sampling
from spec_core.verifiers.base import Verifier

METADATA: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 4}
VECTOR_METADATA = {**METADATA, **SAME_STEP}


def make_engine(
    num_envs: int, pair: Pair | None = None, prompts: Iterable[dict[str, Any]] | None = None,
    menu: Menu | Sequence[Any] = DEFAULT_MENU, head: str = "menu",
    reward: str | Reward = "tokens_per_second", temperature: float = 0.0, top_k: int = 0,
    top_p: float = 1.0, max_new_tokens: int = 128, seed: int = 0, plan: Plan | str | None = None,
    budgets: Sequence[int] | None = None, max_nodes: int = 64, projections: int = 0,
    shuffle: bool = True, decision_seconds: float = 0.0, verifier: Verifier | None = None,
    loads: Sequence[int] | None = None, together: bool = False,
    doubt: Doubt | Sequence[float] = ALWAYS,
) -> Engine | Together:  # fmt: skip
    """The engine of a live environment; see `SpecDecodeEnv` for the options."""
    if num_envs < 1:
        raise ValueError(f"num_envs must be at least 1, not {num_envs}")
    batches = _batches(num_envs, loads, together)
    num_envs = len(batches.load)
    sampling = Sampling(temperature, top_k, top_p)
    decoder = SpeculativeDecoder(pair or load_pair(), verifier=verifier, max_nodes=max_nodes)
    found = read_prompts(decoder, embedded.prompts("train") if prompts is None else prompts)
    decides = make_head(
        head, decoder.pair, decoder.verifier, temperature, max_nodes, menu, plan, budgets,
        doubt,
    )  # fmt: skip
    engine = Engine(
        Feed(decoder, found, max_new_tokens, shuffle), decides,
        make_reward(reward, num_envs, decides.per_cycle), sampling, decoder.verifier, num_envs,
        seed, max_nodes, projections, decision_seconds,
    )  # fmt: skip
    return Together(engine, batches) if together else engine


def _batches(num_envs: int, loads: Sequence[int] | None, together: bool) -> Batches:
    """The one batch that a session decodes."""
    if together:
        if num_envs != 1 or loads is None or len(loads) != 1:
            raise ValueError(
                "one session is one batch: together=True needs num_envs=1 and loads=[its size]"
            )
        return Batches.turns(loads, 1)
    if loads is not None and list(loads) != [num_envs]:
        raise ValueError("num_envs is the load; loads are for together=True")
    return Batches.turns([num_envs], 1)


def drawn(engine: Engine | Together, env: int) -> str:
    """The tree that the last action of an environment led to; empty before there is one."""
    outcome, pair = engine.outcome, engine.feed.decoder.pair
    if outcome is None:
        return ""
    entry = int(engine.entries[env])
    decode = pair.decode if pair.tokenizer else lambda tokens: " ".join(map(str, tokens))
    return plain(outcome.tree, entry, outcome.path[entry], decode, outcome.bonus[entry])


class Live(Shell):
    """What the single and the vector environment share beside a shell."""

    engine: Engine | Together

    def _open(self, engine: Engine | Together, render_mode: str | None) -> None:
        if render_mode not in (None, "ansi"):
            raise ValueError(f"render_mode must be None or 'ansi', not {render_mode!r}")
        self.render_mode, self.projections = render_mode, engine.extractor.projections
        self._begin(engine)

    def _columns(self, step: Step) -> Columns:
        entries = {} if self.together else {"entry": step.entries.copy()}
        outcome = np.full(self.engine.num_envs, step.outcome, object)
        made = self.told(step.figures) | self._prompts(step.prompts)
        return made | entries | {"outcome": outcome}

    def _first(self) -> Columns:
        return self._prompts(self.engine.prompts)

    def _prompts(self, prompts: list[Any]) -> Columns:
        active = {"active": self.engine.masks.sum(1) > 1}
        return active | self.named([p.id for p in prompts], [p.domain for p in prompts])


class SpecDecodeEnv(Live, Single):
    """One text at a time; a step is a cycle, or a draft level with head="stop".

    pair: of models, the embedded one if None; prompts: objects {"id", "domain", "prompt"}.
    menu, head, plan, budgets: what is decided; the plan serves the heads "stop" and "verify".
    doubt: path probabilities between which "stop" is asked (see `spec_core.doubt`).
    reward: a name, or an object of envs.rewards. temperature, top_k, top_p, max_new_tokens, seed,
    verifier, max_nodes: of decoding. projections: more features. shuffle: the prompts of each pass.
    decision_seconds: charged for every decision and its features, as the exported policy will take
    them; without it, what these features took.
    together: one decision is taken for a whole batch of texts, whose number is loads[0].
    """

    metadata = METADATA

    def __init__(
        self, pair: Pair | None = None, prompts: Iterable[dict[str, Any]] | None = None,
        menu: Menu | Sequence[Any] = DEFAULT_MENU, render_mode: str | None = None, **options: Any,
    ) -> None:  # fmt: skip
        self._open(make_engine(1, pair, prompts, menu, **options), render_mode)

    def render(self) -> str | None:
        """The last tree: `*` accepted, `+` the target's own token."""
        return drawn(self.engine, 0) if self.render_mode else None


class SpecDecodeVectorEnv(Live, Several):
    """B texts decoded together in one engine; options are those of `SpecDecodeEnv`."""

    metadata = VECTOR_METADATA

    def __init__(
        self, pair: Pair | None = None, prompts: Iterable[dict[str, Any]] | None = None,
        num_envs: int = 1, menu: Menu | Sequence[Any] = DEFAULT_MENU,
        render_mode: str | None = None, **options: Any,
    ) -> None:  # fmt: skip
        self._open(make_engine(num_envs, pair, prompts, menu, **options), render_mode)

    def render(self) -> tuple[str, ...] | None:
        """The last trees: `*` accepted, `+` the target's own token."""
        if not self.render_mode:
            return None
        return tuple(drawn(self.engine, env) for env in range(self.num_envs))
