"""Imports point left: the core knows nothing of environments, learners, Hydra or W&B."""

import ast
from pathlib import Path

import spec_core

RIGHT = {"gymnasium", "stable_baselines3", "hydra", "wandb", "policies", "envs"}


def imported(file: Path) -> set[str]:
    """The top-level packages that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def test_the_core_imports_nothing_to_its_right():
    files = list(Path(spec_core.__file__).parent.rglob("*.py"))
    assert files and {"torch", "spec_core"} <= set().union(*map(imported, files))
    assert {str(file): imported(file) & RIGHT for file in files if imported(file) & RIGHT} == {}
