"""Execute the notebooks with papermill, one kernel each, as many at a time as there are cores, and only what is stale.

Those that need the same ensemble train its members side by side (:mod:`saliency_lib.ensembles.train`), so that none
has to wait for another. A process has one thread, whose sums do not depend on the number of cores.
"""

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch

from saliency_lib.book import measured, pace, profiles, script
from saliency_lib.runtime import code, parallel
from saliency_lib.runtime.machine import cores
from saliency_lib.runtime.store import PROJECT, SHARED, atomic, figures_root, locked
from saliency_lib.runtime.workers import Inline, leave_with, number_of

BUILD = PROJECT / "build"
FIRST = ("02", "01")  # the main figure, and the networks that it shares with most others


@dataclass
class Result:
    """What became of one notebook; ``status`` is ``executed``, ``up to date``, ``failed`` or ``not reached``."""

    notebook: str
    status: str
    seconds: float = 0.0
    figures: list[str] = field(default_factory=list)
    error: str = ""


def select(only: list[str] | None) -> list[str]:
    """Notebooks by number (``02``) or name; all of them by default.

    Raises
    ------
    ValueError
        For one that does not exist.
    """
    known = profiles.notebooks()
    if not only:
        return known
    chosen = []
    for word in only:
        found = [name for name in known if name == word or name[:2] == word.zfill(2)]
        if not found:
            raise ValueError(f"no notebook {word!r}; there are {', '.join(known)}")
        chosen += found
    return sorted(set(chosen))


def settings(profile: str, chosen: list[str], changes: dict, executor: str | None = None) -> dict[str, dict]:
    """All parameters of the chosen notebooks; with ``changes`` their figures go to ``figures/custom``.

    An ``executor`` takes the place of the notebooks' own; it says where, not what, so that the figures stay the same.

    Raises
    ------
    ValueError
        For a change that no chosen notebook has a parameter for, or of the wrong type, and an unknown executor.
    """
    own = {name: profiles.parameters(name) for name in chosen}
    given: dict[str, dict] = {name: {} for name in chosen}
    for name, value in changes.items():
        takers = [notebook for notebook in chosen if name in own[notebook]]
        fields = {f"{e}.{name}" for e in profiles.ensembles(profile) for notebook in chosen if e in own[notebook]}
        if name in profiles.KINDS and fields and len(takers) < len(chosen):
            raise ValueError(f"--set {name}: a field of ensembles, so write {' or '.join(sorted(fields))}")
        if not takers:
            known = ", ".join(sorted(set().union(*own.values())))
            raise ValueError(f"--set {name}: no parameter of {', '.join(chosen)}; they have {known}")
        for notebook in takers:
            given[notebook] |= {"profile": "custom", name: value}
    if executor:
        parallel.check(executor)
        for notebook in chosen:
            given[notebook] |= {"executor": executor} if "executor" in own[notebook] else {}
    return {name: values for name, values in profiles.load(profile, given).items() if name in chosen}


def fingerprint(notebook: str, parameters: dict) -> str:
    """Stands for all that decides what a notebook gives: code, parameters, what it imports, claims, captions, lock."""
    parameters = {name: value for name, value in parameters.items() if name != "executor"}  # where, not what
    cells = ["".join(cell["source"]) for cell in profiles.content(notebook)["cells"] if cell["cell_type"] == "code"]
    settings = [os.environ.get(name, "") for name in ("SALIENCY_DATA", "SALIENCY_PRECISION")]
    told = json.dumps([parameters, settings, cells, code.of_script("\n".join(cells))], sort_keys=True)
    tables = [SHARED / "data" / name for name in ("figures.csv", "readings.csv")]  # users may have others there
    tables += sorted((SHARED / "data" / "published").glob("*.csv"))
    files = [Path(__file__).with_name("style.mplstyle"), *SHARED.glob("requirements.lock"), *tables]
    return code.digest(told, *(path.read_text(encoding="utf-8") for path in files))


def fresh(folder: Path, notebook: str, parameters: dict) -> Result | None:
    """The earlier result if nothing has changed since and all that it made is still there; else None."""
    try:
        old = json.loads(_stamp(folder, notebook).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    figures = figures_root() / parameters["profile"]
    made = [figures / f"{name}{kind}" for name in old["figures"] for kind in (".png", ".json")]
    whole = all(path.exists() for path in [folder / f"{notebook}.ipynb", *made])
    if not whole or old["root"] != str(figures_root()) or old["fingerprint"] != fingerprint(notebook, parameters):
        return None
    return Result(notebook, "up to date", old["seconds"], old["figures"])


def execute(
    notebook: str, parameters: dict, folder: Path, *, force: bool = False, bar: bool = False, kernel: bool = True
) -> Result:
    """Run one notebook into ``folder``; its executed copy is kept, also a partial one, and a log of its output.

    Without a ``kernel`` its code runs in this process, and there is no executed copy.
    """
    with locked(folder / f".{notebook}.lock"):  # of two runs started together the second finds it done
        if not force and (earlier := fresh(folder, notebook, parameters)):
            return earlier
        _stamp(folder, notebook).unlink(missing_ok=True)
        before, sources = _figures(notebook, parameters), fingerprint(notebook, parameters)
        started, executed = time.monotonic(), folder / f"{notebook}.ipynb"
        if kernel:
            source = profiles.NOTEBOOKS / executed.name
            error = script.in_kernel(source, parameters, executed, cwd=profiles.NOTEBOOKS, bar=bar)
        else:
            error = script.in_process(notebook, parameters, executed.with_suffix(".log"))
        seconds = time.monotonic() - started
        if error:
            return Result(notebook, "failed", seconds, error=error)
        made = _swept(before, _figures(notebook, parameters))
        if kernel:
            stamp = {"fingerprint": sources, "root": str(figures_root()), "figures": made, "seconds": seconds}
            with atomic(_stamp(folder, notebook)) as temporary:
                temporary.write_text(json.dumps(stamp), encoding="utf-8")
        return Result(notebook, "executed", seconds, made)


def _stamp(folder: Path, notebook: str) -> Path:
    return folder / f"{notebook}.stamp.json"


def _figures(notebook: str, parameters: dict) -> dict[Path, tuple[int, int]]:
    """Its figures' JSON, and what tells a file that was written again, also where the clock was set back meanwhile."""
    paths = sorted((figures_root() / parameters["profile"]).glob(f"{notebook[:2]}_*.json"))
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths if path.stem not in measured.OF_ROWS}


def _first_figure(values: dict[str, dict], since: int) -> Path | None:
    """The first figure that notebooks have made since a moment, in nanoseconds."""
    made = {path: at for name, own in values.items() for path, (_, at) in _figures(name, own).items() if at >= since}
    return min(made, key=lambda path: made[path]).with_suffix(".png") if made else None


def _swept(before: dict[Path, tuple[int, int]], after: dict[Path, tuple[int, int]]) -> list[str]:
    """Names of the figures that were made; those that an earlier version of the notebook made are removed."""
    for path in before:
        if before[path] == after.get(path):
            path.unlink()
            path.with_suffix(".png").unlink(missing_ok=True)
    return [path.stem for path in after if before.get(path) != after[path]]


def _place(notebook: str) -> tuple[int, float, str]:
    """Sorts notebooks: those of ``FIRST``, then by their minutes."""
    return (FIRST.index(notebook[:2]) if notebook[:2] in FIRST else len(FIRST)), -pace.minutes([notebook]), notebook


def shares(count: int, jobs: int | None = None) -> tuple[int, dict[str, str]]:
    """How many of ``count`` notebooks run at a time, and the settings of each: its threads and processes.

    On a CPU as many as there are cores, each with one thread, and cores that are left train members; one at a time,
    with PyTorch's own threads, where they share a GPU.
    """
    gpu, usable = torch.cuda.is_available(), cores()
    threads = number_of("SALIENCY_THREADS")
    jobs = min(count, jobs or (1 if gpu else max(1, usable // (threads or 1))))
    threads = threads or (max(1, torch.get_num_threads() // jobs) if gpu else 1)
    processes = number_of("SALIENCY_PROCESSES") or (1 if gpu else max(1, usable // (jobs * threads)))
    return jobs, {
        "SALIENCY_THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),
        "SALIENCY_PROCESSES": str(processes),
        "SALIENCY_QUIET": "1",  # no progress bars in executed notebooks
    }


def run(
    values: dict[str, dict],
    build: Path = BUILD,
    *,
    jobs: int | None = None,
    force: bool = False,
    bar: bool = False,
    kernel: bool = True,
    announce: Callable[[str], None] = lambda line: None,
) -> list[Result]:
    """Execute notebooks, ``{name: parameters}``, ``jobs`` at a time; none is begun after a failure.

    The main figure goes first, then what takes longest. ``announce`` is told what begins and ends.
    """
    folders = {name: build / values[name]["profile"] for name in values}
    found = {} if force else {name: fresh(folders[name], name, values[name]) for name in values}
    results: dict[str, Result] = {name: result for name, result in found.items() if result}
    waiting = sorted(set(values) - set(results), key=_place)
    jobs, settings = shares(max(1, len(waiting)), jobs)
    bar = bar and jobs == 1
    if jobs > 1 and not kernel:  # its processes would outlive the notebook, and this pool wait for them
        settings["SALIENCY_PROCESSES"] = "1"
    os.environ |= settings  # which processes and kernels inherit
    running: dict[Future, str] = {}
    started, began, done, first = time.monotonic(), time.time_ns(), set(results), None
    with _pool(jobs) as pool:
        while waiting or running:
            while waiting and len(running) < jobs and not any(result.error for result in results.values()):
                name = waiting.pop(0)
                announce(f"{name}: begun")
                task = partial(execute, name, values[name], folders[name], force=force, bar=bar, kernel=kernel)
                running[pool.submit(task)] = name
            if not running:
                break
            for future in wait(running, timeout=5, return_when=FIRST_COMPLETED).done:
                name = running.pop(future)
                result = results[name] = _outcome(name, future)
                announce(f"{result.notebook}: {result.status}, {result.seconds:.0f} s")
                if left := pace.left(time.monotonic() - started, results.keys() - done, running.values(), waiting):
                    announce(f"{len(running) + len(waiting)} to go, some {max(1, round(left))} min")
            if not first and (first := _first_figure(values, began)):
                announce(f"the first figure: {first}")
    return [results.get(name, Result(name, "not reached")) for name in values]


def _pool(jobs: int) -> Executor:
    if jobs == 1:
        return Inline()
    return ProcessPoolExecutor(jobs, get_context("spawn"), initializer=leave_with, initargs=(os.getpid(),))


def _outcome(name: str, future: Future) -> Result:
    try:
        return future.result()
    except (BrokenExecutor, OSError) as error:
        why = "its process died, for lack of memory perhaps" if isinstance(error, BrokenExecutor) else str(error)
        return Result(name, "failed", error=f"{name} failed: {why}")


def table(results: list[Result]) -> str:
    """The closing table: notebook, seconds, figures, status."""
    width = max(map(len, [r.notebook for r in results] + ["notebook"]))
    rows = [f"{'notebook':{width}}  seconds  figures  status"]
    rows += [f"{r.notebook:{width}}  {r.seconds:7.1f}  {len(r.figures):7d}  {r.status}" for r in results]
    return "\n".join(rows)
