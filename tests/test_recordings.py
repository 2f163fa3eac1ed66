"""Recordings and cost tables that runs make for themselves, without making any."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from benches import bench
from hydra import compose, initialize_config_dir
from processes import until
from traces import invented

from envs.calibrate import parser
from envs.trace import Trace
from harness import environments
from harness import recordings as made
from harness.build import make_bench
from harness.overrides import CONF
from spec_core.menu import DEFAULT_MENU

ROOT = CONF.parent
COSTS = ROOT / "benchmarks" / "costs" / "epyc-1-thread.json"


@pytest.mark.parametrize(
    ("longest", "contexts"), [(20, [64, 256, 512]), (800, [64, 256, 512, 1024])]
)
def test_costs_are_measured_up_to_the_longest_recorded_text(
    monkeypatch, tmp_path, longest, contexts
):
    ran = []
    trace = invented([np.zeros((longest, 2), np.uint8)])
    monkeypatch.setattr(Trace, "read", lambda *_, **options: trace)
    monkeypatch.setattr(made, "_run", lambda words, stop: ran.append(words))
    pair = SimpleNamespace(target=None, draft=None, recall=None)
    config = SimpleNamespace(
        runs=tmp_path, traces=tmp_path, cost=None, pair=pair, device="cpu", dtype=None,
        temperature=0.0, threads=1, skip_broken=False,
    )  # fmt: skip
    made.recordings(config, DEFAULT_MENU, [1, 4], lambda: False)
    (words,) = ran
    asked = parser().parse_args(list(map(str, words[1:])))
    assert asked.contexts == contexts and asked.batches == [1, 4]


PARENT = """
from harness.recordings import _run
print("ready", flush=True)
_run(["timeit", "-n", "1", "import time; time.sleep(600)"], lambda: False)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children")
def test_what_a_run_has_started_ends_with_it():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, cwd=ROOT)
    assert parent.stdout is not None and parent.stdout.readline() == b"ready\n"
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    until(lambda: children.read_text())
    child = Path("/proc", children.read_text().strip())
    until(lambda: b"timeit" in (child / "cmdline").read_bytes())
    parent.kill()
    parent.wait()
    until(lambda: not child.exists() or " Z " in (child / "stat").read_text())


def test_prices_that_are_given_need_no_recording(monkeypatch):
    monkeypatch.setattr(environments, "recordings", lambda *_: pytest.fail("it recorded"))
    config = SimpleNamespace(cost=COSTS, pretrain=0.1, loads=None, batch_size=1)
    assert environments._deciding(config, None, "menu", lambda: False) > 0


UNSERVED = [
    (["env.projections=2"], "hidden states are not recorded"),
    (["env.head=stop", "env.plan=best-8x1n12"], "not best-8x1n12"),
    (["verifier=rejection", "temperature=1.0"], "take verifier=coupled"),
]


@pytest.mark.parametrize("source", ["env=replay", "env=live"])
@pytest.mark.parametrize(("words", "said"), UNSERVED)
def test_what_no_recording_serves_is_refused_before_anything_is_tuned(words, said, source):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config, alone = (
            compose("train", [*words, *more]) for more in ([source], ["env=live", "pretrain=0"])
        )
    pair = bench().pair
    with pytest.raises(ValueError, match=said):
        environments.check(config, make_bench(config, pair), {"name": "ppo"})
    environments.check(alone, make_bench(alone, pair), {"name": "ppo"})
