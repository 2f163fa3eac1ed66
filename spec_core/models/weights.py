"""Checkpoint folders and hub ids to tensors: safetensors only, nothing is ever unpickled."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from spec_core.models.base import ModelError, first_line

PICKLED = ("pytorch_model.bin", "model.pt", "model.pth", "consolidated.00.pth")


def folder(source: str | Path, code: bool = False) -> Path:
    """The local folder of a checkpoint: `source` itself, or a download of that hub id.

    code: whether its Python files are downloaded as well.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.exists() or path.is_absolute() or str(source).startswith((".", "~")):
        raise ModelError(f"{source}: not a folder that holds a model")
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", *["*.py"] * code]
    try:
        return Path(snapshot_download(str(source), allow_patterns=patterns))
    except Exception as error:
        reason = first_line(error)
        raise ModelError(
            f"{source}: no such folder, and no hub model could be had: {reason}"
        ) from None


def files(path: Path) -> list[Path]:
    """The safetensors files of a checkpoint folder, one or many."""
    index = path / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{index}: not a readable index of shards ({error})") from None
        found = [path / name for name in names]
    else:
        found = [path / "model.safetensors"]
    missing = [file.name for file in found if not file.is_file()]
    if missing:
        pickled = [name for name in PICKLED if (path / name).exists()]
        hint = f" (it has {pickled[0]}, which is never unpickled: convert it)" if pickled else ""
        raise ModelError(f"{path}: weights are missing: {', '.join(missing)}{hint}")
    return found


def load(path: Path, keep: Callable[[str], bool] = lambda name: True) -> dict[str, Tensor]:
    """All tensors of a checkpoint folder whose name `keep` admits."""
    tensors: dict[str, Tensor] = {}
    for file in files(path):
        try:
            with safe_open(file, framework="pt") as reader:
                tensors |= {n: reader.get_tensor(n) for n in reader.keys() if keep(n)}
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file}: truncated or not a safetensors file ({error})") from None
    return tensors


class Weights:
    """Tensors taken out by name, in one dtype on one device; says which is missing."""

    def __init__(self, path: Path, dtype: torch.dtype, device: torch.device) -> None:
        self.path, self.dtype, self.device = path, dtype, device
        self.tensors = load(path)

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def take(self, name: str, *shape: int) -> Tensor:
        """Remove and return one tensor, which must have this shape."""
        if name not in self.tensors:
            raise ModelError(f"{self.path}: the weights lack {name}")
        tensor = self.tensors.pop(name)
        if tuple(tensor.shape) != shape:
            raise ModelError(
                f"{self.path}: {name} is {tuple(tensor.shape)}, the config says {shape}"
            )
        return tensor.to(self.device, self.dtype)

    def optional(self, name: str, *shape: int) -> Tensor | None:
        """The same, or None where the checkpoint has no such tensor."""
        return self.take(name, *shape) if name in self.tensors else None
