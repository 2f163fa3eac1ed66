"""Folders and hub ids to models: compiled or fast where they serve the family, hf elsewhere."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch

from spec_core.models.base import Model, ModelError, first_line
from spec_core.models.weights import files, folder

Backend = Literal["auto", "compiled", "fast", "hf"]
SMALL = 256 << 20  # bytes of weights up to which one core is enough


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


def one_core(path: Path, config: Any, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether compiled code on one core serves this model, and is the fastest way to run it here.

    Many cores beat it on large models.
    """
    from spec_core.models.fast import FAMILIES, Shape

    if dtype != torch.float32 or device.type != "cpu" or config.model_type not in FAMILIES:
        return False
    shape = Shape.of(config)
    small = sum(file.stat().st_size for file in files(path)) <= SMALL
    fits = shape.hidden % 8 == 0 and shape.head_dim % 8 == 0
    return fits and (small or torch.get_num_threads() == 1) and find_spec("numba") is not None


def cold(device: str) -> bool:
    """Whether machine code for this device is yet to be compiled, which takes a while."""
    if device != "cpu" or find_spec("numba") is None:
        return False
    from spec_core.models.kept import place

    return not Path(place("spec_core")).exists()


def load_model(
    source: str | Path, dtype: torch.dtype, device: torch.device, backend: Backend = "auto",
    trust_remote_code: bool = False,
) -> Model:  # fmt: skip
    """Load a causal language model that can score trees."""
    from spec_core.models.fast import FAMILIES, FastModel

    path = folder(source, trust_remote_code)
    config = read_config(path, trust_remote_code)
    if backend == "compiled" or (backend == "auto" and one_core(path, config, dtype, device)):
        return _compiled(path, config, dtype, device)
    if backend == "fast" or (backend == "auto" and config.model_type in FAMILIES):
        return FastModel.load(path, config, dtype, device)
    from spec_core.models.hf import load_hf

    return load_hf(path, device, dtype, trust_remote_code)


def _compiled(path: Path, config: Any, dtype: torch.dtype, device: torch.device) -> Model:
    if dtype != torch.float32 or device.type != "cpu":
        raise ModelError("the compiled backend computes in float32 on the CPU; take fast or auto")
    try:
        from spec_core.models.compiled import CompiledModel
    except ImportError as error:
        raise ModelError(f"the compiled backend needs numba: pip install numba ({error})") from None
    return CompiledModel.load(path, config)
