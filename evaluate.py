"""Compare policies: python evaluate.py 'policies=[autoregressive,best_static,runs/ppo-s0_...]'."""

from __future__ import annotations

import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from harness.edge import check_overrides, guarded, sweep_folder
from harness.run import evaluate_policies


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(config: DictConfig) -> None:
    """One comparison."""
    multirun = HydraConfig.get().mode == RunMode.MULTIRUN
    output = sweep_folder() if multirun else None
    guarded(lambda: evaluate_policies(config, output), not multirun)


if __name__ == "__main__":
    check_overrides("evaluate", sys.argv[1:])
    main()
