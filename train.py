"""Learn a draft policy and compare it: python train.py policy=ppo (see conf/ for the choices)."""

from __future__ import annotations

import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from harness.edge import check_overrides, guarded, sweep_folder
from harness.run import train


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config: DictConfig) -> float | None:
    """One run; in a sweep its folder is the sweep's."""
    multirun = HydraConfig.get().mode == RunMode.MULTIRUN
    output, given = sweep_folder() if multirun else None, HydraConfig.get().overrides.task
    summary = guarded(lambda: train(config, output, list(given)), not multirun)
    figures = (summary or {}).get("policies", {}).get(config.policy.name)
    return figures["tokens_per_second"]["value"] if figures else None


if __name__ == "__main__":
    check_overrides("train", sys.argv[1:])
    main()
