"""Where metrics go besides the run folder: nowhere, or Weights & Biases; W&B's only home."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Protocol


class Logger(Protocol):
    """Takes what a run has to tell; must never stop the run."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Metrics at an environment step."""

    def finish(self, summary: dict[str, Any], table: list[dict[str, Any]], folder: Path) -> None:
        """The last word: summary numbers, the comparison, report and policy."""

    def close(self) -> None:
        """Nothing more comes, whether or not `finish` was called."""


class Nowhere:
    """No logging."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Nothing to do."""

    def finish(self, summary: dict[str, Any], table: list[dict[str, Any]], folder: Path) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


def logged_in() -> bool:
    """Whether W&B can go online without asking anybody."""
    if os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
        return False
    if os.environ.get("WANDB_API_KEY"):
        return True
    import netrc
    from urllib.parse import urlparse

    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    known = {host, "api.wandb.ai", "api.forge.coreweave.com"}
    try:
        return any(name in known for name in netrc.netrc().hosts)
    except (OSError, netrc.NetrcParseError):
        return False


class WeightsAndBiases:
    """A W&B run: offline where nobody is logged in or the server does not answer."""

    def __init__(
        self, config: dict[str, Any], folder: Path, project: str, mode: str = "auto",
        group: str | None = None, name: str | None = None, job: str = "train",
    ) -> None:  # fmt: skip
        import wandb

        self.wandb, self.said = wandb, set[str]()
        chosen: Any = mode if mode != "auto" else "online" if logged_in() else "offline"
        about: dict[str, Any] = {
            "project": project, "group": group, "name": name, "job_type": job, "config": config,
            "dir": str(folder), "id": _run_id(folder), "resume": "allow",
        }  # fmt: skip
        settings = wandb.Settings(
            silent=True, init_timeout=20, finish_timeout=60, console="off", x_disable_stats=True
        )
        try:
            self.run = wandb.init(mode=chosen, settings=settings, **about)
        except Exception as error:  # a server that does not answer must not stop a run
            print(f"W&B is not reachable ({error}); logging offline", file=sys.stderr)
            self.run = wandb.init(mode="offline", settings=settings, **about)
        self.run.define_metric("env_step")
        self.run.define_metric("*", step_metric="env_step")

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Metrics at an environment step."""
        self._try(lambda: self.run.log({"env_step": step, **metrics}))

    def finish(self, summary: dict[str, Any], table: list[dict[str, Any]], folder: Path) -> None:
        """The comparison as a table, the numbers as the summary, report and policy as artifacts."""
        self._try(lambda: self._finish(summary, table, folder))

    def _finish(self, summary: dict[str, Any], table: list[dict[str, Any]], folder: Path) -> None:
        if table:
            columns: list[str | int] = list(table[0])
            rows = [list(row.values()) for row in table]
            self.run.log({"comparison": self.wandb.Table(columns=columns, data=rows)})
        self.run.summary.update(summary)
        artifact = self.wandb.Artifact(f"policy-{self.run.id}", type="policy")
        for name in ("report.html", "results.json"):
            if (folder / name).is_file():
                artifact.add_file(str(folder / name))
        if (folder / "policy").is_dir():
            artifact.add_dir(str(folder / "policy"), name="policy")
        self.run.log_artifact(artifact)

    def close(self) -> None:
        """End the run here, or the next one of a sweep would log into it."""
        self._try(self.run.finish)

    def _try(self, action: Any) -> None:
        try:
            action()
        except Exception as error:
            said = f"W&B: {error}; the run goes on without it"
            if said not in self.said:
                print(said, file=sys.stderr)
            self.said.add(said)


def _run_id(folder: Path) -> str:
    """The run's W&B id, the same whenever it is resumed."""
    import secrets

    file = folder / "wandb_id.txt"
    if not file.exists():
        file.write_text(secrets.token_hex(4))
    return file.read_text().strip()


def make_logger(name: str, config: dict[str, Any], folder: Path, **options: Any) -> Logger:
    """The logger of a name; where wandb is not installed nothing is logged, with a word on it."""
    if name == "none":
        return Nowhere()
    if name != "wandb":
        raise ValueError(f"no logger {name!r}; known: none, wandb")
    try:
        return WeightsAndBiases(config, folder, **options)
    except ImportError:
        print("wandb is not installed: nothing is logged to it", file=sys.stderr)
        return Nowhere()
    except Exception as error:
        print(f"W&B could not start ({error}); the run goes on without it", file=sys.stderr)
        return Nowhere()
