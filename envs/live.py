"""`SpecDecode-v0`: live decoding with the real clock, as one environment or as a batch of them.

Both are thin shells over one engine; the single environment is the batch of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from envs.batch import FIGURES, Engine, Step
from envs.feed import Feed, read_prompts
from envs.heads import make_head
from envs.rewards import Reward, make_reward
from spec_core import embedded
from spec_core.decoder import SpeculativeDecoder
from spec_core.menu import DEFAULT_MENU, Menu
from spec_core.pair import Pair, load_pair
from spec_core.plan import Plan
from spec_core.render import plain
from spec_core.sampling import Sampling
from spec_core.verifiers.base import Verifier

METADATA: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 4}
VECTOR_METADATA = {**METADATA, "autoreset_mode": AutoresetMode.SAME_STEP}
TYPES = {"seconds": np.float64, "ended": np.bool_}  # of info columns; the others are whole numbers


def make_engine(
    num_envs: int, pair: Pair | None = None, prompts: Iterable[dict[str, Any]] | None = None,
    menu: Menu | Sequence[Any] = DEFAULT_MENU, head: str = "menu",
    reward: str | Reward = "tokens_per_second", temperature: float = 0.0, top_k: int = 0,
    top_p: float = 1.0, max_new_tokens: int = 128, seed: int = 0, plan: Plan | str | None = None,
    budgets: Sequence[int] | None = None, max_nodes: int = 64, projections: int = 0,
    shuffle: bool = True, decision_seconds: float = 0.0, verifier: Verifier | None = None,
) -> Engine:  # fmt: skip
    """The engine of a live environment; see `SpecDecodeEnv` for the options."""
    if num_envs < 1:
        raise ValueError(f"num_envs must be at least 1, not {num_envs}")
    sampling = Sampling(temperature, top_k, top_p)
    decoder = SpeculativeDecoder(pair or load_pair(), verifier=verifier, max_nodes=max_nodes)
    found = read_prompts(decoder, embedded.prompts("train") if prompts is None else prompts)
    decides = make_head(
        head, decoder.pair, decoder.verifier, temperature, max_nodes, menu, plan, budgets
    )
    return Engine(
        Feed(decoder, found, max_new_tokens, shuffle), decides,
        make_reward(reward, num_envs, decides.per_cycle), sampling, decoder.verifier, num_envs,
        seed, max_nodes, projections, decision_seconds,
    )  # fmt: skip


def columns(engine: Engine, step: Step) -> dict[str, NDArray]:
    """What a step's info holds, [B] each: the step just taken, but for `active` (the next)."""
    made = {
        name: row.astype(TYPES.get(name, np.int64))
        for name, row in zip((*FIGURES[:-1], "ended"), step.figures, strict=True)
    }
    made |= _prompts(step.prompts) | {"active": step.active.copy(), "entry": step.entries.copy()}
    made["outcome"] = np.full(engine.num_envs, step.outcome, object)
    return made


def first_columns(engine: Engine) -> dict[str, NDArray]:
    """What the info of a reset holds, [B] each."""
    return _prompts(engine.prompts) | {"active": engine.active.copy()}


def _prompts(prompts: list[Any]) -> dict[str, NDArray]:
    ids, domains = [p.id for p in prompts], [p.domain for p in prompts]
    return {"prompt_id": np.array(ids, object), "domain": np.array(domains, object)}


def drawn(engine: Engine, env: int) -> str:
    """The tree that the last action of an environment led to; empty before there is one."""
    outcome, pair = engine.outcome, engine.feed.decoder.pair
    if outcome is None:
        return ""
    entry = int(engine.entries[env])
    decode = pair.decode if pair.tokenizer else lambda tokens: " ".join(map(str, tokens))
    return plain(outcome.tree, entry, outcome.path[entry], decode, outcome.bonus[entry])


class Shell:
    """What the single and the vector environment share: an engine, its state and its spaces."""

    engine: Engine

    def _begin(self, engine: Engine, render_mode: str | None) -> None:
        if render_mode not in (None, "ansi"):
            raise ValueError(f"render_mode must be None or 'ansi', not {render_mode!r}")
        self.engine, self.render_mode = engine, render_mode
        self.head = engine.head.name  # what is decided, as learners ask for it
        for part in ("menu", "plan", "budgets"):
            setattr(self, part, getattr(engine.head, part, None))
        self.projections = engine.extractor.projections
        self.one_observation = spaces.Box(-np.inf, np.inf, (engine.size,), np.float32)
        self.one_action = spaces.Discrete(engine.head.choices)

    @property
    def rate(self) -> float:
        """Tokens per second of late."""
        return self.engine.speed.value

    def state(self) -> dict[str, Any]:
        """What `restore` needs, fit for JSON; texts under way are not kept."""
        return self.engine.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with the prompts after those of `state`; call `reset()` next, without a seed."""
        self.engine.restore(state)


class SpecDecodeEnv(Shell, gymnasium.Env[NDArray[np.float32], Any]):
    """One text at a time; a step is a cycle, or a draft level with head="stop".

    pair: of models, the embedded one if None; prompts: objects {"id", "domain", "prompt"}.
    menu, head, plan, budgets: what is decided; the plan serves the heads "stop" and "verify".
    reward: a name, or an object of envs.rewards. temperature, top_k, top_p, max_new_tokens, seed,
    verifier, max_nodes: of decoding. projections: more features. shuffle: the prompts of each pass.
    decision_seconds: charged for every decision, as the exported policy will take them.
    """

    metadata = METADATA

    def __init__(
        self, pair: Pair | None = None, prompts: Iterable[dict[str, Any]] | None = None,
        menu: Menu | Sequence[Any] = DEFAULT_MENU, render_mode: str | None = None, **options: Any,
    ) -> None:  # fmt: skip
        self._begin(make_engine(1, pair, prompts, menu, **options), render_mode)
        self.observation_space, self.action_space = self.one_observation, self.one_action

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """The next episode; with a seed, the first of that seed's."""
        super().reset(seed=seed)
        features = self.engine.reset(seed)[0]
        return features.copy(), {k: column[0] for k, column in first_columns(self.engine).items()}

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Take a decision."""
        step = self.engine.step(np.asarray(action))
        over = bool(step.over[0])
        seen = step.final if over else step.features
        info = {name: column[0] for name, column in columns(self.engine, step).items()}
        return seen[0].copy(), float(step.rewards[0]), over, False, info

    def action_masks(self) -> NDArray[np.bool_]:
        """[choices]: actions worth taking now."""
        return self.engine.masks[0].copy()

    def render(self) -> str | None:
        """The last tree: `*` accepted, `+` the target's own token."""
        return drawn(self.engine, 0) if self.render_mode else None


class SpecDecodeVectorEnv(Shell, VectorEnv[NDArray[np.float32], Any, NDArray]):
    """B texts decoded together in one engine; options are those of `SpecDecodeEnv`.

    Ended episodes begin anew in the same step: see `final_obs` and `final_info`.
    """

    metadata = VECTOR_METADATA

    def __init__(
        self, pair: Pair | None = None, prompts: Iterable[dict[str, Any]] | None = None,
        num_envs: int = 1, menu: Menu | Sequence[Any] = DEFAULT_MENU,
        render_mode: str | None = None, **options: Any,
    ) -> None:  # fmt: skip
        self._begin(make_engine(num_envs, pair, prompts, menu, **options), render_mode)
        self.num_envs = num_envs
        self.single_observation_space = self.one_observation
        self.single_action_space = self.one_action
        self.observation_space = batch_space(self.one_observation, num_envs)
        self.action_space = batch_space(self.one_action, num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """The next episodes of all; with a seed, the first of that seed's."""
        super().reset(seed=seed)
        if options and "reset_mask" in options:
            raise ValueError("the texts share one engine: they are reset together, without a mask")
        return self.engine.reset(seed).copy(), masked(first_columns(self.engine), self.num_envs)

    def step(
        self, actions: Any
    ) -> tuple[NDArray[np.float32], NDArray, NDArray, NDArray, dict[str, Any]]:
        """Take a decision for each."""
        step = self.engine.step(np.asarray(actions))
        made = columns(self.engine, step)
        info = masked(made, self.num_envs)
        if step.over.any():
            info["final_obs"] = np.full(self.num_envs, None, object)
            for env in step.over.nonzero()[0]:
                info["final_obs"][env] = step.final[env].copy()
            info["final_info"] = masked(made, self.num_envs, step.over)
            info["_final_obs"], info["_final_info"] = step.over.copy(), step.over.copy()
        never = np.zeros(self.num_envs, bool)
        return step.features.copy(), step.rewards, step.over.copy(), never, info

    def action_masks(self) -> NDArray[np.bool_]:
        """[B, choices]: actions worth taking now."""
        return self.engine.masks.copy()

    def render(self) -> tuple[str, ...] | None:
        """The last trees: `*` accepted, `+` the target's own token."""
        if not self.render_mode:
            return None
        return tuple(drawn(self.engine, env) for env in range(self.num_envs))


def masked(made: dict[str, NDArray], num_envs: int, mask: NDArray | None = None) -> dict[str, Any]:
    """Columns beside the masks `_name` of who has them, as Gymnasium's vector infos are."""
    have = np.ones(num_envs, bool) if mask is None else mask
    return {k: column.copy() for k, column in made.items()} | {f"_{k}": have.copy() for k in made}
