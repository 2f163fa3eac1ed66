"""Where the scripts meet people: bad overrides, one-line errors, exit codes, sweep folders."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from omegaconf import MissingMandatoryValue

from harness.overrides import problem

T = TypeVar("T")


def check_overrides(root: str, arguments: list[str]) -> None:
    """Leave with one line and exit code 2 where an override is mistyped."""
    found = problem(root, arguments)
    if found:
        print(found, file=sys.stderr)
        raise SystemExit(2)


def guarded(action: Callable[[], T], leave: bool = True) -> T:
    """Run; what a user can mend becomes one line and exit code 2, Ctrl-C exit code 130."""
    try:
        return action()
    except MissingMandatoryValue as error:
        if not leave:
            raise
        print(f"error: it is not said which: give {error.full_key}=...", file=sys.stderr)
        raise SystemExit(2) from None
    except (ValueError, FileNotFoundError) as error:
        if not leave:
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:  # a full disk, a folder that may not be written
        if not leave:
            raise
        print(f"error: {error}; what was saved before is whole: once there is room go on with "
              "resume=<run folder>", file=sys.stderr)  # fmt: skip
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def sweep_folder() -> str:
    """The folder of this job of a sweep: the same when a cluster runs it again."""
    from hydra.core.hydra_config import HydraConfig

    return str(HydraConfig.get().runtime.output_dir)
