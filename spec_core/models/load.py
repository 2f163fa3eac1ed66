"""Folders and hub ids to models: the fast backend where it serves the family, hf elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from spec_core.models.base import Model, ModelError, first_line
from spec_core.models.weights import folder

Backend = Literal["auto", "fast", "hf"]


def read_config(path: Path, trust_remote_code: bool = False) -> Any:
    """The transformers config of a checkpoint folder."""
    from transformers import AutoConfig

    if not (path / "config.json").is_file():
        raise ModelError(f"{path}: no config.json there; give a folder that holds a model")
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except Exception as error:
        reason = first_line(error)
        raise ModelError(f"{path}: the config is of no architecture known here: {reason}") from None


def load_model(
    source: str | Path, dtype: torch.dtype, device: torch.device, backend: Backend = "auto",
    trust_remote_code: bool = False,
) -> Model:  # fmt: skip
    """Load a causal language model that can score trees."""
    from spec_core.models.fast import FAMILIES, FastModel

    path = folder(source)
    config = read_config(path, trust_remote_code)
    if backend == "fast" or (backend == "auto" and config.model_type in FAMILIES):
        return FastModel.load(path, config, dtype, device)
    from spec_core.models.hf import load_hf

    return load_hf(path, device, dtype, trust_remote_code)
