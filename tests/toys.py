"""Vector envs without models, in which the best decisions are known."""

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from spec_core import Plan
from spec_core.features import FEATURES, LEVEL_FEATURES, NAMES, TREE_FEATURES
from spec_core.menu import Menu

RATE, LEVEL = 2.5, 0.2  # tokens per second; seconds of a draft level
MENU = Menu.of(["ar", "chain-2", "chain-4", "chain-8"])
EASY = NAMES.index("accepted_slow")
DEEPEST = 3


class Toy(VectorEnv):
    """Decoding in two moods that a feature tells: easy (6 to 8 accepted) or hard (0, rarely 1).

    The best choice is the deepest plan or none. Some envs wait now and then, and are lied to.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, num_envs=8, seed=0, easy=0.5, waiting=0.1, head="menu", menu=MENU):
        self.num_envs, self.easy, self.waiting, self.head = num_envs, easy, waiting, head
        self.menu, self.plan = (menu, None) if head == "menu" else (None, Plan(8))
        self.budgets = None if head == "menu" else [1, 3, 5, 9]
        self.depths = np.array([p.depth for p in menu.plans])
        self.random = np.random.default_rng(seed)
        self.seen, self.taken, self.acted, self.paid = [], [], [], 0.0
        extra = {"menu": 0, "verify": len(TREE_FEATURES), "stop": len(LEVEL_FEATURES)}[head]
        self.size = len(FEATURES) + extra
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (self.size,), np.float32)
        self.single_action_space = spaces.Discrete(2 if head == "stop" else len(self.depths))

    def draw(self, count):
        """Features and how many tokens would be accepted."""
        easy = self.random.random(count) < self.easy
        features = self.random.normal(0, 0.3, (count, self.size))
        features[:, EASY] = np.where(easy, 0.8, 0.2) + self.random.normal(0, 0.05, count)
        hard = self.random.random(count) < 0.2
        lengths = np.where(easy, self.random.integers(6, 9, count), hard)
        return features.astype(np.float32), lengths

    def reset(self, *, seed=None, options=None):
        return self.next(), {"active": self.active}

    def next(self):
        self.known, self.lengths = self.draw(self.num_envs)
        self.active = self.random.random(self.num_envs) >= self.waiting
        self.seen.append(self.known)
        return self.known.copy()

    def action_masks(self):
        return np.ones((self.num_envs, len(self.depths)), bool)

    def savings(self):
        """Seconds that every plan saves, at the best rate, [num_envs, choices]."""
        tokens = np.minimum(self.lengths[:, None], self.depths) + 1.0
        return tokens / RATE - (1 + LEVEL * self.depths)

    def step(self, actions):
        self.taken.append(np.array(actions))
        self.acted.append(self.active)
        depth, over = self.depths[actions], np.zeros(self.num_envs, bool)
        accepted, told = np.minimum(self.lengths, depth), self.active
        tokens, seconds = accepted + 1.0, 1 + LEVEL * depth
        lie = np.where(np.array(actions) == 1, 10.0, 0.0)
        rewards = np.where(told, RATE + tokens - RATE * seconds, lie)
        infos = {"tokens": tokens, "seconds": seconds, "accepted": accepted, "drafted": depth,
                 "depth": depth, "cycles": np.ones(self.num_envs, int)}  # fmt: skip
        for name, lied in (("tokens", lie), ("accepted", lie), ("depth", 8)):
            infos[name] = np.where(told, infos[name], lied)
        return self.next(), rewards, over, over.copy(), infos | {"active": self.active}


class StopToy(Toy):
    """The same at draft levels: go on where it is easy, stop at once where it is not.

    together: cycles end when all have stopped, as in a batch; who has stopped waits.
    """

    def __init__(self, num_envs=8, seed=0, together=False, plan=None):
        super().__init__(num_envs, seed, head="stop")
        self.plan, self.together = plan or Plan(6), together

    def reset(self, *, seed=None, options=None):
        self.level, self.stopped = np.ones((2, self.num_envs), int) * [[1], [0]]
        self.base, self.lengths = self.draw(self.num_envs)
        return self.view(), {"active": self.active}

    def view(self):
        self.active = self.stopped == 0
        self.base[:, len(FEATURES)] = self.level / 8
        self.seen.append(self.base.copy())
        return self.base.copy()

    def savings(self):
        """Seconds that one more level saves, at the best rate, and none."""
        more = (self.lengths > self.level) / RATE - LEVEL
        return np.stack((np.where(self.active, more, 9.0), 0 * more), 1)

    def step(self, actions):
        self.taken.append(np.array(actions))
        self.acted.append(self.active)
        going = self.active & (np.array(actions) == 0)
        self.level[going] += 1
        self.stopped = 1 - (going & (self.level < self.plan.depth))
        over = self.stopped == 1
        over = np.full(self.num_envs, over.all()) if self.together else over
        depth, accepted = self.level * over, np.minimum(self.lengths, self.level) * over
        tokens, seconds = (accepted + 1.0) * over, (1 + LEVEL * depth) * over
        infos = {"tokens": tokens, "seconds": seconds, "accepted": accepted, "drafted": depth,
                 "depth": depth, "cycles": over.astype(int)}  # fmt: skip
        new, lengths = self.draw(self.num_envs)
        self.base[over], self.lengths[over] = new[over], lengths[over]
        self.level[over], self.stopped[over] = 1, 0
        rewards, cut = tokens - RATE * seconds, np.zeros(self.num_envs, bool)
        self.paid += rewards.sum()
        return self.view(), rewards, over, cut, infos | {"active": self.active}


def gap_closed(chooser, env):
    """Share of the way from the best fixed choice to the best of every mood, in reward."""
    features, lengths = env.draw(2000)
    depths = np.broadcast_to(env.depths, (2000, len(env.depths)))
    gains = np.minimum(lengths[:, None], depths) + 1 - RATE * (1 + LEVEL * depths)
    mood = lengths > 1
    oracle = np.mean([gains[mood].mean(0).max(), gains[~mood].mean(0).max()])
    static = gains.mean(0).max()
    found = gains[np.arange(2000), chooser.choose(features)]
    return (np.mean([found[mood].mean(), found[~mood].mean()]) - static) / (oracle - static)
