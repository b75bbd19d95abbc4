"""How long ensembles of the papers' sizes would take on some workers: a model of measured times, in Markdown."""

import csv
import heapq
import math
from collections.abc import Sequence

from saliency_lib.book import profiles
from saliency_lib.data.torchvision_sets import IMAGENETTE_FILES
from saliency_lib.runtime.store import PROJECT

WORKERS = (1, 8, 64)
MEMBERS = 50
IMAGES = {"cifar10": 50_000, "imagenette": IMAGENETTE_FILES["train"]}  # of the training splits
GROUPS = 10  # of the jackknife, whose moments are merged one after the other at the end


def makespan(durations: Sequence[float], workers: int) -> float:
    """Time until all tasks are done when every free worker takes the next; the unit is that of the durations."""
    free = [0.0] * workers
    for duration in durations:
        heapq.heappush(free, heapq.heappop(free) + duration)
    return max(free)


def merging(seconds: float) -> float:
    """Seconds of merging the moments of all members: pairs side by side in a group, then group by group."""
    return seconds * (math.ceil(math.log2(MEMBERS / GROUPS)) + GROUPS - 1)


def table() -> str:
    """Seconds per member as measured, and hours of all members on 1, 8 and 64 workers like the measured one."""
    with (PROJECT / "docs" / "scaling.csv").open(newline="") as file:
        measured = list(csv.DictReader(file))
    parts, epochs = [], profiles.load("paper")["01_train_ensembles"]["epochs"]
    for device in sorted({row["device"] for row in measured}):
        rows = [row for row in measured if row["device"] == device and row["what"] != "merge"]
        merge = {row["dataset"]: merging(float(row["value"])) for row in measured
                 if row["device"] == device and row["what"] == "merge"}  # fmt: skip
        head = " | ".join(f"{n} worker{'s' * (n > 1)}, h" for n in WORKERS)
        parts.append(f"| {device}, {rows[0]['threads']} threads | images/s | s per member | {head} | merge, s |")
        parts.append("|---|" + "---:|" * (len(WORKERS) + 3))
        everything = []
        for row in rows:
            member = IMAGES[row["dataset"]] * epochs / float(row["value"])
            everything += [member] * MEMBERS
            hours = " | ".join(f"{makespan([member] * MEMBERS, n) / 3600:,.1f}" for n in WORKERS)
            name = f"{MEMBERS} {row['what']} on {row['dataset']}"
            parts.append(f"| {name} | {row['value']} | {member:,.0f} | {hours} | {merge[row['dataset']]:.2f} |")
        everything.sort(reverse=True)
        hours = " | ".join(f"{makespan(everything, n) / 3600:,.1f}" for n in WORKERS)
        parts.append(
            f"| **all {len(everything)}** | | | {hours} | {sum(merge[row['dataset']] for row in rows):.2f} |\n"
        )
    return "\n".join(parts)
