"""What every benchmark shares: the machine's description, prompts, statistics, files of results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from harness.machine import machine
from spec_core import embedded
from spec_core.prompts import spread

RESULTS = Path(__file__).resolve().parent / "results"


def save(name: str, content: dict) -> None:
    """Write results/<name>.json with the machine it ran on."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    file.write_text(json.dumps({"machine": machine(), **content}, indent=1) + "\n")
    print(f"wrote {file.relative_to(RESULTS.parent.parent)}")


def pick(split: str, per_domain: int) -> list[dict]:
    """The first prompts of every domain, domains taking turns."""
    return spread(embedded.prompts(split), per_domain)


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
