"""Sessions: ended sequences cost nothing, caches stay those of the text, outcomes add up."""

from __future__ import annotations

from functools import cache
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import CPU, VOCAB, Counting, Hashed, Mixed, drafter, pair_of, plans, target

from spec_core import AUTOREGRESSIVE, Fixed, Pair, Plan, SpeculativeDecoder, Template, cycle
from spec_core.drafters.lm import ModelDrafter, prefill
from spec_core.growth import grow
from spec_core.sequence import Ending
from spec_core.session import Broken, most_nodes
from spec_core.tree import NOTHING
from spec_core.verifiers.coupled import Coupled
from spec_core.verifiers.rejection import Rejection

PROMPTS = [[1, 2, 3], [5], [7, 8, 9, 10, 11]]
TREES = {
    "beam": Plan(4, width=3, budget=40),
    "best": Plan(5, width=2, budget=10, frontier="best"),
    "second ranks": Plan.of(Template((0, 0, 1, 2, 3, 4), (2, 1, 1, 0, 0, 0))),
}


def opened(pair: Pair, plan: Plan | None = None, prompts=PROMPTS, **options):
    """A decoder and its session; the texts end at different lengths where `new` says so."""
    decoder = SpeculativeDecoder(pair, Fixed(plan or TREES["beam"]))
    new = options.pop("new", None)
    session = decoder.open(prompts, **{"max_new_tokens": 16, "seed": 3, **options})
    for sequence, count in zip(session.sequences, new or [], strict=False):
        sequence.limit = sequence.prompt + count
    return decoder, session


@cache
def plain(temperature: float) -> list[list[int]]:
    """The texts, one token at a time."""
    options = {"max_new_tokens": 16, "seed": 3, "temperature": temperature}
    decoder = SpeculativeDecoder(pair_of("other"), Fixed(AUTOREGRESSIVE))
    return decoder.generate(PROMPTS, **options).tokens


@pytest.mark.parametrize("plan", [AUTOREGRESSIVE, Plan(2), TREES["beam"]])
def test_ended_sequences_cost_nothing_further(plan):
    counted, drafting = Counting(target()), Counting(drafter("near").model)
    pair = Pair(counted, ModelDrafter(drafting))
    _, session = opened(pair, plan, new=[3, 9, 16], temperature=1.0)
    policy = Fixed(plan)
    counted.rows.clear()
    while not session.done:
        working = len(session.rows)
        before = len(counted.rows)
        drafting.rows.clear()
        outcome = cycle(session, policy)
        assert counted.rows[before:] == [working] == [len(outcome.rows)]  # one forward, no idle row
        rows = [n for n, q in zip(drafting.rows, drafting.queries, strict=False) if n > 1]
        assert all(n == working for n in rows)
        if plan is AUTOREGRESSIVE:
            assert not drafting.rows
    assert session.cycles == len(counted.rows) <= 16
    assert set(counted.rows) == {1, 2, 3}
    right = [text[:count] for text, count in zip(plain(1.0), [3, 9, 16], strict=True)]
    assert [s.new for s in session.sequences] == right


def held(model, cache, row: int, text: list[int]):
    """A row's KV of a text, and that of a fresh prefill: [layers, slots, heads, D]."""
    fresh = model.new_cache(1, len(text) + 1)
    prefill(model, fresh, 0, text, 0)
    return cache.data[:, row, : len(text)], fresh.data[:, 0, : len(text)]


@pytest.mark.parametrize("plan", TREES.values(), ids=TREES)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_caches_are_those_of_the_text(plan, temperature):
    pair = pair_of("near")
    _, session = opened(pair, new=[20, 70, 60], max_new_tokens=70, temperature=temperature)
    policy, moved, cycles = Fixed(plan), 0, 0
    while not session.done and cycles < 40:
        outcome = cycle(session, policy)
        cycles += 1
        moved += sum(path != list(range(1, len(path) + 1)) for path in outcome.path)
        for row, sequence in enumerate(session.active):
            found, right = held(session.target, session.cache, row, sequence.tokens[:-1])
            assert (found - right).abs().max() < 1e-4
            known = session.drafting.known[row]
            text = sequence.tokens[:known]
            found, right = held(pair.drafter.model, session.drafting.cache, row, text)
            assert (found - right).abs().max() < 1e-4
            assert len(sequence.tokens) - 2 <= known < len(sequence.tokens)
    assert moved > 5 and cycles > 10


class Faulty(Counting):
    """A target whose logits for one batch row are not finite from one forward on."""

    def __init__(self, model, when: int, row: int, value: float) -> None:
        super().__init__(model)
        self.when, self.row, self.value = when, row, value

    def forward(self, *arguments, **options):
        logits = super().forward(*arguments, **options)
        if len(self.rows) >= self.when:
            logits[self.row, :, 4] = self.value
        return logits


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("verifier", [Coupled(), Rejection()])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_name_the_step_and_keep_the_text(value, verifier, temperature):
    faulty = Faulty(target(), 10**9, 1, value)
    decoder = SpeculativeDecoder(Pair(faulty, drafter("near")), Fixed(Plan(2)), verifier)
    session = decoder.open(PROMPTS, max_new_tokens=40, temperature=temperature, seed=3)
    for _ in range(3):
        cycle(session, decoder.policy)
    texts = [list(s.tokens) for s in session.sequences]
    faulty.when = 0
    with pytest.raises(Broken, match=rf"step 4 \(sequence 1, token {len(texts[1]) + 1}\)"):
        cycle(session, decoder.policy)
    broken = session.sequences[1]
    assert broken.ending is Ending.BROKEN and broken.tokens == texts[1]
    assert session.rows == [0, 2]
    for row in (0, 2):  # the others keep what this step gave them
        tokens = session.sequences[row].tokens
        assert len(tokens) > len(texts[row]) and tokens[: len(texts[row])] == texts[row]


def test_generate_hands_out_what_was_made_before_it_broke():
    faulty = Faulty(target(), 8, 0, float("nan"))
    decoder = SpeculativeDecoder(Pair(faulty, None), Fixed(AUTOREGRESSIVE))
    with pytest.raises(Broken, match=r"step 6 \(sequence 0, token 9\)") as caught:
        decoder.generate(PROMPTS, max_new_tokens=16, seed=3, temperature=1.0)
    made = caught.value.generation
    assert made.tokens == [plain(1.0)[0][:5], plain(1.0)[1][:6], plain(1.0)[2][:6]]
    assert made.endings == [Ending.BROKEN, None, None]


class Spoiled(Counting):
    """A target whose logits behind one place of a text are none, but behind one token there."""

    def __init__(self, model, place: int, spared: int) -> None:
        super().__init__(model)
        self.place, self.spared = place, spared

    def forward(self, tokens, positions, slots, view, cache, keep):
        logits = super().forward(tokens, positions, slots, view, cache, keep)
        mine = (positions == self.place) & (tokens != self.spared)
        logits[mine[:, -keep:]] = float("nan")
        return logits


@pytest.mark.parametrize("plan", [Plan(6), TREES["beam"], TREES["best"]])
@pytest.mark.parametrize("verifier", [Coupled(), Rejection()])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_end_a_text_where_plain_decoding_meets_them(plan, verifier, temperature):
    prompt, text, said = PROMPTS[2], plain(temperature)[2], list[int]()
    options = {"max_new_tokens": 16, "seed": 3, "temperature": temperature, "ids": [2]}
    exact = temperature == 0 or isinstance(verifier, Coupled)

    def decoded(place: int, spared: int):
        """The text as it was handed out and as it is in the end, of a target that is spoiled."""
        said.clear()
        pair = Pair(Spoiled(target(), place, spared), drafter("near"))
        decoder = SpeculativeDecoder(pair, Fixed(plan), verifier)
        return decoder.generate([prompt], lambda outcome: said.extend(outcome.tokens[0]), **options)

    for more in range(0, 7, 2):  # tokens before the place
        place = len(prompt) - 1 + more
        if exact:  # what is off the path is nobody's business
            assert decoded(place, [*prompt, *text][place]).tokens == [text]
        with pytest.raises(Broken, match=rf"token {place + 2}\)") as caught:
            decoded(place, NOTHING)
        made = caught.value.generation
        assert made.tokens == [said] and made.stats.new_tokens == len(said) == more
        assert not exact or said == text[:more]


@settings(max_examples=15)
@given(st.lists(plans(), min_size=1, max_size=4), st.booleans(), st.booleans())
def test_a_drafter_without_a_network_gives_the_plain_text(some, levels, warm):
    pair = Pair(target(), Hashed())
    made = SpeculativeDecoder(pair, Mixed(some, levels=levels)).generate(
        PROMPTS, max_new_tokens=16, seed=3, temperature=float(warm)
    )
    assert made.tokens == plain(float(warm))


class Oracle(Hashed):
    """Knows the texts: proposes what follows, and nothing else of weight."""

    def logits(self, text):
        made = super().logits(text)
        for prompt, new in zip(PROMPTS, plain(0.0), strict=True):
            whole = tuple(prompt + new)
            if whole[: len(text)] == text and len(text) < len(whole):
                made[whole[len(text)]] = 100.0
        return made


def test_a_drafter_that_is_right_is_believed():
    decoder = SpeculativeDecoder(Pair(target(), Oracle()), Fixed(Plan(3, width=2)))
    made = decoder.generate(PROMPTS, max_new_tokens=16, seed=3)
    assert made.tokens == plain(0.0)
    assert made.stats.cycles == 3 * 4 and made.stats.accepted == 3 * 12


def test_plans_shrink_near_the_end():
    context = target().max_context
    prompts = [[1] * (context - left) for left in (2, 5, 60)]
    pair = pair_of("near")
    _, session = opened(pair, prompts=prompts, max_new_tokens=60)
    fitted = session.fit([Plan(12, budget=200)] * 3)
    assert [plan.depth for plan in fitted] == [1, 4, 12]
    assert {plan.budget for plan in fitted} == {session.max_nodes}
    session.sequences[2].limit = len(prompts[2]) + 8
    assert session.fit([Plan(12)] * 3)[2].depth == 7
    session.max_nodes = 6
    assert {plan.budget for plan in session.fit([Plan(12)] * 3)} == {6}
    outcome = cycle(session, Fixed(Plan(12)))
    assert [plan.depth for plan in outcome.plans] == [1, 4, 7]
    assert outcome.tree.depths.amax(1).tolist() <= [1, 4, 5]


def test_plans_shrink_to_the_drafts_context():
    _, session = opened(pair_of("short"), prompts=[[1] * 20, [1] * 30], max_new_tokens=40)
    assert [plan.depth for plan in session.fit([Plan(12)] * 2)] == [4, 0]
    _, session = opened(Pair(target(), None))
    assert session.fit([Plan(12)] * 3) == tuple([Plan(0)] * 3)


@pytest.mark.parametrize("room", [1, 30, 31, 60, 61])
def test_plans_shrink_to_what_a_cycle_may_expand(room, monkeypatch):
    monkeypatch.setattr("spec_core.session.DRAFT_ROOM", room)
    wide, deep = Plan(9, width=4), Plan(40, frontier="best")
    shape = Plan.of(Template((0, 0, 1, 2, 3, 4), (0, 1, 0, 0, 0, 0)))
    for plans_ in ([wide] * 3, [deep] * 3, [wide, deep, shape]):
        _, session = opened(pair_of("near"), max_new_tokens=60)
        fitted = session.fit(plans_)
        whole = grow(tuple(plan.within(40, 64) for plan in plans_), False, CPU)
        widths = [level.width for level in whole.levels]
        depth = sum(total <= room for total in accumulate(widths))
        assert [plan.depth for plan in fitted] == [min(p.depth, depth) for p in plans_]
        assert grow(fitted, False, CPU).expanded <= room


def test_a_plan_can_grow_so_many_nodes():
    huge = 10**9
    assert most_nodes(Plan(6, budget=huge), 1024) == 7
    assert most_nodes(Plan(6, width=8, budget=huge), 1024) == 1 + 8 * 41
    assert most_nodes(Plan(6, width=8, budget=100), 1024) == 100
    assert most_nodes(Plan(huge, budget=huge), 300) == 301


def test_a_plan_that_expands_too_much_gives_the_plain_text():
    decoder = SpeculativeDecoder(pair_of("near"), Fixed(Plan(14, width=60)), max_nodes=2000)
    assert decoder.generate(PROMPTS, max_new_tokens=16, seed=3).tokens == plain(0.0)


@settings(max_examples=15)
@given(
    st.lists(plans(full=True), min_size=1, max_size=4),
    st.sampled_from([0.0, 1.0]),
    st.sampled_from([Coupled(), Coupled(False), Rejection()]),
    st.booleans(),
)
def test_outcomes_add_up(some, temperature, verifier, levels):
    decoder = SpeculativeDecoder(pair_of("near"), Mixed(some, 1, levels), verifier)
    session = decoder.open(PROMPTS, max_new_tokens=12, temperature=temperature, seed=3)
    totals = [0, 0]
    while not session.done:
        rows, texts = list(session.rows), [list(s.tokens) for s in session.active]
        outcome = cycle(session, decoder.policy)
        totals = [totals[0] + 1, totals[1] + sum(map(len, outcome.tokens))]
        assert outcome.rows == rows and len(outcome.plans) == len(rows)
        assert outcome.drafted == [n - 1 for n in outcome.tree.counts]
        assert outcome is session.last and min(vars(outcome.seconds).values()) >= 0
        for b, row in enumerate(rows):
            check_entry(outcome, b, session.sequences[row], texts[b])
    assert totals == [session.cycles, sum(len(s.new) for s in session.sequences)] == [totals[0], 36]


def check_entry(outcome, b: int, sequence, text: list[int]) -> None:
    """One sequence's part of an outcome."""
    tokens, path, tree = outcome.tokens[b], outcome.path[b], outcome.tree
    assert sequence.tokens == text + tokens
    assert outcome.accepted[b] == len(path) <= outcome.plans[b].depth
    assert outcome.drafted[b] < outcome.plans[b].budget
    if sequence.ending is None:
        assert outcome.accepted[b] + 1 == len(tokens)
    else:
        assert 1 <= len(tokens) <= outcome.accepted[b] + 1
    assert tree.tokens[b, 0] == text[-1]
    assert tree.tokens[b, path].tolist()[: len(tokens)] == tokens[: len(path)]
    assert tree.parents[b, path].tolist() == [0, *path][: len(path)]
    assert all(0 <= token < VOCAB for token in tokens)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("plan", [AUTOREGRESSIVE, Plan(3), TREES["beam"]])
def test_a_text_admitted_later_is_the_same(temperature, plan):
    decoder, session = opened(pair_of("near"), plan, new=[4, 16, 9], temperature=temperature)
    waiting = [
        decoder.sequence(p, 16, s.seed) for p, s in zip(PROMPTS, session.sequences, strict=True)
    ]
    with pytest.raises(AssertionError, match="every place"):
        session.admit(waiting[0])
    session.longest = 8
    while not session.done:
        cycle(session, Mixed([plan, Plan(2, width=2), AUTOREGRESSIVE]))
        while waiting and len(session.rows) < session.capacity:
            with pytest.raises(AssertionError, match="too short"):
                session.admit(waiting[-1])
            session.longest = 40
            assert session.admit(waiting.pop()) == len(session.sequences) - 1
            session.longest = 8
    assert [s.new for s in session.sequences[3:]] == plain(temperature)[::-1]
