"""What a process may use of a machine, and of a container on it."""

from types import SimpleNamespace

import psutil
import pytest
import torch

from saliency_lib.runtime import machine

GB = 10**9


@pytest.fixture
def container(tmp_path, monkeypatch):
    """Sets what a container of a machine of 16 cores and 64 GB may use."""
    monkeypatch.setattr(machine, "cpu_count", lambda: 16)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("", (), {"total": 64 * GB, "available": 40 * GB}))

    def given(limit: str) -> None:
        monkeypatch.setattr(machine, "LIMITS", [tmp_path / "memory.max", tmp_path / "not there"])
        (tmp_path / "memory.max").write_text(f"{limit}\n")

    return given


@pytest.mark.parametrize(
    "limit,cores", [("max", 16), (str(2**63), 16), (str(2 * 2**30), 1), (str(4 * GB), 3), (str(GB // 2), 1)]
)
def test_a_container_has_as_many_processes_as_it_has_memory_for(container, limit, cores, monkeypatch):
    container(limit)
    assert machine.cores() == cores
    assert machine.memory() == (64 * GB if cores == 16 else int(limit))
    used = min(GB, machine.memory())
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=used))
    monkeypatch.setattr(psutil, "Process", lambda: process)
    assert machine.free_memory(torch.device("cpu")) == min(40 * GB, machine.memory() - used)
