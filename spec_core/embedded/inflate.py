"""A Llama checkpoint in a larger shape that computes the same function, to measure real costs.

The residual stream is padded with zeros and stays zero there: norms are rescaled, because they
divide by the padded width, and whatever writes into the padding, or comes from heads, neurons and
layers that were not in the original, is multiplied by zero. All other new numbers are random, so
the work is that of any model of the shape. Knows nothing of what the model says.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from spec_core import embedded
from spec_core.models.base import ModelError
from spec_core.models.fast import Shape
from spec_core.models.load import read_config
from spec_core.models.weights import folder, load

SHARD = 4 << 30  # bytes of a file of weights
SPREAD = 0.02  # of the random numbers


def inflated_config(
    config: Any, hidden: int, layers: int | None = None, intermediate: int | None = None,
    heads: int | None = None, key_heads: int | None = None,
) -> Any:  # fmt: skip
    """The config of the larger shape; head_dim and the vocabulary stay as they are."""
    old = Shape.of(config)
    biased = getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False)
    if config.model_type != "llama" or biased:
        raise ModelError(f"{config.model_type!r} cannot be inflated: give a Llama without biases")
    heads = heads or hidden // old.head_dim
    key_heads = key_heads or max(old.key_heads, heads // 4)
    sizes = {
        "hidden_size": (old.hidden, hidden),
        "num_hidden_layers": (old.layers, layers or old.layers),
        "intermediate_size": (old.intermediate, intermediate or old.intermediate),
        "num_attention_heads": (old.heads, heads),
        "num_key_value_heads": (old.key_heads, key_heads),
    }
    for name, (before, after) in sizes.items():
        if after < before:
            raise ModelError(f"{name} {after} is smaller than the original's {before}")
    if hidden % heads:
        raise ModelError(f"hidden_size {hidden} is not a multiple of {heads} heads")
    if heads % key_heads or heads // key_heads < old.heads // old.key_heads:
        least = old.heads // old.key_heads
        raise ModelError(
            f"{heads} heads over {key_heads} key heads: each needs the same number, {least} or more"
        )
    new = copy.deepcopy(config)
    for name, (_, after) in sizes.items():
        setattr(new, name, after)
    new.head_dim, new.rms_norm_eps = old.head_dim, config.rms_norm_eps * old.hidden / hidden
    return new


class _Grower:
    """Tensors of the original to tensors of the larger shape."""

    def __init__(
        self, tensors: dict[str, Tensor], old: Shape, new: Shape, device: torch.device, seed: int
    ) -> None:
        self.tensors, self.old, self.new, self.device = tensors, old, new, device
        self.random = torch.Generator(device).manual_seed(seed)
        groups, dim = new.heads // new.key_heads, old.head_dim
        slots = torch.arange(new.heads * dim, device=device).view(new.key_heads, groups, dim)
        mine = slots[: old.key_heads, : old.heads // old.key_heads]
        self.queries = mine.reshape(-1)  # where the original's query heads come to lie

    def noise(self, *shape: int) -> Tensor:
        """Random numbers."""
        return SPREAD * torch.randn(*shape, generator=self.random, device=self.device)

    def take(self, name: str) -> Tensor | None:
        """A tensor of the original, None for a layer it has not."""
        return self.tensors[name].to(self.device).float() if name in self.tensors else None

    def reading(self, name: str, rows: int, places: Tensor | None = None) -> Tensor:
        """A matrix that reads the residual stream: new rows are random."""
        made, old = self.noise(rows, self.new.hidden), self.take(name)
        if old is not None:
            where = torch.arange(len(old), device=self.device) if places is None else places
            made[where, : self.old.hidden] = old
        return made

    def writing(self, name: str, columns: int, places: Tensor | None = None) -> Tensor:
        """A matrix that writes into the residual stream: all that is new is zero."""
        made, old = torch.zeros(self.new.hidden, columns, device=self.device), self.take(name)
        if old is not None:
            where = torch.arange(old.shape[1], device=self.device) if places is None else places
            made[: self.old.hidden, where] = old
        return made

    def norm(self, name: str) -> Tensor:
        """A norm's weight, smaller as the root of the mean square is."""
        made, old = torch.ones(self.new.hidden, device=self.device), self.take(name)
        if old is not None:
            made[: self.old.hidden] = old * (self.old.hidden / self.new.hidden) ** 0.5
        return made

    def layer(self, index: int) -> Iterator[tuple[str, Tensor]]:
        """One block's tensors by name."""
        new, name = self.new, f"model.layers.{index}"
        queries, keys = new.heads * new.head_dim, new.key_heads * new.head_dim
        parts: dict[str, Callable[[str], Tensor]] = {
            "input_layernorm": self.norm,
            "self_attn.q_proj": lambda n: self.reading(n, queries, self.queries),
            "self_attn.k_proj": lambda n: self.reading(n, keys),
            "self_attn.v_proj": lambda n: self.reading(n, keys),
            "self_attn.o_proj": lambda n: self.writing(n, queries, self.queries),
            "post_attention_layernorm": self.norm,
            "mlp.gate_proj": lambda n: self.reading(n, new.intermediate),
            "mlp.up_proj": lambda n: self.reading(n, new.intermediate),
            "mlp.down_proj": lambda n: self.writing(n, new.intermediate),
        }
        for part, make in parts.items():
            yield f"{name}.{part}.weight", make(f"{name}.{part}.weight")

    def embedding(self, name: str) -> Tensor:
        """Zero behind the original's columns: the residual stream begins here."""
        old = self.tensors[name].to(self.device).float()
        return torch.nn.functional.pad(old, (0, self.new.hidden - self.old.hidden))


def inflated(
    tensors: dict[str, Tensor], config: Any, new: Any, device: torch.device, seed: int = 0
) -> Iterator[tuple[str, Tensor]]:
    """The larger model's tensors in fp32, one after the other; `new` is its config."""
    grower = _Grower(tensors, Shape.of(config), Shape.of(new), device, seed)
    yield "model.embed_tokens.weight", grower.embedding("model.embed_tokens.weight")
    for index in range(new.num_hidden_layers):
        yield from grower.layer(index)
    yield "model.norm.weight", grower.norm("model.norm.weight")
    if not new.tie_word_embeddings:
        yield "lm_head.weight", grower.reading("lm_head.weight", new.vocab_size)


def inflate(
    source: str | Path, out: str | Path, hidden: int = 4096, layers: int | None = None,
    intermediate: int | None = None, heads: int | None = None, key_heads: int | None = None,
    dtype: torch.dtype | None = None, device: str = "cpu", seed: int = 0, shard: int = SHARD,
) -> Path:  # fmt: skip
    """Write a checkpoint of the larger shape, shard by shard; what is not given stays as it is.

    dtype: that of the source. heads: as many as fill the width; key_heads: a quarter of them.
    """
    path, out = folder(source), Path(out)
    config = read_config(path)
    new = inflated_config(config, hidden, layers, intermediate, heads, key_heads)
    if out.exists() and any(out.iterdir()):
        raise ModelError(f"{out}: not empty; give a new folder")
    out.mkdir(parents=True, exist_ok=True)
    tensors = load(path)
    kind = dtype or next(iter(tensors.values())).dtype
    made = inflated(tensors, config, new, torch.device(device), seed)
    _write(((name, tensor.to(kind).cpu()) for name, tensor in made), out, shard)
    for file in path.glob("*.json"):
        if file.name not in ("config.json", "model.safetensors.index.json"):
            shutil.copy(file, out)
    new.dtype = kind
    new.save_pretrained(out)
    return out


def _write(tensors: Iterator[tuple[str, Tensor]], out: Path, most: int) -> None:
    """Files of `most` bytes or a tensor more, and their index."""
    shard: dict[str, Tensor] = {}
    places: dict[str, str] = {}
    total = size = files = 0

    def flush() -> None:
        nonlocal shard, size, files
        files += 1
        file = f"model-{files:05}.safetensors"
        save_file(shard, out / file, {"format": "pt"})
        places.update(dict.fromkeys(shard, file))
        shard, size = {}, 0

    for name, tensor in tensors:
        shard[name] = tensor.contiguous()
        size, total = size + tensor.nbytes, total + tensor.nbytes
        if size >= most:
            flush()
    if shard:
        flush()
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m spec_core.embedded.inflate", description=__doc__
    )
    parser.add_argument("out", metavar="OUT", help="a new folder")
    parser.add_argument(
        "--source", default=embedded.target_path(), help="default: the embedded target"
    )
    parser.add_argument("--hidden", type=int, default=4096)
    for name in ("layers", "intermediate", "heads", "key-heads"):
        parser.add_argument(f"--{name}", type=int, help="default: see `inflate`")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], help="default: the source's"
    )
    parser.add_argument("--device", default="cpu", help="where the numbers are made; default cpu")
    options = vars(parser.parse_args())
    kind = options.pop("dtype")
    try:
        print(inflate(**options, dtype=kind and getattr(torch, kind)))
    except ModelError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
