"""The GPU benchmark runs from end to end in miniature, and a part that fails stops no other."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import common, gpu
from benchmarks.gpu_target import SMOKE, Place

HERE = Place(torch.device("cpu"), torch.float32)
PIECES = ["target", "steps", "draft", "generation"]


@pytest.mark.slow
def test_everything_runs_in_miniature(capsys):
    gpu.main(["--smoke"])
    found = json.loads(capsys.readouterr().out)
    assert "failed" not in json.dumps(found) and found["machine"]["gpu"] is None
    assert found["bandwidth"]["gb_per_second"] > 0
    assert list(found["inflated"]) == PIECES and "draft" not in found["llama"]
    assert found["inflated"]["draft"]["six levels"]["2"]["median"] > 0
    for name in ("inflated", "llama", "qwen3"):
        assert set(found[name]["steps"]["recorded"]) == {"1", "4"}
        made = found[name]["generation"]
        assert {"plain", "plain, direct", "transformers", "transformers static"} <= set(made)
        assert all(contender["same_text"] == 1 for contender in made.values())
        phases = made["plain"]["ms_per_cycle"]
        parts = [phases[n] for n in ("decide", "draft", "verify", "commit")]
        assert sum(parts) == pytest.approx(phases["total"]) and phases["verify"] > 0
        assert made["plain"]["share_of_bandwidth"] > 0
    chain = found["inflated"]["generation"]["chain of 6"]
    assert chain["tokens_per_cycle"] > 1  # in miniature the draft is its target's original


def test_a_part_that_fails_says_so_and_the_rest_goes_on(monkeypatch, tmp_path, capsys):
    def broken(*_):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.\nMore about it")

    class Target:
        bytes_read, draft = 12, None

    targets = {"inflated": broken, "llama": lambda *_: Target()}
    monkeypatch.setattr(gpu, "TARGETS", targets)
    monkeypatch.setattr(gpu, "bandwidth", broken)
    monkeypatch.setattr(gpu, "verify_curve", broken)
    monkeypatch.setattr(gpu, "generation", lambda *_: {"plain": 1})
    monkeypatch.setattr(common, "RESULTS", tmp_path / "benchmarks" / "results")
    (tmp_path / "benchmarks").mkdir()
    seen = 0
    for content in gpu.measure(gpu.PARTS, SMOKE, HERE):
        common.save("gpu", content)
        seen += 1
    found = json.loads((tmp_path / "benchmarks" / "results" / "gpu.json").read_text())
    said = {"failed": "OutOfMemoryError: CUDA out of memory."}
    assert seen == 5 and found["bandwidth"] == said and found["inflated"] == {"target": said}
    right = {"target": {"bytes_read_per_step": 12}, "steps": said, "generation": {"plain": 1}}
    assert found["llama"] == right


def test_without_a_gpu_it_says_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "--smoke" in capsys.readouterr().err
