"""Notebooks run side by side, only when stale, and a failure is shown and keeps what there is."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
import torch

from saliency_lib.book import pipeline, plotting, profiles, script
from saliency_lib.ensembles import EnsembleSpec
from saliency_lib.runtime.store import PROJECT
from saliency_lib.training import Recipe

FIGURE = """
import matplotlib; matplotlib.use("agg")
import matplotlib.pyplot as plt
from saliency_lib.book import plotting
run = plotting.start("{name}", globals())
run.save(plt.figure(), "{figure}", numbers={{"n": n}})
"""


TRAINED = """
import matplotlib; matplotlib.use("agg")
import matplotlib.pyplot as plt
from saliency_lib import ensembles, snr
from saliency_lib.book import plotting
from saliency_lib.ensembles import EnsembleSpec
from saliency_lib.training import Recipe
run = plotting.start("{name}", globals())
spec = EnsembleSpec("digits", "resnet_small", 3, Recipe(epochs=1, batch_size=50), n_train=300, n_val=64)
nets, val = ensembles.get(spec, "processes"), ensembles.splits(spec)[1]
powers = snr.measure("input_gradient", nets, val.inputs(), val.labels, executor="processes").value
numbers = {{"mean": powers.mean.double(), "noise": powers.noise.double()}}
run.save(plt.figure(), "{name}", numbers=numbers)
"""


def write(folder, name, *cells, minutes=0):
    kernel = {"name": "python3", "display_name": "", "language": "python"}
    book = nbformat.v4.new_notebook(metadata={"kernelspec": kernel, "saliency": {"minutes": minutes}})
    parameters = nbformat.v4.new_code_cell('profile = "quick"\nn = 1', metadata={"tags": ["parameters"]})
    book.cells = [parameters, *map(nbformat.v4.new_code_cell, cells)]
    nbformat.write(book, folder / f"{name}.ipynb")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of three small notebooks in place of the project's; figures and build beside it."""
    books = tmp_path / "notebooks"
    (books / "profiles").mkdir(parents=True)
    (books / "profiles" / "quick.yaml").write_text("01_a: {n: 2}\n")
    write(books, "01_a", FIGURE.format(name="01_a", figure="01_one"))
    write(books, "02_b", "print('b', n)")
    monkeypatch.setattr(profiles, "NOTEBOOKS", books)
    monkeypatch.setenv("SALIENCY_FIGURES", str(tmp_path / "figures"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(PROJECT)]))
    (tmp_path / "sitecustomize.py").write_text(
        f"import pathlib, saliency_lib.book.profiles as p; p.NOTEBOOKS = pathlib.Path({str(books)!r})\n"
    )
    return books


def run(tmp_path, changes=None, jobs=1, **options):
    values = pipeline.settings("quick", pipeline.select(None), changes or {})
    return pipeline.run(values, tmp_path / "build", jobs=jobs, **options)


@pytest.fixture
def quick_kernel(monkeypatch):
    """In place of papermill, which takes seconds to start: the code runs here, and the source is the executed copy."""

    def in_kernel(source, parameters, executed, *, cwd, bar):
        error = script.in_process(executed.stem, parameters, executed.with_suffix(".log"))
        executed.write_text(source.read_text())
        return error

    monkeypatch.setattr(script, "in_kernel", in_kernel)


def test_notebooks_run_when_stale_and_in_order(folder, quick_kernel, tmp_path):
    first = run(tmp_path)
    assert [(r.notebook, r.status, r.figures) for r in first] == [
        ("01_a", "executed", ["01_one"]),
        ("02_b", "executed", []),
    ]
    build = tmp_path / "build" / "quick"
    assert (build / "02_b.ipynb").stat().st_mtime < (build / "01_a.ipynb").stat().st_mtime, "the main figure first"
    assert "b 1" in (build / "02_b.log").read_text()
    numbers = json.loads((tmp_path / "figures" / "quick" / "01_one.json").read_text())
    assert numbers["numbers"] == {"n": 2} and numbers["provenance"]["parameters"] == {"profile": "quick", "n": 2}

    assert {r.status for r in run(tmp_path)} == {"up to date"}
    (tmp_path / "figures" / "quick" / "01_one.png").unlink()
    assert [r.status for r in run(tmp_path)] == ["executed", "up to date"]
    write(folder, "02_b", "print('changed')")
    assert [r.status for r in run(tmp_path)] == ["up to date", "executed"]
    write(folder, "01_a", FIGURE.format(name="01_a", figure="01_two"))
    assert run(tmp_path)[0].figures == ["01_two"]
    assert not (tmp_path / "figures" / "quick" / "01_one.png").exists(), "a figure that is no longer made goes"
    assert "01_a" in pipeline.table(first) and "executed" in pipeline.table(first)

    write(folder, "03_c", "print('c')")
    write(folder, "04_d", "print('d')", minutes=5)
    said = []
    run(tmp_path, force=True, announce=said.append)
    assert [line.split(":")[0] for line in said if "begun" in line] == ["02_b", "01_a", "04_d", "03_c"], "the longest"
    assert f"the first figure: {tmp_path / 'figures' / 'quick' / '01_two.png'}" in said


def test_results_do_not_depend_on_how_many_processes_there_are(folder, tmp_path, monkeypatch):
    """One notebook at a time whose members train in two processes, and two that train the same members together."""
    for name in ("01_a", "02_b"):
        write(folder, name, TRAINED.format(name=name))
    monkeypatch.setattr(pipeline, "cores", lambda: 2)
    monkeypatch.delenv("SALIENCY_THREADS", raising=False)
    found = []
    for jobs in (1, 2):
        monkeypatch.setenv("SALIENCY_STORE", str(tmp_path / f"store-{jobs}"))
        assert [r.error for r in run(tmp_path, jobs=jobs, kernel=False)] == ["", ""]
        texts = [(tmp_path / "figures" / "quick" / f"{name}.json").read_text() for name in ("01_a", "02_b")]
        found += [json.loads(text)["numbers"] for text in texts]
        assert json.loads(texts[0])["provenance"]["threads"] == 1
    assert all(numbers == found[0] for numbers in found) and sum(found[0]["noise"]) > 0


def test_cores_are_shared_among_notebooks(monkeypatch):
    monkeypatch.setattr(pipeline, "cores", lambda: 8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("SALIENCY_THREADS", raising=False)
    monkeypatch.delenv("SALIENCY_PROCESSES", raising=False)
    for count, jobs, at_once, each in ((9, None, 8, "1"), (3, None, 3, "2"), (9, 2, 2, "4"), (1, 4, 1, "8")):
        found, settings = pipeline.shares(count, jobs)
        assert (found, settings["SALIENCY_PROCESSES"], settings["SALIENCY_THREADS"]) == (at_once, each, "1")
    monkeypatch.setenv("SALIENCY_THREADS", "4")
    assert pipeline.shares(9)[0] == 2 and pipeline.shares(9)[1]["OMP_NUM_THREADS"] == "4"
    for wrong in ("0", "two", "-1"):
        monkeypatch.setenv("SALIENCY_PROCESSES", wrong)
        with pytest.raises(ValueError, match=f"SALIENCY_PROCESSES='{wrong}' should be a whole number from 1"):
            pipeline.shares(9)
    monkeypatch.setenv("SALIENCY_PROCESSES", "3")
    assert pipeline.shares(9)[1]["SALIENCY_PROCESSES"] == "3", "what the user says goes before"
    monkeypatch.delenv("SALIENCY_THREADS")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pipeline.shares(9)[0] == 1, "they would share one GPU's memory"
    assert pipeline.shares(9)[1]["SALIENCY_PROCESSES"] == "3"
    monkeypatch.delenv("SALIENCY_PROCESSES")
    assert pipeline.shares(9)[1]["SALIENCY_PROCESSES"] == "1", "members share it only where the user says so"


@pytest.mark.notebook
def test_changes_go_to_custom_figures_and_a_kernel_gives_what_papermill_writes(folder, tmp_path):
    odd = tmp_path / "a{b}"  # no place for a parameter
    run(odd, {"n": 5})
    assert json.loads((tmp_path / "figures" / "custom" / "01_one.json").read_text())["numbers"] == {"n": 5}
    assert not (tmp_path / "figures" / "quick").exists()
    book = nbformat.read(odd / "build" / "custom" / "02_b.ipynb", as_version=4)
    assert "b 5" in str(book.cells[-1].outputs) and "b 5" in (odd / "build" / "custom" / "02_b.log").read_text()


@pytest.mark.notebook
def test_a_failure_stops_and_shows_its_cell(folder, tmp_path):
    write(folder, "02_b", "print('so far')", "raise RuntimeError('on purpose')")
    results = run(tmp_path)
    assert [r.status for r in results] == ["not reached", "failed"]
    assert "cell [4] with RuntimeError: on purpose" in results[1].error and "raise RuntimeError" in results[1].error
    partial = nbformat.read(tmp_path / "build" / "quick" / "02_b.ipynb", as_version=4)
    assert any("so far" in str(cell.get("outputs")) for cell in partial.cells)
    write(folder, "02_b", "import os; os._exit(1)")
    dead = run(tmp_path)[1]
    assert dead.status == "failed" and "02_b stopped" in dead.error


def test_several_at_a_time_end_whatever_becomes_of_one(folder, tmp_path, monkeypatch):
    """Without kernels, on more cores than notebooks, where each could start processes of its own."""
    monkeypatch.setattr(pipeline, "cores", lambda: 4)
    write(folder, "01_a", TRAINED.format(name="01_a"))
    write(folder, "02_b", "raise RuntimeError('on purpose')")
    results = run(tmp_path, jobs=2, kernel=False)
    assert [r.status for r in results] == ["executed", "failed"] and "on purpose" in results[1].error
    write(folder, "02_b", "import os; os._exit(1)")
    results = run(tmp_path, jobs=2, kernel=False)
    assert "failed: its process died" in results[1].error and {r.status for r in results} <= {"failed", "executed"}


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_what_runs_side_by_side_ends_with_what_began_it(folder, tmp_path):
    here = "import os, pathlib, time\npathlib.Path({!r}).write_text(str(os.getpid()))\ntime.sleep(300)"
    pids = [tmp_path / f"{name}.pid" for name in ("01_a", "02_b")]
    for pid in pids:
        write(folder, pid.stem, here.format(str(pid)))
    code = (
        "import pathlib\nfrom saliency_lib.book import pipeline\n"
        "if __name__ == '__main__':\n"
        "    values = pipeline.settings('quick', pipeline.select(None), {})\n"
        f"    pipeline.run(values, pathlib.Path({str(tmp_path / 'build')!r}), jobs=2, kernel=False)\n"
    )
    (tmp_path / "begin.py").write_text(code)
    with subprocess.Popen([sys.executable, str(tmp_path / "begin.py")]) as first:
        within(120, lambda: all(pid.exists() and pid.read_text() for pid in pids))
        first.kill()
    for pid in pids:
        within(20, lambda pid=pid: not running(int(pid.read_text())))


def within(seconds, condition):
    """Wait for it; fails where it does not come in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def running(pid):
    """Whether it is at work; who has ended and has nobody to ask for it is not."""
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_without_a_kernel_the_same_figures_are_made(folder, quick_kernel, tmp_path):
    by_kernel = run(tmp_path)[0].figures
    figure = tmp_path / "figures" / "quick" / "01_one.json"
    numbers = json.loads(figure.read_text())["numbers"]
    figure.write_text("{}")
    (tmp_path / "figures" / "quick" / "01_old.json").write_text("{}")
    here = run(tmp_path / "plain", kernel=False)
    assert [(r.status, r.figures) for r in here] == [("executed", by_kernel), ("executed", [])]
    assert json.loads(figure.read_text())["numbers"] == numbers == {"n": 2}
    assert not figure.with_name("01_old.json").exists(), "a figure that is no longer made goes"
    build = tmp_path / "plain" / "build" / "quick"
    assert "b 1" in (build / "02_b.log").read_text() and not list(build.glob("*.ipynb"))
    assert run(tmp_path / "plain", kernel=False)[0].status == "executed", "nothing says what it was made from"


def test_what_fails_without_a_kernel_is_shown(folder, tmp_path):
    write(folder, "02_b", "x = 1", "def f(x):\n    return [][x]", "f(x)")
    failed = run(tmp_path, kernel=False)[1]
    assert failed.status == "failed" and failed.error.startswith("02_b failed with IndexError: list index out of range")
    assert "<02_b, piece 4>" in failed.error and "return [][x]" in failed.error and "02_b.log" in failed.error


def test_a_script_needs_no_jupyter(folder, tmp_path):
    code = (
        "import sys\n"
        "for name in ('papermill', 'nbformat', 'nbclient', 'jupyter_client', 'ipykernel'): sys.modules[name] = None\n"
        "import pathlib\nfrom saliency_lib.book import pipeline\n"
        "values = pipeline.settings('quick', pipeline.select(None), {})\n"
        f"for result in pipeline.run(values, pathlib.Path({str(tmp_path / 'build')!r}), jobs=1, kernel=False):\n"
        "    sys.stdout.write(f'{result.status} {result.error}\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["executed", "executed"], done.stdout + done.stderr


def test_solutions_are_no_part_of_the_script(folder):
    write(folder, "02_b", "x = n", "x = 3")
    book = nbformat.read(folder / "02_b.ipynb", as_version=4)
    book.cells[2].metadata["tags"] = ["solution"]
    nbformat.write(book, folder / "02_b.ipynb")
    variables = script.run("02_b", {"n": 7, "profile": "custom"})
    assert (variables["x"], variables["n"], variables["profile"]) == (7, 7, "custom")


def test_choosing_notebooks_and_parameters(folder):
    assert pipeline.select(["2"]) == ["02_b"] and pipeline.select(["02", "01_a"]) == ["01_a", "02_b"]
    with pytest.raises(ValueError, match="no notebook '07'; there are 01_a, 02_b"):
        pipeline.select(["07"])
    with pytest.raises(ValueError, match="--set m: no parameter of 01_a; they have n, profile"):
        pipeline.settings("quick", ["01_a"], {"m": 1})
    with pytest.raises(ValueError, match="n='many' of 01_a should be int, like its default 1"):
        pipeline.settings("quick", ["01_a"], {"n": "many"})
    with pytest.raises(ValueError, match="unknown profile 'slow'; one of \\['quick'\\]"):
        pipeline.settings("slow", ["01_a"], {})


@pytest.mark.parametrize(
    "content,message",
    [
        ("03_c: {}", "do not exist: 03_c"),
        ("01_a: {m: 1}", "01_a has no parameter 'm'; it has profile, n"),
        ("01_a: {n: x}", "should be int"),
    ],
)
def test_profiles_are_checked(folder, content, message):
    (folder / "profiles" / "quick.yaml").write_text(content)
    with pytest.raises(ValueError, match=message):
        profiles.load("quick")


@pytest.mark.parametrize("cell,message", [("n = len('x')", "malformed"), ("import os", "more than assignments")])
def test_parameters_are_literals_in_one_cell(folder, cell, message):
    write(folder, "02_b")
    book = nbformat.read(folder / "02_b.ipynb", as_version=4)
    book.cells[0].source = cell
    nbformat.write(book, folder / "02_b.ipynb")
    with pytest.raises(ValueError, match=message):
        profiles.parameters("02_b")
    book.cells = []
    nbformat.write(book, folder / "02_b.ipynb")
    with pytest.raises(ValueError, match="0 cells tagged 'parameters'"):
        profiles.parameters("02_b")


def test_ensembles_have_names(folder, tmp_path):
    """What a notebook says goes before the profile, that before quick; what an ensemble does not say, main says."""
    (folder / "profiles" / "quick.yaml").write_text("""
ensembles:
  main: {dataset: digits, model: cnn, n_members: 8, epochs: 3, n_train: null}
  control: {n_members: 2, schedule: sgd_step}
  tiny: {dataset: digits, model: convnet-w2-d1-max}
""")
    (folder / "profiles" / "small.yaml").write_text("""
ensembles: {main: {n_members: 4}, control: {lr: 1}}
01_a: {main: {dataset: mnist}, control: {n_members: 3}}
""")
    write(folder, "01_a")
    book = nbformat.read(folder / "01_a.ipynb", as_version=4)
    book.cells[0].source += "\nseed = 7\nmain = None\ncontrol = None\ntiny = None"
    nbformat.write(book, folder / "01_a.ipynb")
    main = {"dataset": "mnist", "model": "cnn", "n_members": 4, "epochs": 3, "n_train": None}
    control = main | {"n_members": 3, "schedule": "sgd_step", "lr": 1}
    tiny = {"dataset": "digits", "model": "convnet-w2-d1-max"}
    values = {"profile": "small", "n": 1, "seed": 7, "main": main, "control": control, "tiny": tiny}
    assert profiles.load("small") == {"01_a": values, "02_b": {"profile": "small", "n": 1}}
    assert profiles.parameters("01_a")["main"] is None, "the notebook's own stay as they are"

    changes = {"main": {"epochs": 5, "n_members": 6}, "control": {"dataset": "cdigits"}}
    changed = pipeline.settings("small", ["01_a"], changes)["01_a"]
    assert changed["profile"] == "custom" and changed["tiny"] == tiny
    assert changed["main"] == main | changes["main"], "the profile's other fields stay"
    assert changed["control"] == control | {"epochs": 5, "dataset": "cdigits"}

    run = plotting.start("01_a", {**profiles.parameters("01_a"), "profile": "mine", "main": {"epochs": 1}})
    assert run.parameters["main"] == main | {"dataset": "digits", "n_members": 8, "epochs": 1}
    spec = run.spec("control", {"seed": 8, "label_seed": 3})
    assert spec == EnsembleSpec("digits", "cnn", 2, Recipe("sgd_step", epochs=1, label_seed=3), seed=8)
    assert run.spec("tiny").seed == 7
    with pytest.raises(ValueError, match="tiny.epoch: ensembles have no such field; they have dataset, model,"):
        run.spec("tiny", {"epoch": 1})


def test_an_executor_goes_to_every_notebook_and_makes_none_stale():
    chosen = pipeline.select(None)
    own, given = (pipeline.settings("smoke", chosen, {}, executor) for executor in (None, "tcp://host:8786"))
    assert [values["executor"] for values in given.values()] == ["tcp://host:8786"] * len(chosen)
    for name in chosen[:2]:
        assert pipeline.fingerprint(name, own[name]) == pipeline.fingerprint(name, given[name])
        assert {k: v for k, v in given[name].items() if k != "executor"} == {
            k: v for k, v in own[name].items() if k != "executor"
        }
    with pytest.raises(ValueError, match="unknown executor 'cluster'; one of .* such as tcp://host:8786"):
        pipeline.settings("smoke", chosen, {}, "cluster")


def test_a_notebook_hangs_on_captions_and_readings_but_not_on_tables_of_the_users(tmp_path, monkeypatch):
    name, own = "01_train_ensembles", profiles.load("quick")["01_train_ensembles"]
    (tmp_path / "data" / "published").mkdir(parents=True)
    for table in ("figures.csv", "readings.csv", "published/claims.csv"):
        (tmp_path / "data" / table).write_text("a\n")
    monkeypatch.setattr(pipeline, "SHARED", tmp_path)
    seen = [pipeline.fingerprint(name, own)]
    (tmp_path / "data" / "mine.csv").write_bytes(b"\xff\xfe")
    assert pipeline.fingerprint(name, own) == seen[0]
    for table in ("figures.csv", "readings.csv", "published/claims.csv"):
        (tmp_path / "data" / table).write_text("b\n")
        seen.append(pipeline.fingerprint(name, own))
    assert len(set(seen)) == 4
