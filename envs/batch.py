"""The engine behind the live environments: B texts in one session, decoded with the real clock.

It drives `spec_core.cycles.conversation`, hands the learner's questions out, and keeps the books:
which environment a row belongs to, and what every step cost. Knows no gymnasium.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from envs.books import Books
from envs.feed import Feed, Prompt
from envs.heads import Actions, Head, Mask
from envs.rewards import Reward
from spec_core.cycles import Answer, Question, conversation
from spec_core.extractor import Extractor
from spec_core.features import Array
from spec_core.sampling import Sampling
from spec_core.session import Observation, Outcome, Session
from spec_core.tree import NOTHING
from spec_core.verifiers.base import Verifier


@dataclass
class Step:
    """What one step of all environments gave; arrays are [B]."""

    features: Array  # [B, F] what the next actions are asked on
    rewards: NDArray[np.float64]
    over: Mask  # episodes that ended in this step
    figures: NDArray[np.float64]  # [FIGURES, B] sums over the cycles of the step
    final: Array  # [B, F] the features at the ends of those that are over
    prompts: list[Prompt]  # of the texts in which the actions were taken
    outcome: Outcome | None  # the cycle that the actions decided, once it is over
    entries: NDArray[np.int64]  # each environment's entry in it


class Engine:
    """A batch of environments; an ended text's place is taken by the next prompt at once."""

    def __init__(
        self, feed: Feed, head: Head, reward: Reward, sampling: Sampling, verifier: Verifier,
        num_envs: int, seed: int = 0, max_nodes: int = 64, projections: int = 0,
        decision_seconds: float = 0.0,
    ) -> None:  # fmt: skip
        self.feed, self.head, self.sampling = feed, head, sampling
        self.books = Books(reward, head.per_cycle)
        self.verifier, self.max_nodes, self.num_envs = verifier, max_nodes, num_envs
        self.decision_seconds, self.extractor = decision_seconds, Extractor(projections)
        self.size = self.extractor.size + head.extra
        self.outcome: Outcome | None = None
        feed.begin(seed)

    @torch.no_grad()
    def reset(self, seed: int | None = None) -> Array:
        """The first features; goes on with the texts where all episodes have just ended."""
        if seed is not None:
            self.feed.begin(seed)
        if seed is not None or self.books.handed:
            self._open()
        self.books.begin()
        return self.features

    @torch.no_grad()
    def step(self, actions: Actions) -> Step:
        """Take one decision per environment and run on to the next question."""
        actions = np.asarray(actions).reshape(-1)
        if len(actions) != self.num_envs or not (0 <= actions).all():
            raise ValueError(f"actions must be {self.num_envs} numbers from 0 on, not {actions}")
        if (actions >= self.head.choices).any():
            raise ValueError(f"action {actions.max()}: there are {self.head.choices}")
        before, self.outcome = list(self.prompts), None
        self.books.turn()
        self.decisions += 1
        self._run(self.head.answer(actions[self.envs]))
        rewards, figures = self.books.settle()
        return Step(
            self.features, rewards, self.books.over, figures, self.books.final, before,
            self.outcome, self.entries,
        )  # fmt: skip

    def _open(self) -> None:
        """A new session on the next prompts."""
        taken = [self.feed.take() for _ in range(self.num_envs)]
        self.prompts = [prompt for prompt, _ in taken]
        self.session = Session(
            self.feed.decoder.pair, [sequence for _, sequence in taken], self.sampling,
            self.verifier, self.max_nodes, self.feed.room,
        )  # fmt: skip
        self.places = {request: request for request in self.session.rows}  # request: environment
        self.books.open(self.num_envs, self.size)
        self.outcome, self.entries = None, np.arange(self.num_envs)
        self.passed = 0  # texts that ended since the last question
        self.ends: tuple[Observation, list[int], list[int]] | None = None
        self._begin_cycle()
        self._run(None)

    def _begin_cycle(self) -> None:
        self.talk = conversation(self.session, self.head.levels, self.head.trims)
        self.looks: list[tuple[Any, Any]] = []  # when features were extracted in this cycle
        self.decisions = 0

    def _run(self, answer: Answer | None) -> None:
        """Run on to the next question that is the learner's; cycles without one are silent."""
        while True:
            try:
                question = self.talk.send(answer)  # type: ignore[arg-type]
            except StopIteration as done:
                self._close(done.value)
                self._begin_cycle()
                answer = None
                continue
            answer = self._look(question)
            if answer is None:
                return

    def _look(self, question: Question) -> Answer | None:
        """Extract features and answer what is settled; the time is the policy's.

        What is asked has a price where one is given, of a look and of deciding on it; a tree's
        features are nowhere made in machine code, and are measured.
        """
        start = self.session.clock.mark()
        if isinstance(question, Observation):
            self.known = self.extractor.observe(question)
        answer = self.head.settled(question)
        view = self.head.view(question, self.known) if answer is None else None
        unpriced = not self.decision_seconds or self.head.trims or self.extractor.projections
        if answer is not None or unpriced:
            self.looks.append((start, self.session.clock.mark()))
        if isinstance(question, Observation):
            self._look_back(question)
        if view is None:
            return answer
        self.passed = 0
        self.envs = [self.places[request] for request in self.session.rows]
        allowed = self.head.allowed(question, self.session)
        self.features, self.masks = np.empty_like(view), np.empty_like(allowed)
        self.features[self.envs], self.masks[self.envs] = view, allowed
        return None

    def _close(self, outcome: Outcome) -> None:
        """Enter a finished cycle into the books and fill the places of ended texts."""
        envs = [self.places[request] for request in outcome.rows]
        ended = [request not in self.session.rows for request in outcome.rows]
        if self.outcome is None and not self.books.over.all():
            self.outcome, self.entries = outcome, np.argsort(envs)
        over = self.books.enter(np.array(envs), self._figures(outcome, ended))
        self._note_ends(outcome, envs, set(over.tolist()))
        for request, gone in zip(outcome.rows, ended, strict=True):
            if gone:
                self._admit(self.places.pop(request), request)

    def _figures(self, outcome: Outcome, ended: list[bool]) -> NDArray[np.float64]:
        """[FIGURES, B] of a cycle, whose seconds are shared evenly."""
        batch, tree, spent = len(outcome.rows), outcome.tree, outcome.seconds
        seconds = spent.draft + spent.verify + spent.commit
        seconds += sum(self.session.clock.between(*look) for look in self.looks)
        seconds += self.decisions * self.decision_seconds
        depths = tree.depths.masked_fill(tree.tokens == NOTHING, 0).amax(1)
        return np.array((
            [len(tokens) for tokens in outcome.tokens], [seconds / batch] * batch,
            outcome.accepted, outcome.drafted, depths.tolist(), [1] * batch, ended,
        ), np.float64)  # fmt: skip

    def _note_ends(self, outcome: Outcome, envs: list[int], over: set[int]) -> None:
        """Where episodes ended: their last features are read once the cycle has been looked at."""
        active = [self.session.sequences[request] for request in outcome.rows]
        places = [place for place, env in enumerate(envs) if env in over]
        end = Observation(
            outcome.rows, [len(s.tokens) for s in active], [s.remaining for s in active],
            self.sampling.temperature, outcome,
        )  # fmt: skip
        self.ends = (end, places, envs) if places else None

    def _look_back(self, begun: Observation) -> None:
        """The features at the ends of episodes, which no policy asks for; costs nobody."""
        if self.ends is not None:
            end, places, envs = self.ends
            known = self.extractor.observe(end)
            for place in places:
                self.books.final[envs[place], : known.shape[1]] = known[place]
            self.ends = None
        for request in self.extractor.requests.keys() - set(begun.rows):
            del self.extractor.requests[request]
            self.extractor.hidden.pop(request, None)

    def _admit(self, env: int, old: int) -> None:
        """The next prompt takes an environment whose text has ended."""
        self.passed += 1
        if self.passed > 2 * (self.num_envs + len(self.feed.prompts)):
            raise ValueError(
                "whole texts go by without a decision: raise max_new_tokens, lower the plan's "
                "threshold, or take shorter prompts"
            )
        self.session.sequences[old].tokens.clear()  # it is never looked at again
        self.prompts[env], sequence = self.feed.take()
        self.places[self.session.admit(sequence)] = env

    def state(self) -> dict[str, Any]:
        """What `restore` needs, fit for JSON: texts under way are not kept."""
        return {**self.books.state(), "seed": self.feed.seed, "taken": self.feed.taken}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with the prompt after those of `state`; the next thing must be a reset."""
        self.books.restore(state)
        self.feed.begin(state["seed"], state["taken"])
