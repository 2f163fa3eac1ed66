"""`model.generate(custom_generate=...)` gives what plain generate gives, or refuses clearly."""

from __future__ import annotations

import pytest
import torch
from small import VOCAB, blur, build
from transformers import GPT2Config, GPT2LMHeadModel, LogitsProcessorList, MinPLogitsWarper

from spec_core import Fixed, Plan
from spec_core.generate import custom_generate

TREE = Fixed(Plan(depth=3, width=3, children=3, budget=16))


def gpt2():
    """A tiny random GPT-2."""
    torch.manual_seed(3)
    config = GPT2Config(
        vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=128, initializer_range=0.3
    )
    return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="module", params=["GPT2", "Llama"])
def models(request):
    """A target and a draft that is right some of the time."""
    target = gpt2() if request.param == "GPT2" else build()
    return target, blur(target, 0.1)


def batch():
    """Three prompts padded on the left."""
    random = torch.Generator().manual_seed(5)
    ids = torch.randint(2, VOCAB, (3, 9), generator=random)
    mask = torch.ones_like(ids)
    for row, padding in enumerate((0, 3, 6)):
        ids[row, :padding], mask[row, :padding] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


def one():
    """One prompt."""
    ids = torch.tensor([[5, 6, 7, 8]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


class Recorder:
    """A streamer that keeps what it gets."""

    def __init__(self):
        self.got, self.ended = [], 0

    def put(self, value):
        self.got.append(value.flatten().tolist())

    def end(self):
        self.ended += 1


def greedy(target, inputs, **options):
    """Plain generate's answer."""
    return target.generate(**inputs, do_sample=False, pad_token_id=0, **options)


@pytest.mark.parametrize("policy", [None, TREE])
def test_greedy_is_plain_generate(models, policy):
    target, draft = models
    call = custom_generate(draft, policy)
    for inputs in (one(), batch()):
        before = greedy(target, inputs, max_new_tokens=24)
        got = greedy(target, inputs, max_new_tokens=24, custom_generate=call)
        assert torch.equal(got, before)
        assert torch.equal(greedy(target, inputs, max_new_tokens=24), before)  # as it was


def test_eos_pads_on_the_right(models):
    target, draft = models
    inputs = batch()
    free = greedy(target, inputs, max_new_tokens=24)
    eos = [int(free[0, 9 + 4]), int(free[1, 9 + 8])]
    before = greedy(target, inputs, max_new_tokens=24, eos_token_id=eos)
    call = custom_generate(draft, TREE)
    got = greedy(target, inputs, max_new_tokens=24, eos_token_id=eos, custom_generate=call)
    assert torch.equal(got, before)


def test_streamer_gets_the_same(models):
    target, draft = models
    plain, ours = Recorder(), Recorder()
    greedy(target, one(), max_new_tokens=12, streamer=plain)
    call = custom_generate(draft, streamer=ours)
    greedy(target, one(), max_new_tokens=12, custom_generate=call)
    assert ours.got == plain.got
    assert ours.ended == plain.ended == 1


def test_sampling_follows_the_distribution():
    target = build(initializer_range=0.05)
    draft = blur(target, 0.3)
    ids = torch.tensor([[5, 6, 7, 8]])
    rows = {"input_ids": ids.expand(400, -1), "attention_mask": torch.ones(400, 4).long()}
    options = {"do_sample": True, "temperature": 0.3, "top_k": 6, "max_new_tokens": 2}
    torch.manual_seed(0)
    call = custom_generate(draft, TREE)
    options["pad_token_id"] = 0
    got = target.generate(**rows, **options, custom_generate=call)[:, -1]
    plain = target.generate(**rows, **options)[:, -1]
    both = [torch.bincount(x, minlength=VOCAB) / 400 for x in (got, plain)]
    noise = [torch.bincount(x, minlength=VOCAB) / 200 for x in (plain[:200], plain[200:])]
    floor = (noise[0] - noise[1]).abs().sum()
    assert (both[0] - both[1]).abs().sum() < 1.3 * floor + 0.05


@pytest.mark.parametrize("seed", [None, 11])
def test_sampling_is_seeded_by_option_or_by_torch(seed):
    target, draft = build(), blur(build(), 0.1)
    call, texts = custom_generate(draft, seed=seed), []
    options = {"do_sample": True, "top_p": 0.9, "max_new_tokens": 12, "custom_generate": call}
    for state in (1, 1, 2):
        torch.manual_seed(state)
        texts.append(target.generate(**one(), **options).tolist())
    assert texts[0] == texts[1] and (texts[1] == texts[2]) == (seed is not None)


REFUSED = {
    "beam": {"num_beams": 2},
    "num_return": {"num_return_sequences": 2, "do_sample": True},
    "return_dict": {"return_dict_in_generate": True},
    "RepetitionPenalty": {"repetition_penalty": 1.2},
    "MinP": {"do_sample": True, "min_p": 0.1},
    "MinPLogitsWarper": {"logits_processor": LogitsProcessorList([MinPLogitsWarper(0.1)])},
    "MaxTime": {"max_time": 5.0},
    "context": {"max_new_tokens": 500},
}


@pytest.mark.parametrize("word", REFUSED)
def test_refuses_what_it_cannot_honour(word):
    target = build()
    options = {"max_new_tokens": 4, **REFUSED[word]}
    with pytest.raises(ValueError, match=word):
        target.generate(**one(), **options, custom_generate=custom_generate(target))


def test_refuses_masks_and_streamers_of_batches():
    target = build()
    call = custom_generate(target, streamer=Recorder())
    inputs = batch()
    with pytest.raises(ValueError, match="streamer"):
        target.generate(**inputs, max_new_tokens=4, pad_token_id=0, custom_generate=call)
    inputs["attention_mask"] = inputs["attention_mask"].flip(1)
    with pytest.raises(ValueError, match="padding"):
        target.generate(**inputs, max_new_tokens=4, pad_token_id=0, custom_generate=call)


def test_refuses_another_vocabulary():
    target, draft = build(), build(vocab_size=VOCAB + 1)
    with pytest.raises(ValueError, match="vocabular"):
        target.generate(**one(), max_new_tokens=4, custom_generate=custom_generate(draft))
