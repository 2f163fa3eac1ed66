"""A target, the drafter that serves it, and their tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spec_core import embedded
from spec_core.drafters.base import Drafter
from spec_core.drafters.lm import ModelDrafter
from spec_core.graphs import Graphs, static
from spec_core.models.base import Model, ModelError, first_line
from spec_core.models.load import Backend, load_model
from spec_core.models.weights import folder

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class Pair:
    """A target model and its draft source; both speak the same vocabulary."""

    target: Model
    drafter: Drafter | None
    tokenizer: Any = None
    eos: frozenset[int] = frozenset()
    name: str = "pair"

    def __post_init__(self) -> None:
        if self.drafter is not None and self.drafter.vocab_size != self.target.vocab_size:
            raise ModelError(
                f"vocabularies differ: the target has {self.target.vocab_size} tokens, the draft "
                f"{self.drafter.vocab_size}; a pair needs one tokenizer"
            )

    @property
    def recalls(self) -> bool:
        """Whether drafts look up the text's own past."""
        return bool(getattr(self.drafter, "recall", False))

    @property
    def packs(self) -> bool:
        """Whether padding of a batch is left out of forwards instead of computed."""
        return all(getattr(part, "packs", False) for part in (self.target, self.drafter))

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        return self.tokenizer.encode(text, add_special_tokens=True)

    def decode(self, tokens: list[int]) -> str:
        """The text of token ids; special tokens are not shown."""
        return self.tokenizer.decode(tokens, skip_special_tokens=True)


def load_pair(
    target: str | Path | None = None, draft: str | Path | None = None, device: str = "cpu",
    dtype: str | None = None, backend: Backend = "auto", trust_remote_code: bool = False,
    graphs: Graphs = "auto", recall: bool | None = None,
) -> Pair:  # fmt: skip
    """Load a pair from folders or hub ids; with no target, the embedded pair.

    A target without a draft decodes plainly. dtype: float32 on the CPU, bfloat16 on a GPU.
    graphs: auto captures CUDA graphs on a GPU; static runs over their buffers without them.
    recall: whether the draft also looks up the text's own past; None: on the CPU it does.
    """
    if target is None:
        if draft is not None:
            raise ModelError("a draft was given without its target")
        target, draft = embedded.target_path(), embedded.draft_path()
    where = _device(device)
    if dtype is not None and dtype not in DTYPES:
        raise ModelError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    kind = DTYPES[dtype] if dtype else torch.float32 if where.type == "cpu" else torch.bfloat16
    if graphs == "static" and backend == "auto":
        backend = "fast"  # whose buffers they are
    path = folder(target, trust_remote_code)
    model = static(load_model(path, kind, where, backend, trust_remote_code), graphs)
    drafter = None
    if draft is not None:
        small = load_model(draft, kind, where, backend, trust_remote_code)
        drafter = ModelDrafter(static(small, graphs), chosen_recall(recall, where))
    tokenizer = _tokenizer(path, trust_remote_code)
    return Pair(model, drafter, tokenizer, _eos(path), Path(str(target)).name)


def chosen_recall(asked: bool | None, device: torch.device) -> bool:
    """Whether drafts recall, where it was not asked for: its gain was measured on CPUs only."""
    return device.type == "cpu" if asked is None else asked


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ModelError(f"unknown device {name!r}; try cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError("device cuda was asked for, but this torch sees no GPU")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(f"{name}: this torch sees {torch.cuda.device_count()} GPUs")
    return device


def _tokenizer(path: Path, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
        found.clean_up_tokenization_spaces = False  # it rewrites text that is already streamed
        return found
    except Exception as error:
        raise ModelError(f"{path}: no tokenizer could be loaded: {first_line(error)}") from None


def _eos(path: Path) -> frozenset[int]:
    """The ids that end a text of `generate` of transformers, found as it finds them."""
    from transformers import GenerationConfig

    try:
        config = GenerationConfig.from_pretrained(path)
    except OSError:  # there is no generation_config.json
        config = GenerationConfig.from_pretrained(path, "config.json", _from_model_config=True)
    ids = config.eos_token_id
    return frozenset([ids] if isinstance(ids, int) else ids or ())
