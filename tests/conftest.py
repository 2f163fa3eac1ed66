"""One thread and fixed examples, so that runs repeat on a busy machine; long files come first."""

import sys
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")

# Begun first, so that no worker is alone at the end. While one compiles the models, in the first
# file, another is busy with those that need none of them.
MODELLESS = ["learners", "scripts", "rules", "statistics", "rewards", "doubt", "reports_page"]
FIRST = ["replay_heads", *MODELLESS, "lossless", "rejection"]


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Here, for the process that only hands out the files needs no torch."""
    import torch

    torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    places = {f"test_{name}": place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
