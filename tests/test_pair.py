"""What cannot be loaded is refused in one line that names the cause."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small import BYTES, CPU, build, drafter, save, target
from transformers import AutoModelForCausalLM

from spec_core import Pair, SpeculativeDecoder, embedded, load_pair
from spec_core.models.base import ModelError
from spec_core.models.load import load_model
from spec_core.pair import chosen_recall


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> Path:
    """A folder that loads."""
    path = tmp_path_factory.mktemp("models") / "healthy"
    build().save_pretrained(path)
    load_model(path, torch.float32, CPU)
    return path


def rewrite(folder: Path, change) -> None:
    """Change the tensors of a folder."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def configure(folder: Path, **fields) -> None:
    """Change the config of a folder."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def pickle(folder: Path) -> None:
    """Leave pickled weights only."""
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def truncate(folder: Path) -> None:
    """Lose the second half of the weights."""
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def index(content: str):
    """Put a shard index there."""
    return lambda folder: (folder / "model.safetensors.index.json").write_text(content)


QUERIES = "model.layers.1.self_attn.q_proj.weight"
BREAKS = {
    "no folder": (shutil.rmtree, "not a folder"),
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json"),
    "config is no json": (lambda f: (f / "config.json").write_text("{"), "config"),
    "config is a list": (lambda f: (f / "config.json").write_text("[1]"), "config"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "missing: model.safetensors"),
    "truncated": (truncate, "truncated"),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "truncated"),
    "pickled": (pickle, "pytorch_model.bin, which is never unpickled"),
    "no tensor": (lambda f: rewrite(f, lambda t: t.pop(QUERIES)), f"lack {QUERIES}"),
    "shape": (
        lambda f: rewrite(f, lambda t: t.update({QUERIES: torch.zeros(32, 31)})),
        f"{QUERIES} is (32, 31), the config says (32, 32)",
    ),
    "vocabulary of the config": (lambda f: configure(f, vocab_size=60), "the config says (60, 32)"),
    "architecture": (lambda f: configure(f, model_type="nonesuch"), "nonesuch"),
    "activation": (lambda f: configure(f, hidden_act="gelu"), "gelu"),
    "index is no json": (index("{"), "index of shards"),
    "index is a list": (index("[1, 2]"), "index of shards"),
    "index has no map": (index("{}"), "index of shards"),
    "map is a list": (index('{"weight_map": ["a"]}'), "index of shards"),
    "map of numbers": (index('{"weight_map": {"a": 1, "b": "c"}}'), "index of shards"),
    "no shard": (index('{"weight_map": {"a": "b.safetensors"}}'), "missing: b.safetensors"),
}


def refusal(*arguments, **options) -> str:
    """The line of a refused pair."""
    with pytest.raises(ModelError) as caught:
        load_pair(*arguments, **options)
    line = str(caught.value)
    assert line and "\n" not in line and len(line) < 500
    return line


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_folder_is_refused_in_one_line(healthy, tmp_path, name):
    change, word = BREAKS[name]
    folder = tmp_path / "broken"
    shutil.copytree(healthy, folder)
    change(folder)
    line = refusal(folder)
    assert word in line and (str(folder) in line or name == "activation")


def test_a_broken_draft_is_refused_as_a_target_is(healthy, tmp_path):
    folder = tmp_path / "draft"
    shutil.copytree(healthy, folder)
    truncate(folder)
    assert str(folder) in refusal(healthy, folder)


def test_no_tokenizer_is_refused(healthy):
    line = refusal(healthy)
    assert "tokenizer" in line and str(healthy) in line


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"draft": "somewhere"}, "draft was given without its target"),
        ({"dtype": "float7"}, "float7"),
        ({"dtype": ""}, "dtype"),
        ({"device": "toaster"}, "toaster"),
        ({"device": "meta"}, "meta"),
        ({"device": ""}, "device"),
        ({"device": "cuda:99"}, "cuda"),
        ({"target": "./nowhere"}, "nowhere"),
        ({"target": __file__}, "not a folder"),
    ],
)
def test_bad_options_are_refused_in_one_line(options, word):
    assert word in refusal(**options)


def test_two_vocabularies_are_refused_with_both_sizes():
    other = drafter("near")
    small = type("Small", (), {"vocab_size": 60, "max_context": other.max_context})()
    with pytest.raises(ModelError, match="target has 61 tokens, the draft 60"):
        Pair(target(), small)


@pytest.mark.parametrize(("asked", "recalls"), [(None, True), (True, True), (False, False)])
def test_a_pair_on_the_cpu_recalls_unless_it_is_told_not_to(asked, recalls):
    pair = load_pair(recall=asked)
    assert pair.recalls == recalls == pair.drafter.recall
    assert not load_pair(embedded.target_path()).recalls
    assert chosen_recall(asked, torch.device("cuda")) == bool(asked)


def greedy(folder: Path) -> list[int]:
    """What `generate` of transformers says to "Hello"; it decides itself where the text ends."""
    module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokens = torch.tensor([load_pair(folder).encode("Hello")])
    options = {"max_new_tokens": 40, "do_sample": False, "pad_token_id": 0}
    return module.generate(tokens, **options)[0, tokens.shape[1] :].tolist()


@pytest.fixture(scope="module")
def endless(tmp_path_factory) -> Path:
    """A folder whose texts never end, though its tokenizer has an end."""
    sizes = {"vocab_size": BYTES, "eos_token_id": None, "bos_token_id": None}
    return save(build(**sizes), tmp_path_factory.mktemp("models") / "endless")


@pytest.mark.parametrize("said", ["generation list", "generation", "config list", "neither"])
@pytest.mark.parametrize("backend", ["compiled", "fast", "hf"])
def test_a_text_ends_where_generate_ends_it(endless, tmp_path, backend, said):
    folder, whole = tmp_path / "model", greedy(endless)
    shutil.copytree(endless, folder)
    ends, file = [whole[25], whole[9]], folder / "generation_config.json"
    if said == "config list":
        file.unlink()
        configure(folder, eos_token_id=ends)
    elif said != "neither":
        configure(folder, eos_token_id=whole[0])  # which then does not count
        ids = ends if said == "generation list" else ends[1]
        file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": ids}))
    right = greedy(folder)
    assert (len(right) == 40) == (said == "neither")
    made = SpeculativeDecoder(load_pair(folder, folder, backend=backend)).generate(
        "Hello", max_new_tokens=40
    )
    assert made.tokens == [right]


def test_the_end_of_the_tokenizer_alone_ends_nothing(endless):
    pair = load_pair(endless)
    assert pair.tokenizer.eos_token_id is not None and pair.eos == frozenset()


OWN = """
from transformers import LlamaConfig, LlamaForCausalLM
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def hub(endless, tmp_path, monkeypatch) -> Path:
    """A hub of two: `some/model`, and `some/own`, which brings its code."""
    for name in ("model", "own"):
        shutil.copytree(endless, tmp_path / "some" / name)
    (tmp_path / "some" / "own" / "own.py").write_text(OWN)
    classes = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    configure(tmp_path / "some" / "own", model_type="own", auto_map=classes)

    def download(name: str, allow_patterns: list[str]) -> str:
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        (tmp_path / "cache").mkdir()
        for pattern in allow_patterns:
            for file in (tmp_path / name).glob(pattern):
                shutil.copy(file, tmp_path / "cache")
        return str(tmp_path / "cache")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "run"))
    return tmp_path


@pytest.mark.parametrize(("name", "trusted"), [("some/model", False), ("some/own", True)])
def test_a_hub_id_is_downloaded(hub, endless, name, trusted):
    pair = load_pair(name, name, trust_remote_code=trusted)
    assert pair.name == name.split("/")[1]
    made = SpeculativeDecoder(pair).generate("Hello", max_new_tokens=40)
    assert made.tokens == [greedy(endless)]


def test_code_is_fetched_only_where_it_is_trusted(hub):
    refusal("some/own")
    assert not list((hub / "cache").glob("*.py"))
