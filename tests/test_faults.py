"""Whatever ends a run, the next one ends where an undisturbed one does; a disk that fails gets one sentence."""

import errno
import hashlib
import json
import multiprocessing
import os
import pickle
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pytest
import torch
from conftest import ALL, with_own_mounts
from filelock import FileLock, Timeout
from PIL import Image

from saliency_lib import ensembles, snr
from saliency_lib.book import pipeline, plotting, profiles, site
from saliency_lib.ensembles import EnsembleSpec, files
from saliency_lib.runtime import store
from saliency_lib.runtime.store import atomic, locked
from saliency_lib.training import Recipe

RECIPE = Recipe(epochs=2, batch_size=32)
SPEC = EnsembleSpec("digits", "convnet-w4-d2-max", 4, RECIPE, n_train=400, n_val=40, snapshots=(1,))
KILLS = 50 if ALL else 10


@pytest.fixture(scope="module")
def processes():
    """Processes that begin with the library imported, so that they can be started and killed by the dozen."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["saliency_lib.snr", "saliency_lib.book.site", "saliency_lib.book.plotting", __name__]
    )
    return context


def work(folder: Path) -> None:
    """Train, attribute, and draw, as a notebook does."""
    torch.set_num_threads(1)
    os.environ |= {"SALIENCY_STORE": str(folder / "store"), "SALIENCY_FIGURES": str(folder / "figures")}
    plotting.display = lambda picture: None
    ensemble, (_, val) = ensembles.get(SPEC), ensembles.splits(SPEC)
    for method in ("input_gradient", "deeplift"):
        found = store.kept(snr.measure, method, ensemble, val.inputs(), val.labels).debiased()
        figure, axes = plotting.plt.subplots()
        plotting.forest(axes, {method: found})
        run = plotting.Run("02_gradient_snr", {"profile": "smoke"})
        run.save(figure, f"02_{method}", numbers={"snr": found})


def made(folder: Path) -> dict:
    """All results of :func:`work` that are no times, read from what has a result's name."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        name = str(path.relative_to(folder))
        if path.suffix == ".safetensors":
            found[name] = files.checksum(path)
        elif path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
                found[name] = hashlib.sha256(image.tobytes()).hexdigest()
        elif path.name == "manifest.json":
            members = json.loads(path.read_text())["members"]
            found[name] = [(m["member"], m["accuracy"], m["history"]) for m in members]
        elif path.suffix == ".json":
            found[name] = json.loads(path.read_text())["numbers"]
        elif path.suffix == ".pickle":
            found[name] = pickle.loads(path.read_bytes()[32:]).debiased()
    return found


def undisturbed(processes, target, *arguments) -> float:
    """Run to the end; seconds."""
    started = time.monotonic()
    process = processes.Process(target=target, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0
    return time.monotonic() - started


def killed(processes, seconds: float, target, *arguments) -> bool:
    """Whether a run was killed after so many seconds; it had come to its end if not."""
    process = processes.Process(target=target, args=arguments)
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    assert process.exitcode in (0, -9), "it fails for no other reason"
    return process.exitcode == -9


def test_work_that_is_killed_at_random_moments_ends_as_if_it_had_not_been(processes, tmp_path):
    undisturbed(processes, work, tmp_path / "warm")
    seconds, moments = undisturbed(processes, work, tmp_path / "whole"), random.Random(0)
    expected, kills, ends, trial = made(tmp_path / "whole"), 0, 0, tmp_path / "trial"
    assert len(expected) == 2 * 4 + 1 + 2 + 2 * 2, "members and snapshots, manifest, results, figures"
    while kills < KILLS:
        if killed(processes, moments.uniform(0, seconds), work, trial):
            kills += 1
            continue
        assert made(trial) == expected
        ends += 1
        shutil.rmtree(trial)
    undisturbed(processes, work, trial)
    assert made(trial) == expected
    print(f"\n{kills} kills within {seconds:.1f} s of work, {ends + 1} ends, all the same")


def copied(source: Path, out: Path) -> None:
    """In place of Sphinx, a page at a time."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            (out / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, out / path.relative_to(source))


def make_site(figures: Path, out: Path) -> None:
    os.environ["SALIENCY_FIGURES"] = str(figures)
    site.sphinx = copied
    site.build("smoke", executed=figures / "build" / "smoke", out=out)


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.notebook
def test_a_site_that_is_killed_at_random_moments_is_the_old_one_or_the_new_one(processes, smoke, tmp_path):
    figures, out, moments = smoke[0], tmp_path / "sites" / "site", random.Random(0)
    undisturbed(processes, make_site, figures, out)
    expected, kills = tree(out), 0
    seconds = undisturbed(processes, make_site, figures, out)
    while kills < KILLS:
        kills += killed(processes, moments.uniform(0, seconds), make_site, figures, out)
        assert not out.exists() or tree(out) == expected
    undisturbed(processes, make_site, figures, out)
    assert tree(out) == expected
    assert {path.name for path in out.parent.iterdir()} == {"site", ".site.lock"}, "nothing half-made is left"


ON_A_SMALL_DISK = """
import subprocess, sys, warnings
from pathlib import Path
import torch
from saliency_lib import ensembles
from saliency_lib.training import Recipe
torch.set_num_threads(1)
disk = sys.argv[1]
spec = ensembles.EnsembleSpec(
    "digits", "convnet-w64-d2-max", 4, Recipe(epochs=1, batch_size=64), n_train=100, n_val=40)

def attempt():
    try:
        return f"{len(ensembles.get(spec))} members"
    except OSError as error:
        return str(error)

def stamps():
    return {path.name: path.stat().st_mtime_ns for path in Path(disk).rglob("member-*.safetensors")}

print(attempt())
kept = stamps()
subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
print(attempt())
subprocess.run(["mount", "-o", "remount,rw,size=4m", disk], check=True)
print(attempt())
print(0 < len(kept) < 4 and kept.items() <= stamps().items())
subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
print(attempt())
"""
MOUNT = 'mount -t tmpfs -o size=500k none "$1" && SALIENCY_STORE="$1" exec "$2" -c "$3" "$1"'


def test_a_full_disk_and_a_read_only_one_get_a_sentence_and_keep_what_is_there(tmp_path):
    """On a disk in memory that only the child sees, first too small, then read-only, then large enough."""
    command = [*with_own_mounts(), MOUNT, "sh", str(tmp_path), sys.executable, ON_A_SMALL_DISK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    full, read_only, enough, kept, reading = done.stdout.splitlines()
    assert full.startswith("[Errno 28] cannot write /") and full.endswith(": the disk is full; free some space")
    assert read_only.endswith("the folder is read-only; choose another with SALIENCY_STORE or SALIENCY_FIGURES")
    assert (enough, kept, reading) == ("4 members", "True", "4 members")


@pytest.mark.parametrize("use", [atomic, locked])
def test_a_folder_of_somebody_else_gets_a_sentence(use, tmp_path):
    tmp_path.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # root may write anywhere
    try:
        message = "cannot write .*: permission denied; choose another"
        with pytest.raises(OSError, match=message) as error, use(tmp_path / "x") as path:
            path.write_text("")
    finally:
        if root:
            os.seteuid(0)
        tmp_path.chmod(0o755)
    assert error.value.errno == errno.EACCES and not list(tmp_path.iterdir())


def test_waiting_for_another_run_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SAID_AFTER", 0.05)
    held, may_go, said = threading.Event(), threading.Event(), []

    def another():
        with FileLock(tmp_path / "lock"):
            held.set()
            may_go.wait(60)

    thread = threading.Thread(target=another)
    thread.start()
    held.wait()
    with pytest.raises(Timeout), locked(tmp_path / "lock", timeout=0):
        pass
    monkeypatch.setattr(store.warnings, "warn", lambda words, **_: said.append(words) or may_go.set())
    with locked(tmp_path / "lock"):
        assert f"waiting for another run, which holds {tmp_path / 'lock'}" in said[0]
    thread.join()


BOOK = """import os, pathlib, time
folder = pathlib.Path(os.environ["SALIENCY_FIGURES"]) / profile
folder.mkdir(parents=True, exist_ok=True)
for name in ("01_one.json", "01_one.png"):
    (folder / (name + ".new")).write_text("{}")
    os.utime(folder / (name + ".new"), (1, 1))  # as if the clock had been set back
    os.replace(folder / (name + ".new"), folder / name)
with open(folder / "runs", "a") as file:
    file.write("x")
time.sleep(1)
"""


def execute_book(folder: Path, number: int) -> None:
    profiles.NOTEBOOKS = folder
    os.environ["SALIENCY_FIGURES"] = str(folder / "figures")
    result = pipeline.execute("01_a", {"profile": "quick"}, folder / "build")
    (folder / f"result-{number}").write_text(f"{result.status}, {result.figures}")


@pytest.mark.notebook
def test_two_runs_started_together_do_the_work_once_whatever_the_clock_says(processes, tmp_path):
    kernel = {"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
    cell, parameters = nbformat.v4.new_code_cell(BOOK), nbformat.v4.new_code_cell('profile = "quick"')
    parameters.metadata["tags"] = ["parameters"]
    nbformat.write(nbformat.v4.new_notebook(metadata=kernel, cells=[parameters, cell]), tmp_path / "01_a.ipynb")
    both = [processes.Process(target=execute_book, args=(tmp_path, number)) for number in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    found = sorted((tmp_path / f"result-{number}").read_text() for number in range(2))
    assert found == ["executed, ['01_one']", "up to date, ['01_one']"]
    assert (tmp_path / "figures" / "quick" / "runs").read_text() == "x"
