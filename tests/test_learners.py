"""Learners find what is best in toy envs, export just that, and go on where they were saved."""

from tempfile import TemporaryDirectory

import numpy as np
import pytest
from toys import DEEPEST, EASY, StopToy, Toy, gap_closed

from policies.learners import LEARNERS, Seat, make_learner
from policies.learners.bandits import ucb1_index
from policies.learners.networks import FLOOR, fit
from policies.learners.stopping import LEVEL, SURVIVED, level_cost
from spec_core import load_policy
from spec_core.features import FEATURES
from spec_core.menu import Menu

SLOW = pytest.mark.slow
PLAIN = ["ucb1", "exp3", "gaussian_thompson", "table"]
STEPS = {"ppo": 3072, "maskable_ppo": 3072, "dqn": 3000, "exp3": 5000, "regression": 2000}
CONTEXTUAL = [
    *("linucb", "binned_thompson", "regression", "adaeagle", "full_information"),
    *("ppo", "maskable_ppo", "dqn"),
]
HEADS = ("specdec_pp", "fitted_marginal", "full_information")
QUICK = {name: {"updates": 500} for name in HEADS}
FEW = {name: {"updates": 50} for name in ("adaeagle", "regression", *QUICK)}
STOPPING = ["specdec_pp", "full_information", "ppo", "a2c", "dqn"]


def ignore(progress):
    """A watch that lets everything go on."""


def learned(name, env, steps=None, **arguments):
    """A learner after its usual steps in a toy."""
    learner = make_learner(name, env, **{**QUICK.get(name, {}), **arguments})
    learner.learn(env, steps or STEPS.get(name, 3000), ignore)
    return learner


def same_decisions(learner, env):
    """The exported chooser decides as the learner does, wherever it may come; from disk as well."""
    noise = np.random.default_rng(5).normal(0, 2, (1000, env.size)).astype(np.float32)
    policy = learner.policy()
    with TemporaryDirectory() as folder:
        policy.save(folder)
        loaded = load_policy(folder).chooser
    for features in (noise, np.vstack(env.seen)):
        chosen = policy.chooser.choose(features)
        assert (chosen == learner.best(features)).all()
        assert loaded.choose(features).tolist() == loaded.decide(features) == chosen.tolist()
    return policy.chooser


def test_every_learner_is_tested():
    assert set(PLAIN + CONTEXTUAL + STOPPING) | set(HEADS) == set(LEARNERS)


@pytest.mark.parametrize("name", PLAIN)
def test_bandits_find_the_best_plan(name):
    env = Toy(easy=1.0)
    chooser = same_decisions(learned(name, env), env)
    assert (chooser.choose(env.draw(100)[0]) == DEEPEST).all()
    taken = np.concatenate(env.taken[-200:])
    assert (taken == DEEPEST).mean() > 0.35  # a quarter by chance: they exploit while they learn


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=SLOW) if n in ("dqn", "maskable_ppo") else n for n in CONTEXTUAL],
)
def test_contexts_are_told_apart(name):
    env = Toy()
    assert gap_closed(same_decisions(learned(name, env), env), env) > 0.8


@pytest.mark.parametrize(
    "name",
    [*(pytest.param(n, marks=SLOW) for n in ("ppo", "regression")), "linucb", "gaussian_thompson"],
)
def test_the_verify_head_is_learned_as_well(name, tmp_path):
    env = Toy(head="verify", easy=1.0)
    learner = learned(name, env)
    same_decisions(learner, env)
    learner.policy().save(tmp_path)
    policy = load_policy(tmp_path)
    assert policy.budgets == [1, 3, 5, 9]
    assert (policy.chooser.choose(env.draw(300)[0]) == DEEPEST).mean() > 0.95


@pytest.mark.parametrize("together", [pytest.param(False, marks=SLOW), True])
@pytest.mark.parametrize(
    "name", [n if n in STOPPING[:2] else pytest.param(n, marks=SLOW) for n in STOPPING]
)
def test_drafts_end_where_nothing_more_is_accepted(name, together):
    env = StopToy(together=together)
    learner = learned(name, env, {"a2c": 12_000, "dqn": 8000}.get(name, 6000))
    chooser = same_decisions(learner, env)
    env.reset()
    first = np.vstack([env.reset()[0] for _ in range(100)])
    assert (chooser.choose(first) == (first[:, EASY] < 0.5)).mean() > 0.95
    deep = first[first[:, EASY] > 0.5].copy()
    deep[:, len(FEATURES)] = 5 / 8
    assert (chooser.choose(deep) == 0).mean() > 0.9


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=SLOW) if n in ("a2c", "dqn", "maskable_ppo") else n for n in LEARNERS],
)
def test_a_restored_learner_goes_on_as_if_nothing_had_happened(name, tmp_path):
    make, few = StopToy if name in HEADS[:2] else Toy, FEW.get(name, {})
    whole, broken = make(seed=3), make(seed=3)
    first = learned(name, whole, 512, **few)
    learned(name, broken, 512, **few).save(tmp_path)
    np.random.rand(7)  # somebody else draws in between
    second = make_learner(name, broken, seed=8, **few)
    second.restore(tmp_path)
    assert second.steps == first.steps >= 512
    for learner, env in ((first, whole), (second, broken)):
        learner.seed = 0  # the seed of fits is given by the configuration
        learner.learn(env, 1024, ignore)
    assert (np.stack(whole.taken) == np.stack(broken.taken)).all()
    features = whole.draw(500)[0]
    assert (first.best(features) == second.best(features)).all()


def test_learning_leaves_the_global_generators_alone():
    np.random.seed(1)
    expected = np.random.rand(3)
    np.random.seed(1)
    learned("ppo", Toy(), 600)
    assert (np.random.rand(3) == expected).all()


@pytest.mark.parametrize("name", ["ppo", "dqn", "ucb1"])
def test_watch_ends_learning_and_its_errors_leave_the_learner_whole(name):
    env, told = Toy(), []
    learner = make_learner(name, env)

    def end(progress):
        told.append(progress)
        return False

    def fail(progress):
        raise KeyboardInterrupt

    learner.learn(env, 10_000, end)
    assert len(told) == 1 and told[0].steps == learner.steps < 1000
    assert told[0].metrics["tokens_per_second"] > 0 and np.isfinite(told[0].reward)
    with pytest.raises(KeyboardInterrupt):
        learner.learn(env, 10_000, fail)
    same_decisions(learner, env)
    before = learner.steps
    learner.learn(env, before + 1, ignore)
    assert learner.steps > before


def test_ucb1_adds_the_bonus_of_the_paper_in_units_of_the_range():
    means, counts = np.array([3.0, 5.0, 0.0]), np.array([10.0, 2.0, 0.0])
    found = ucb1_index(means, counts, 7.0)
    assert found[0] == pytest.approx(3 + 7 * (2 * np.log(12) / 10) ** 0.5)
    assert found[1] == pytest.approx(5 + 7 * (2 * np.log(12) / 2) ** 0.5)
    assert found[2] == np.inf


def test_ucb1_tries_every_plan_once_before_any_twice():
    env = Toy(num_envs=2, waiting=0)
    learned("ucb1", env, 4)
    assert sorted(np.concatenate(env.taken)) == [0, 1, 2, 3]


def test_one_pause_of_the_machine_does_not_ruin_a_plan():
    env = Toy(easy=1.0, waiting=0)
    learner = learned("gaussian_thompson", env, 1000)
    before = learner.values()
    rewards, step = np.array([-1e6]), np.array([DEEPEST])
    learner.count(env.draw(1)[0], step, learner._fenced(rewards))
    assert abs(learner.values() - before).max() < 0.2


def test_a_chain_accepted_whole_says_only_at_least():
    env = Toy(easy=1.0, waiting=0)
    learner = learned("adaeagle", env, 2000, exploring=1.0, under=1.0)  # mostly hidden
    assert np.median(learner.net.predict(env.draw(100)[0])) > 5.5


def test_lengths_become_the_chains_of_the_menu_and_nothing_else():
    menu = Menu.of(["beam-4x2n8", "chain-8", "ar", "chain-3"])
    env = Toy(menu=menu)
    policy = learned("adaeagle", env, 2000).policy()
    assert policy.menu == menu
    features, lengths = env.draw(500)
    assert (policy.chooser.choose(features) == np.where(lengths > 1, 1, 2)).mean() > 0.95
    with pytest.raises(ValueError, match="needs chains"):
        make_learner("adaeagle", Toy(menu=Menu.of(["ar", "beam-4x2n8"])))


def test_what_was_stopped_says_nothing_of_the_next_level():
    env = StopToy()
    env.easy = 1.0
    learner = learned("specdec_pp", env, 1000, exploring=1.0)
    assert learner.levels.rows[:, SURVIVED].all()
    assert set(learner.levels.rows[:, LEVEL]) == {1, 2, 3, 4}  # 5 is the last that is asked


@pytest.mark.parametrize("name", ["ppo", "maskable_ppo"])
def test_rollouts_leave_out_who_waited(name):
    env = Toy(waiting=0.5)
    buffer = learned(name, env, 512).model.rollout_buffer
    acted = np.stack(env.acted)[-buffer.buffer_size :]
    assert (buffer.acting == acted).all()
    rows = np.vstack([part.observations.numpy() for part in buffer.get(64)])
    assert len(rows) == len(np.unique(rows, axis=0)) == acted.sum()


def test_a_replay_holds_what_counted_and_all_that_it_earned():
    env = StopToy(together=True)
    memory = learned("dqn", env, 600).model.replay_buffer
    assert memory.size() + len(memory.open) == np.stack(env.acted).sum() < 600
    assert memory.rewards[: memory.size()].sum() == pytest.approx(env.paid, rel=1e-4)
    env = Toy(waiting=0.5)
    memory = learned("dqn", env, 600).model.replay_buffer
    assert memory.size() + len(memory.open) == np.stack(env.acted).sum()
    assert memory.rewards.max() < 9  # no lies


def test_the_fitted_marginal_rule_reads_path_and_level_alone():
    for easy, ends in ((1.0, 0), (0.0, 1)):
        env = StopToy()
        env.easy = easy
        learner = learned("fitted_marginal", env, 2000)
        first = np.vstack([env.reset()[0] for _ in range(50)])
        chooser = same_decisions(learner, env)
        assert (chooser.choose(first) == ends).mean() > 0.9
        other = first.copy()
        other[:, : len(FEATURES)] += 3
        assert (chooser.choose(other) == chooser.choose(first)).all()
    with pytest.raises(ValueError, match="no feature 'paths'"):
        make_learner("specdec_pp", StopToy(), reads=["paths"])


def test_a_level_costs_what_the_cycles_show():
    depth = np.array([1.0, 3, 6, 6, 2])
    base, more = level_cost(depth, 0.5 + 0.2 * depth)
    assert (base, more) == (pytest.approx(0.5), pytest.approx(0.2))
    assert level_cost(np.full(3, 4.0), np.full(3, 2.0)) == (2.0, 0.0)


def test_an_acceptance_head_obeys_a_given_threshold():
    env = StopToy()
    features = np.vstack([env.reset()[0] for _ in range(50)])
    how = {"hidden": (), "updates": 200}
    loose = learned("specdec_pp", env, 2000, threshold=0.99, **how).policy().chooser
    strict = learned("specdec_pp", StopToy(), 2000, threshold=0.01, **how).policy().chooser
    assert loose.choose(features).sum() < strict.choose(features).sum()


def test_what_never_varied_does_not_explode_in_use():
    features = np.zeros((300, 3), np.float32)
    features[:, 0] = np.linspace(-1, 1, 300)
    net = fit(features, lambda y, at: y.square().mean(), 2)
    assert abs(net.network().weights[0]).max() < 3 / FLOOR
    scores, other = net.predict(features), net.network().scores(features)
    assert np.abs(scores - other).max() < 1e-5


def test_unknown_names_and_arguments_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"did you mean ucb1\?.*linucb"):
        make_learner("ucb", Toy())
    with pytest.raises(ValueError, match=r"did you mean rollout\?"):
        make_learner("ppo", Toy(), rolout=3)
    with pytest.raises(ValueError, match="learns the head menu or verify, not stop"):
        make_learner("ucb1", StopToy())
    with pytest.raises(ValueError, match="learns the head stop, not menu"):
        make_learner("specdec_pp", Toy())
    with pytest.raises(ValueError, match="nothing was seen yet"):
        make_learner("regression", Toy()).policy()


def test_a_state_of_something_else_is_refused(tmp_path):
    learner = learned("ucb1", Toy(), 100)
    with pytest.raises(ValueError, match=r"no learner\.pt"):
        learner.restore(tmp_path)
    learner.save(tmp_path)
    with pytest.raises(ValueError, match="its learner is Ucb1"):
        make_learner("exp3", Toy()).restore(tmp_path)
    with pytest.raises(ValueError, match="its seat is"):
        make_learner("ucb1", Toy(menu=Menu.of(["ar", "chain-3"]))).restore(tmp_path)
    (tmp_path / "learner.pt").write_bytes(b"no")
    with pytest.raises(ValueError, match="not readable"):
        learner.restore(tmp_path)


def test_another_seat_is_refused():
    learner = make_learner("ppo", Toy())
    with pytest.raises(ValueError, match="made for 8 envs"):
        learner.learn(Toy(num_envs=2), 10, ignore)
    env = Toy()
    env.menu = None
    with pytest.raises(ValueError, match="does not say what it decides"):
        Seat.of(env)
