"""The files of a recording: a description, and shards of texts; does not know what they mean."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from spec_core import features
from spec_core.menu import Menu

SCHEMA = 2
META = "meta.json"


@dataclass(frozen=True)
class Meta:
    """What all shards of a recording have in common."""

    menu: Menu
    pair: str  # hash of the weights
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    coupled: bool = True
    seed: int = 0
    max_new_tokens: int = 128
    max_nodes: int = 64
    dtype: str = "float32"
    reach: int = 0  # the drafter's context
    commit: str = "unknown"  # told, not compared

    @property
    def content(self) -> dict:
        """As a JSON object."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "menu"}
        menu = {"key": self.menu.key, "names": self.menu.names, "plans": self.menu.content}
        return {"schema": SCHEMA, "features": features.VERSION, **own, "menu": menu}

    @classmethod
    def read(cls, content: dict, source: Path) -> Meta:
        """From a JSON object; refuses other versions."""
        try:
            for name, mine in (("schema", SCHEMA), ("features", features.VERSION)):
                if content[name] != mine:
                    raise ValueError(f"{name} {content[name]}, this version reads {mine}")
            own = {f.name: content[f.name] for f in fields(cls) if f.name != "menu"}
            return cls(menu=Menu.of(content["menu"]["plans"]), **own)
        except (ValueError, KeyError, TypeError, AssertionError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else error
            raise ValueError(f"{source}: no recording for here ({reason}); record anew") from None

    def difference(self, other: Meta) -> str:
        """The first thing in which another recording differs, in words; empty where none."""
        for f in fields(self):
            mine, its = getattr(self, f.name), getattr(other, f.name)
            if f.name == "menu" and mine != its:
                return f"menu {' '.join(its.names)}, not {' '.join(mine.names)}"
            if f.name != "commit" and mine != its:
                return f"{f.name} {its}, not {mine}"
        return ""

    def check(self, source: Path, **wanted: object) -> None:
        """Refuse a recording where one of these fields is another."""
        for name, value in wanted.items():
            if getattr(self, name) != value:
                mine = getattr(self, name)
                raise ValueError(f"{source}: recorded with {name} {mine}, not {value}; record anew")


@dataclass(frozen=True)
class Text:
    """Where a recorded text comes from."""

    id: str
    domain: str
    digest: str  # of the prompt


def digest(prompt: str | list[int]) -> str:
    """A short hash of a prompt."""
    data = prompt if isinstance(prompt, str) else json.dumps(prompt)
    return hashlib.blake2b(data.encode(), digest_size=8).hexdigest()


def replace_file(path: Path, data: bytes) -> None:
    """Write all of a file or nothing of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_shard(folder: Path, meta: Meta, texts: list[Text], arrays: dict[str, NDArray]) -> Path:
    """One safetensors file, named after the texts in it."""
    name = hashlib.blake2b("\n".join(t.id for t in texts).encode(), digest_size=6).hexdigest()
    about = {"meta": json.dumps(meta.content), "texts": json.dumps([asdict(t) for t in texts])}
    path = folder / f"shard-{name}.safetensors"
    packed = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
    replace_file(path, save(packed, metadata=about))
    return path


class BrokenShard(ValueError):
    """A shard that cannot be read."""


@dataclass(frozen=True)
class Shard:
    """One file of a recording."""

    path: Path
    meta: Meta
    texts: list[Text]

    @classmethod
    def open(cls, path: Path) -> Shard:
        """Its description; an unreadable file is named."""
        try:
            with safe_open(path, framework="np") as file:
                about = file.metadata()
            content, texts = json.loads(about["meta"]), json.loads(about["texts"])
            return cls(path, Meta.read(content, path), [Text(**text) for text in texts])
        except PermissionError:
            raise
        except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise BrokenShard(
                f"{path}: truncated or not a shard ({type(error).__name__}); delete it and record "
                "again, or read with skip_broken=True"
            ) from None

    def arrays(self) -> dict[str, NDArray]:
        """Everything in it."""
        with safe_open(self.path, framework="np") as file:
            return {key: file.get_tensor(key) for key in file.keys()}


def read_shards(folder: Path, skip_broken: bool = False) -> list[Shard]:
    """The shards of a folder, by name."""
    left_out = broken(folder) if skip_broken else []
    return [Shard.open(path) for path in _files(folder) if path not in left_out]


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("shard-*.safetensors"))


def broken(folder: Path) -> list[Path]:
    """The shards that cannot be read."""
    found = []
    for path in _files(folder):
        try:
            Shard.open(path)
        except BrokenShard:
            found.append(path)
    return found


def read_meta(folder: Path) -> Meta:
    """The folder's meta.json."""
    try:
        content = json.loads((folder / META).read_text())
    except FileNotFoundError:
        raise ValueError(
            f"{folder}: no {META} there; make a recording: python -m envs.record --out {folder}"
        ) from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder / META}: not readable ({error})") from None
    return Meta.read(content, folder / META)


def agreeing(wanted: Meta, shards: list[Shard], strict: bool) -> list[Shard]:
    """The shards that are part of this recording."""
    kept = []
    for shard in shards:
        other = wanted.difference(shard.meta)
        if other and strict:
            raise ValueError(f"{shard.path}: another recording ({other}); move it elsewhere")
        if not other:
            kept.append(shard)
    return kept
