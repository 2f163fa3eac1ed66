"""What every benchmark shares: the machine's description, prompts, statistics, files of results."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from spec_core import embedded

RESULTS = Path(__file__).resolve().parent / "results"


def machine() -> dict:
    """Where and from what a figure comes."""
    import transformers

    cpu = "unknown"
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((li.split(":")[1].strip() for li in lines if li.startswith("model name")), cpu)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": cpu, "threads": torch.get_num_threads(), "gpu": gpu,
        "python": platform.python_version(), "torch": torch.__version__,
        "transformers": transformers.__version__, "commit": _commit(),
        "command": " ".join(["python -m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
    }  # fmt: skip


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def save(name: str, content: dict) -> None:
    """Write results/<name>.json with the machine it ran on."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    file.write_text(json.dumps({"machine": machine(), **content}, indent=1) + "\n")
    print(f"wrote {file.relative_to(RESULTS.parent.parent)}")


def pick(split: str, per_domain: int) -> list[dict]:
    """The first prompts of every domain, domains taking turns."""
    by_domain: dict[str, list[dict]] = {}
    for prompt in embedded.prompts(split):
        by_domain.setdefault(prompt["domain"], []).append(prompt)
    rows = zip(*(prompts[:per_domain] for prompts in by_domain.values()), strict=True)
    return [prompt for row in rows for prompt in row]


def ratio(numerator: list[float], denominator: list[float], draws: int = 2000) -> list[float]:
    """[ratio of sums, low, high]: 95 % bootstrap over pairs."""
    a, b = np.array(numerator), np.array(denominator)
    index = np.random.default_rng(0).integers(0, len(a), (draws, len(a)))
    drawn = a[index].sum(1) / b[index].sum(1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return [round(float(v), 3) for v in (a.sum() / b.sum(), low, high)]


def quartiles(values: list[float]) -> dict[str, float]:
    """Median and 10/90 percentiles."""
    low, middle, high = np.quantile(values, (0.1, 0.5, 0.9))
    return {"median": float(middle), "p10": float(low), "p90": float(high)}
