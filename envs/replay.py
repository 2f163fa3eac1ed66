"""`SpecDecodeReplay-v0`: recorded decoding at measured prices, as one environment or as many.

Spaces, infos, rewards and resets are those of `SpecDecode-v0`; no model is loaded, and no outcome
is in the infos.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from envs.cost import Costs
from envs.market import Batches, Market
from envs.replay_heads import make_head
from envs.replayed import Replay, Step
from envs.rewards import Reward, make_reward
from envs.shell import SAME_STEP, Columns, Several, Shell, Single
from envs.together import Together
from envs.trace import Trace
from spec_core.doubt import ALWAYS, Doubt
from spec_core.menu import Menu
from spec_core.plan import Plan

METADATA: dict[str, Any] = {"render_modes": []}
DEAL_EVERY = 32  # cycles: a text has about fifty
VECTOR_METADATA = {**METADATA, **SAME_STEP}


def make_replay(
    num_envs: int, trace: Trace | str | Path, costs: Costs | str | Path,
    menu: Menu | Sequence[Any] | None = None, head: str = "menu",
    reward: str | Reward = "tokens_per_second", plan: Plan | str | None = None,
    budgets: Sequence[int] | None = None, loads: Sequence[int] = (1,), seed: int = 0,
    noise: bool = False, learned: bool = True, together: bool = False,
    doubt: Doubt | Sequence[float] = ALWAYS, deal_every: int = DEAL_EVERY,
) -> Replay | Together:  # fmt: skip
    """The engine of a replay environment; see `ReplayEnv` for the options."""
    if num_envs < 1 or deal_every < 0:
        raise ValueError(f"num_envs ({num_envs}) must be at least 1, deal_every ({deal_every}) 0")
    trace = trace if isinstance(trace, Trace) else Trace.read(trace)
    costs = costs if isinstance(costs, Costs) else Costs.read(costs)
    if menu is not None and head == "menu":
        menu = menu if isinstance(menu, Menu) else Menu.of(menu)
        trace = trace if trace.menu == menu else trace.with_menu(menu)
    batches = (Batches.turns if together else Batches.split)(loads, num_envs)
    decides = make_head(head, trace, batches, costs.early, plan, budgets, doubt)
    market = Market(decides.trace, costs, loads, learned, together)
    paid = make_reward(reward, len(batches.load), decides.per_cycle, loads=batches.place)
    deal_every = deal_every if head == "menu" and len(set(loads)) > 1 else 0
    spread = costs.spread if noise else 0.0
    engine = Replay(decides, market, batches, paid, seed, spread, deal_every)
    return Together(engine, batches) if together else engine


class Replayed(Shell):
    """What the single and the vector environment share beside a shell."""

    engine: Replay | Together
    projections = 0  # the target's hidden states are not recorded

    def _columns(self, step: Step) -> Columns:
        return self.told(step.figures) | self._texts(step.texts)

    def _first(self) -> Columns:
        return self._texts(self.engine.texts)

    def _texts(self, texts: NDArray) -> Columns:
        active = {"active": self.engine.masks.sum(1) > 1}
        return active | self.named(*self.engine.names[texts].T)

    def savings(self) -> NDArray:
        """[B, plans] seconds that every plan saves over the best static one, to the texts' ends.

        Together: of a whole batch, in usual cycles of its load.
        """
        return self.engine.savings()


class ReplayEnv(Replayed, Single):
    """One recorded text at a time; a step is a cycle, or a draft level with head="stop".

    trace, costs: objects, or where `envs.record` and `envs.calibrate` wrote them. menu: other
    plans than the recorded ones; head, plan, budgets, doubt: what is decided, as live; all plans as
    far as the recorded candidates serve them. reward: a name, or an object of envs.rewards. loads:
    sizes of the batches that environments are in (vector environments only, but for the first).
    deal_every: cycles after which the batches' loads are dealt anew; 0: never, as with other heads.
    together: an environment is a whole batch, and one decision is taken for all of it. noise:
    seconds vary as the measured ones did. learned: a learned policy's own seconds are charged, for
    every decision. seed: of the order of the texts.
    """

    metadata = METADATA

    def __init__(
        self, trace: Trace | str | Path, costs: Costs | str | Path, render_mode: None = None,
        **options: Any,
    ) -> None:  # fmt: skip
        self._begin(make_replay(1, trace, costs, **options))


class ReplayVectorEnv(Replayed, Several):
    """Many recorded texts at once; options are those of `ReplayEnv`."""

    metadata = VECTOR_METADATA

    def __init__(
        self, trace: Trace | str | Path, costs: Costs | str | Path, num_envs: int = 1,
        render_mode: None = None, **options: Any,
    ) -> None:  # fmt: skip
        self._begin(make_replay(num_envs, trace, costs, **options))
