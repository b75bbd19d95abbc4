"""The benchmarks still run, at tiny sizes, and make their table."""

import os
import subprocess
import sys

import pytest

from saliency_lib.__main__ import BENCH
from saliency_lib.attribution import METHODS
from saliency_lib.runtime.store import PROJECT


@pytest.mark.slow
def test_every_benchmark_runs_and_gets_a_row(tmp_path):
    settings = {"SALIENCY_BENCH": "tiny", "SALIENCY_SPEED": str(tmp_path / "speed.md")}
    command = [sys.executable, "-m", *BENCH, "-p", "no:xdist"]
    done = subprocess.run(command, cwd=PROJECT, env=os.environ | settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    rows = [line for line in (tmp_path / "speed.md").read_text().splitlines() if line.startswith("| ")]
    assert rows[0] == "| work | ours | peer | ratio |"
    for name in METHODS:
        assert any(row.startswith(f"| {name}, resnet18") and "bare passes" in row for row in rows), name
    for peer in ("captum", "Quantus", "lucent", "DataLoader"):
        assert any(peer in row for row in rows), peer
