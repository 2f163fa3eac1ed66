"""The embedded pair, its prompts and the script that makes them."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from spec_core import embedded
from spec_core.embedded import build, card, corpus, data, distil, evaluate, generators, train

FOLDERS = {"target": embedded.target_path(), "draft": embedded.draft_path()}


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(embedded.target_path())


@pytest.fixture(scope="module")
def pair():
    return {
        name: AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        for name, folder in FOLDERS.items()
    }


@pytest.mark.parametrize(("split", "least"), [("train", 60), ("dev", 20), ("test", 40)])
def test_prompts_are_enough_and_of_fitting_length(split, least, tokenizer):
    rows = embedded.prompts(split)
    counts = Counter(row["domain"] for row in rows)
    assert set(counts) == set(corpus.DOMAINS) and min(counts.values()) >= least
    for row in rows:
        assert 24 <= len(tokenizer.encode(row["prompt"])) <= 160, row["id"]
        ending = {"editing": "Result:", "arithmetic": "A:"}.get(row["domain"], "")
        assert row["prompt"].endswith(ending), row["id"]


@pytest.mark.parametrize("key", ["id", "prompt"])
def test_no_prompt_is_in_two_splits(key):
    values = [row[key] for split in embedded.SPLITS for row in embedded.prompts(split)]
    assert len(values) == len(set(values))


def test_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split must be"):
        embedded.prompts("validation")


def test_no_source_file_or_word_is_in_two_splits():
    names = [f"package/module_{i}.py" for i in range(500)]
    counts = Counter(corpus.split_of(name) for name in names)
    assert set(counts) == set(embedded.SPLITS) and counts["train"] > 350
    words = [generators.pool(generators.NOISE, split) for split in embedded.SPLITS]
    assert not set(words[0]) & set(words[1]) | set(words[0]) & set(words[2])
    assert not set(words[1]) & set(words[2])


def test_no_file_is_the_source_of_prompts_of_two_splits():
    for split in embedded.SPLITS:
        for row in embedded.prompts(split):
            files = row["source"].split()
            if row["domain"] in ("code", "prose"):
                assert len(files) == 1 and files != [corpus.GENERATED]
            if files != [corpus.GENERATED]:
                assert {corpus.split_of(name) for name in files} == {split}, row["id"]


@pytest.mark.skipif(sys.version_info[:3] != (3, 11, 7), reason="another library than the prompts'")
def test_prompts_are_from_the_files_they_name():
    rows = [row for row in embedded.prompts("test") if row["domain"] == "code"]
    assert all(row["prompt"] in corpus.sources()[row["source"]] for row in rows)


def test_shipped_prompts_come_from_their_generators():
    """The generators' prompts can be made again, whatever interpreter runs."""
    shipped = {row["id"]: row["prompt"] for row in embedded.prompts("test")}
    tokens = AutoTokenizer.from_pretrained(embedded.target_path())
    for domain in ("arithmetic", "logs", "records", "random"):
        rows = corpus.domain_prompts(domain, "test", 0, lambda text: len(tokens.encode(text)))
        assert [row["prompt"] for row in rows] == [shipped[row["id"]] for row in rows]


@cache
def loaded_tokenizer(folder: Path):
    return AutoTokenizer.from_pretrained(folder)


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_tokenizer_gives_back_any_text(text):
    for folder in FOLDERS.values():
        tokens = loaded_tokenizer(folder)
        assert tokens.decode(tokens.encode(text)) == text


def test_tokenizers_are_one_and_add_nothing(tokenizer):
    files = [(folder / "tokenizer.json").read_bytes() for folder in FOLDERS.values()]
    assert files[0] == files[1]
    assert tokenizer.eos_token_id == tokenizer.bos_token_id == tokenizer.pad_token_id == 0
    assert 0 not in tokenizer.encode("a text") and len(tokenizer) == 2048


def test_shapes_and_weights_are_those_promised(pair):
    target, draft = pair["target"].config, pair["draft"].config
    assert (target.num_hidden_layers, draft.num_hidden_layers) == (24, 2)
    assert target.vocab_size == draft.vocab_size == 2048
    assert target.head_dim == draft.head_dim == 64 and target.hidden_size in (256, 1024)
    assert target.max_position_embeddings == draft.max_position_embeddings == 1024
    for model in pair.values():
        assert all(torch.isfinite(p).all() for p in model.parameters())


def test_the_card_is_what_its_writer_writes():
    text = (FOLDERS["target"].parent / "MODEL_CARD.md").read_text()
    facts = json.loads((FOLDERS["target"].parent / "training.json").read_text())
    assert text.startswith(card.HEAD)
    assert all(f"\n- {name}: {value}\n" in text for name, value in facts.items())


def test_files_are_small_and_hold_no_pickle():
    files = [path for folder in FOLDERS.values() for path in folder.iterdir()]
    assert sum(path.stat().st_size for path in files) <= 40 * 2**20
    assert {path.suffix for path in files} <= {".json", ".safetensors"}


def test_draft_agrees_with_target_more_where_text_is_regular(pair, tokenizer):
    rows, agreed = embedded.prompts("dev"), {}
    for domain in ("editing", "logs"):
        prompts = [tokenizer.encode(r["prompt"]) for r in rows if r["domain"] == domain][:4]
        agreed[domain], length = evaluate.agreement(pair["target"], pair["draft"], prompts, 24)
        assert length > 12
    assert agreed["logs"] > 0.5 and agreed["logs"] > agreed["editing"] + 0.1


@pytest.mark.parametrize("domain", sorted(generators.GENERATORS))
def test_generators_repeat_from_a_seed_and_differ_by_split(domain):
    make, lines = generators.GENERATORS[domain], ["A line of text to be edited here."]
    texts = [
        make(random.Random(seed), split, lines)
        for seed, split in ((1, "train"), (1, "train"), (2, "train"))
    ]
    assert texts[0] == texts[1] != texts[2] and len(texts[0]) > 200
    if domain in ("editing", "logs", "records"):
        assert make(random.Random(1), "test", lines) != texts[0]


@given(st.integers(11, 999), st.integers(11, 999))
def test_worked_sums_are_right(a, b):
    text = generators.worked_sum(a, b)
    assert text.endswith(f"So {a} + {b} = {a + b}.\n")
    for left, right in re.findall(r"([\d +]+) = (\d+)", text.split("A: ")[1]):
        assert sum(map(int, left.split("+"))) == int(right)


def test_every_edit_changes_only_whole_words():
    for seed in range(200):
        text = "the other theme is the one"
        order, result = generators.edit(random.Random(seed), "train", text)
        if order == "Delete the.":
            assert result == "other theme is one"


def test_growth_keeps_the_function_nearly():
    torch.manual_seed(0)
    model = train.llama(64, 128, 128, 2)
    model.model.embed_tokens.weight.data *= 10  # else the first layer drowns the input
    ids = torch.randint(0, 64, (2, 16))
    grown = train.grow(model)
    unhalved = train.grow(model)
    for name, p in unhalved.named_parameters():
        if name.endswith(train.HALVED):
            p.data *= 2
    want = model(input_ids=ids).logits
    error = (grown(input_ids=ids).logits - want).norm() / want.norm()
    careless = (unhalved(input_ids=ids).logits - want).norm() / want.norm()
    assert grown.config.num_hidden_layers == 4
    assert error < 0.1 and error < careless / 3


@pytest.mark.parametrize("shape", [(3, 32, 96), (2, 96, 32)])
def test_muon_directions_are_near_orthogonal(shape):
    values = torch.linalg.svdvals(train.orthogonalised(torch.randn(shape)))
    assert values.min() > 0.4 and values.max() < 1.4


def test_windows_begin_half_their_rows_at_documents():
    tokens = data.pack([np.array([7, *range(10, 40), 0])] * 50, 0)
    rows = data.Windows(tokens).batch(np.random.default_rng(0), 8, 32)
    assert (rows[:4, 0] == 7).all()


def test_distillation_loss_is_least_at_the_targets_distribution():
    torch.manual_seed(0)
    target, other = train.llama(24, 64, 64, 1), train.llama(24, 64, 64, 1)
    target.model.embed_tokens.weight.data *= 20
    ids = torch.randint(0, 24, (2, 8))
    labels = distil.labelled(ids, target(input_ids=ids).logits)
    parts = (ids, labels["tokens"].long(), labels["scores"].float())
    assert distil.distillation_loss(target, *parts) < distil.distillation_loss(other, *parts)


def test_own_text_labels_are_those_of_one_pass():
    torch.manual_seed(0)
    target = train.llama(300, 64, 64, 2).eval()
    labels = distil.own_text(target, torch.randint(1, 300, (2, 5)), 20)
    again = distil.labelled(labels["ids"], target(input_ids=labels["ids"].long()).logits)
    assert labels["ids"].shape == (2, 20)
    assert torch.allclose(labels["scores"].float(), again["scores"].float(), atol=2e-2)
    assert (labels["tokens"][0, 4:-1, 0] == labels["ids"][0, 5:]).all()  # row 0 is greedy


TINY = """
import sys
from pathlib import Path
from spec_core.embedded import build
sizes = build.Sizes(vocabulary=320, hidden=64, target_inner=64, draft_inner=64,
                    stages=((0.0, 1), (0.5, 2)), train_tokens=30000, batch_tokens=512,
                    label_tokens=1024, save_every=0.5)
build.build(Path(sys.argv[1]), Path(sys.argv[2]), 0.15, resume=True, sizes=sizes)
"""


@pytest.mark.parametrize("option", ["--out", "--work"])
def test_a_build_that_cannot_write_says_so_at_once(option, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    arguments = {"--out": str(tmp_path / "out"), option: str(tmp_path / "file" / "inside")}
    monkeypatch.setattr(sys, "argv", ["build", *chain(*arguments.items())])
    with pytest.raises(SystemExit, match=rf"^error: cannot write to {option}: .*file/inside'$"):
        build.main()


def test_a_build_empties_no_folder_but_its_own(tmp_path, monkeypatch):
    work = tmp_path / "work"
    build.begin(work, resume=False)
    (work / "target.pt").write_text("half a build")
    build.begin(work, resume=True)
    assert (work / "target.pt").exists()
    build.begin(work, resume=False)
    assert not (work / "target.pt").exists()
    (tmp_path / "thesis.tex").write_text("years of work")
    for resume in (False, True):
        with pytest.raises(FileExistsError, match="holds what is no build's"):
            build.begin(tmp_path, resume)
    assert (tmp_path / "thesis.tex").exists()
    inside = ["build", "--work", str(work), "--out", str(work / "pair")]
    monkeypatch.setattr(sys, "argv", inside)
    with pytest.raises(SystemExit, match=r"^error: --out lies within --work"):
        build.main()


@pytest.mark.slow
def test_a_killed_build_goes_on_and_ends(tmp_path: Path):
    command = [sys.executable, "-c", TINY, str(tmp_path / "out"), str(tmp_path / "work")]
    checkpoint = tmp_path / "work" / "target.pt"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # tiny steps on shared cores
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as first:
        deadline = time.monotonic() + 120
        while not checkpoint.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(first.pid, signal.SIGKILL)
    clock = torch.load(checkpoint, weights_only=True)["clock"]
    assert 0 < clock["elapsed"] < 6
    again = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=240, check=True
    )
    assert f"target:{' ' * 3}0%" not in again.stderr or clock["elapsed"] < 0.5
    facts = json.loads((tmp_path / "out" / "training.json").read_text())
    assert facts["target tokens seen"] > clock["tokens"]
    target = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "target")
    assert target.config.num_hidden_layers == 2 and target.dtype == torch.float16
    assert "| editing |" in (tmp_path / "out" / "MODEL_CARD.md").read_text()
