"""Times of two ways of the same work, taken in turn in one run, and the table of them all."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

TINY = os.environ.get("SALIENCY_BENCH") == "tiny"  # as small as can be, so that CI sees that all of them still run
LONG = 20.0  # seconds of a comparison after which three rounds are enough
ROWS: list[tuple[str, str, str, str]] = []
HEAD = """# Speed

`./run_all.sh bench` writes this to `build/speed.md`. Each row is two ways of the same work, taken in turn in one run:
median seconds of each, and the median of the ratios of ours to the peer's, with their range, of five rounds, of three
where they are long, and of one for defaults of captum that are not its best. Under 1 ours is faster.

"""


def sized(n, tiny):
    """How much of it: ``n``, or ``tiny`` where only its running matters."""
    return tiny if TINY else n


class Comparison(NamedTuple):
    """Median seconds of both ways; median, least and largest ratio of ours to the peer's."""

    ours: float
    peer: float
    ratio: float
    low: float
    high: float


def compare(ours: Callable[[], float | None], peer: Callable[[], float | None], rounds: int = 5) -> Comparison:
    """Take two ways in turn; the first round warms up. What gives a number says itself how many seconds count."""
    times, begun = [], time.perf_counter()
    for _ in range(sized(rounds + 1, 1)):
        pair = []
        for way in (ours, peer):
            started = time.perf_counter()
            counted = way()
            pair.append(time.perf_counter() - started if counted is None else counted)
        times.append(pair)
        if len(times) > 3 and time.perf_counter() - begun > LONG:
            break
    first, second = zip(*times[sized(1, 0) :])
    ratios = [a / b for a, b in zip(first, second)]
    return Comparison(*map(statistics.median, (first, second, ratios)), min(ratios), max(ratios))


def report(work: str, peer: str, found: Comparison, unit: str = "s") -> None:
    """A row of the table."""
    spread = f"{found.ratio:.2f} [{found.low:.2f}, {found.high:.2f}]"
    ROWS.append((work, f"{found.ours:.3g} {unit}", f"{peer}: {found.peer:.3g} {unit}", spread))


def table() -> str:
    """All rows, in Markdown."""
    rows = [("work", "ours", "peer", "ratio"), ("---",) * 4, *ROWS]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def page() -> str:
    """The table as a page, and where it was measured."""
    able = torch.cpu.get_capabilities()
    cpu = f"{able.get('cpu_name', platform.machine())}, {torch.backends.cpu.get_cpu_capability()}"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu
    where = f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__.split('+')[0]}"
    return f"{HEAD}{table()}\n\nMeasured on {where}.\n"
