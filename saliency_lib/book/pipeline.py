"""Execute the notebooks with papermill, one kernel each, in the order of their needs, and only those that are stale."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import AbstractContextManager, redirect_stdout
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from traceback import format_exc

from saliency_lib.book import profiles, script
from saliency_lib.runtime import code, executors
from saliency_lib.runtime.store import PROJECT, atomic, figures_root, locked

BUILD = PROJECT / "build"


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


def needs(notebook: str) -> list[str]:
    """Numbers of the notebooks that it goes after, from its metadata."""
    return list(profiles.content(notebook)["metadata"].get("saliency", {}).get("needs", []))


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
        executors.get(executor)
        for notebook in chosen:
            given[notebook] |= {"executor": executor} if "executor" in own[notebook] else {}
    loaded = profiles.load(profile, given)
    return {name: loaded[name] for name in chosen}


def fingerprint(notebook: str, parameters: dict) -> str:
    """Hash of all that decides what a notebook gives: its cells, parameters, what it imports, claims and lock."""
    parameters = {name: value for name, value in parameters.items() if name != "executor"}  # where, not what
    state = hashlib.sha256(json.dumps([parameters, os.environ.get("SALIENCY_DATA", "")], sort_keys=True).encode())
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in profiles.content(notebook)["cells"]]
    for _, text in cells:
        state.update(text.encode())
    source = "\n".join(text for kind, text in cells if kind == "code")
    state.update(code.of_script(source).encode())
    for path in [
        Path(__file__).with_name("style.mplstyle"),
        *sorted((PROJECT / "data" / "published").glob("*.csv")),
        PROJECT / "requirements.lock",
    ]:
        state.update(path.read_bytes())
    return state.hexdigest()


def _figures(notebook: str, parameters: dict) -> list[Path]:
    return sorted((figures_root() / parameters["profile"]).glob(f"{notebook[:2]}_*.json"))


def _identity(path: Path) -> tuple[int, int]:
    """Tells a file that was written again from the old one, also where the clock was set back in between."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def _stamp(folder: Path, notebook: str) -> Path:
    return folder / f"{notebook}.stamp.json"


def fresh(folder: Path, notebook: str, parameters: dict) -> Result | None:
    """The earlier result if nothing has changed since and all that it made is still there; else None."""
    stamp = _stamp(folder, notebook)
    if not stamp.exists() or not (folder / f"{notebook}.ipynb").exists():
        return None
    try:
        old = json.loads(stamp.read_text())
    except ValueError:
        return None
    figures = figures_root() / parameters["profile"]
    whole = all((figures / f"{name}{kind}").exists() for name in old["figures"] for kind in (".png", ".json"))
    if old["fingerprint"] != fingerprint(notebook, parameters) or old["root"] != str(figures_root()) or not whole:
        return None
    return Result(notebook, "up to date", old["seconds"], old["figures"])


def execute(
    notebook: str,
    parameters: dict,
    folder: Path,
    *,
    force: bool = False,
    bar: bool = False,
    source: Path | None = None,
    cwd: Path = profiles.NOTEBOOKS,
    kernel: bool = True,
) -> Result:
    """Run one notebook into ``folder``; its executed copy is kept, also a partial one, and a log of its output.

    ``source`` is the notebook itself, unless it is another version of it, and ``cwd`` the folder that it works in.
    Without a ``kernel`` its code runs in this process, and there is no executed copy.
    """
    with locked(folder / f".{notebook}.lock"):  # of two runs started together the second finds it done
        if not force and (earlier := fresh(folder, notebook, parameters)):
            return earlier
        source = source or profiles.NOTEBOOKS / f"{notebook}.ipynb"
        _stamp(folder, notebook).unlink(missing_ok=True)
        before = {path: _identity(path) for path in _figures(notebook, parameters)}
        started, sources = time.monotonic(), fingerprint(notebook, parameters)
        if kernel:
            error = _in_kernel(notebook, parameters, folder, bar, source, cwd)
        else:
            error = _here(notebook, parameters, folder)
        seconds = time.monotonic() - started
        if error:
            return Result(notebook, "failed", seconds, error=error)
        made = _swept(notebook, parameters, before)
        if kernel:
            stamp = {"fingerprint": sources, "root": str(figures_root()), "figures": made, "seconds": seconds}
            with atomic(_stamp(folder, notebook)) as temporary:
                temporary.write_text(json.dumps(stamp))
        return Result(notebook, "executed", seconds, made)


def _in_kernel(notebook: str, parameters: dict, folder: Path, bar: bool, source: Path, cwd: Path) -> str:
    """Execute a notebook with papermill; what went wrong, or nothing."""
    import papermill  # here, since scripts do without it
    from papermill.exceptions import PapermillExecutionError

    log = folder / f"{notebook}.log"
    rest = f"As far as it got: {folder / notebook}.ipynb; its output: {log}"
    try:
        with log.open("w") as output:
            papermill.execute_notebook(
                source,
                folder / f"{notebook}.ipynb",
                parameters=parameters,
                kernel_name="python3",
                cwd=str(cwd),
                progress_bar=bar,
                log_output=False,
                stdout_file=output,
                stderr_file=output,
                extra_arguments=["--log-level=ERROR"],
            )
    except PapermillExecutionError as error:
        where = f"cell [{error.exec_count}] with {error.ename}: {error.evalue}"
        return f"{notebook} failed in {where}\n\n{error.source}\n\n{rest}"
    except RuntimeError as error:  # the kernel died or never started
        return f"{notebook} stopped: {error}. {rest}"
    return ""


def _here(notebook: str, parameters: dict, folder: Path) -> str:
    """Run a notebook's code in this process; what went wrong, or nothing."""
    log = folder / f"{notebook}.log"
    try:
        with log.open("w") as output, redirect_stdout(output):
            script.run(notebook, parameters)
    except Exception as error:
        return f"{notebook} failed with {type(error).__name__}: {error}\n\n{format_exc()}\nIts output: {log}"
    return ""


def _swept(notebook: str, parameters: dict, before: dict[Path, tuple[int, int]]) -> list[str]:
    """Names of the figures that were made; those that an earlier version of the notebook made are removed."""
    made = []
    for path in _figures(notebook, parameters):
        if before.get(path) == _identity(path):
            path.unlink()
            path.with_suffix(".png").unlink(missing_ok=True)
        else:
            made.append(path.stem)
    return made


class Inline(AbstractContextManager):
    """A pool of one, in this very process, so that an interrupt stops the notebook at once."""

    def __exit__(self, *_):
        return None

    def submit(self, function: Callable[..., Result], *args, **kwargs) -> Future:
        """Do it now."""
        future = Future()
        future.set_result(function(*args, **kwargs))
        return future


def run(
    values: dict[str, dict],
    build: Path = BUILD,
    *,
    jobs: int = 1,
    force: bool = False,
    bar: bool = False,
    kernel: bool = True,
    announce: Callable[[str], None] = lambda line: None,
) -> list[Result]:
    """Execute notebooks, ``{name: parameters}``, ``jobs`` at a time; none is begun after a failure.

    A notebook waits for those that it needs, where they are run as well. ``announce`` is told what begins and ends.
    """
    os.environ["SALIENCY_QUIET"] = "1"  # kernels inherit it: no progress bars in executed notebooks
    if jobs > 1:
        os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    results: dict[str, Result] = {}
    waiting, running = list(values), {}
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) if jobs > 1 else Inline() as pool:
        while waiting or running:
            failed = any(r.status == "failed" for r in results.values())
            for name in list(waiting):
                blockers = {other for other in values if other[:2] in needs(name) and other not in results}
                if not failed and not blockers and len(running) < jobs:
                    waiting.remove(name)
                    folder = build / values[name]["profile"]
                    announce(f"{name}: begun")
                    running[pool.submit(execute, name, values[name], folder, force=force, bar=bar, kernel=kernel)] = (
                        name
                    )
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                result = results[running.pop(future)] = future.result()
                announce(f"{result.notebook}: {result.status}, {result.seconds:.0f} s")
    return [results.get(name, Result(name, "not reached")) for name in values]


def table(results: list[Result]) -> str:
    """The closing table: notebook, seconds, figures, status."""
    width = max(map(len, [r.notebook for r in results] + ["notebook"]))
    rows = [f"{'notebook':{width}}  seconds  figures  status"]
    rows += [f"{r.notebook:{width}}  {r.seconds:7.1f}  {len(r.figures):7d}  {r.status}" for r in results]
    return "\n".join(rows)
