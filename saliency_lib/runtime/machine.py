"""Cores and memory that this process may use, also in a container."""

from pathlib import Path

import psutil
import torch
from joblib import cpu_count

# what a container may use, in either version of control groups; "max", or a number beyond all memory, is no limit
LIMITS = [Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")]
EACH = 10**9  # bytes of a process that trains or measures; a kernel takes another such share


def memory() -> int:
    """Bytes in all: the machine's, or what a container may use of them."""
    said = [path.read_text(encoding="utf-8").strip() for path in LIMITS if path.exists()]
    return min([psutil.virtual_memory().total, *(int(limit) for limit in said if limit.isdecimal())])


def cores() -> int:
    """How many are worth using at once: those of this process, and no more than its memory has room for."""
    return max(1, min(cpu_count(), memory() // EACH - 1))


def free_memory(device: torch.device) -> int:
    """Bytes that can be had on the device now; of a container's, what this process does not use already."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return max(0, min(psutil.virtual_memory().available, memory() - psutil.Process().memory_info().rss))
