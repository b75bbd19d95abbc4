"""Rows of the papers' tables within a budget of seconds."""

import csv
import itertools
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from saliency_lib import __main__ as cli
from saliency_lib import ensembles
from saliency_lib.book import plan, profiles
from saliency_lib.runtime import deadline

TINY = {
    "dataset": "photodigits", "size": None, "model": "resnet_small", "n_members": 3, "n_train": 64, "n_val": 32,
    "epochs": 2, "batch_size": 32, "n_eval": 4,
}  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    for name in ("STORE", "FIGURES", "RESULTS"):
        monkeypatch.setenv(f"SALIENCY_{name}", str(tmp_path / name.lower()))
    monkeypatch.setenv("SALIENCY_PROCESSES", "1")
    return tmp_path


def rows(tmp_path):
    return plan.read(tmp_path / "figures" / "custom" / "rows.csv")


def test_the_plan_is_in_the_order_of_what_it_tells():
    steps = list(plan.plan())
    folders = [folder for folder, _ in itertools.groupby(step.folder for step in steps)]
    assert folders[:2] == ["imagenette-resnet18", "cifar10-resnet18"] and folders[-1] == "fashion_mnist-convnet"
    assert [step.fields["n_members"] for step in steps[:3]] == [4, 8, 30]
    assert [step.arm[:1] for step in steps[3:7]] == list("ABCD")
    for step in steps:
        spec = profiles.spec(step.folder, dict(step.fields) | {"snapshots": 0})
        assert spec.n_train is None and spec.n_val is None, "all images"
        assert step.folder.startswith(spec.dataset)
        assert set(step.rows) <= set(plan.TABLE_1)
    deep = {step.fields["model"] for step in steps if step.notebook == "04"}
    assert len(deep) == 6 * 4 * 2


def test_rows_are_kept_as_they_are_made_and_not_made_again(elsewhere, monkeypatch):
    steps = list(plan.plan())[:4]
    monkeypatch.setattr(plan, "plan", lambda: iter([replace(steps[0], rows=plan.THREE), steps[3]]))
    said = []
    closing = plan.run(600, TINY, [], said.append)
    found = rows(elsewhere)
    assert closing == f"all is measured, {len(said)} rows of it now" and len(said) == len(found) == 3 + 2 * 3
    assert {row["epoch"] for row in found} == {"1", "2"} and {row["method"] for row in found} == set(plan.THREE)
    for row in found:
        assert float(row["low"]) <= float(row["snr"]) <= float(row["high"]) and row["images"] == "4"
        assert 0 <= float(row["accuracy"]) <= 1 and row["torch"] == torch.__version__ and "photodigits" in row["data"]
    assert plan.run(600, TINY, [], said.append) == "all is measured, 0 rows of it now"
    assert rows(elsewhere) == found
    assert plan.run(600, TINY, ["04"], said.append) == "all is measured, 0 rows of it now"


def test_a_spent_budget_loses_nothing(elsewhere, monkeypatch):
    step = replace(next(plan.plan()), rows=plan.GRADIENT)
    monkeypatch.setattr(plan, "plan", lambda: iter([step]))
    spec = profiles.spec("x", dict(step.fields) | {"snapshots": 0} | {k: v for k, v in TINY.items() if k != "n_eval"})
    looks = itertools.count()
    with monkeypatch.context() as patch:
        patch.setattr(deadline, "passed", lambda: next(looks) > 6)  # in the training of a later member
        closing = plan.run(600, TINY, [], print)
    assert "call again" in closing and not rows(elsewhere)
    folder = ensembles.files.folder_of(spec)
    done = {path.name: path.stat().st_mtime_ns for path in folder.glob("member-*")}
    assert 0 < len(done) < 3 and list(folder.glob(".training-*")), "one is done, and the state of the next is kept"
    plan.run(600, TINY, [], print)
    assert len(rows(elsewhere)) == 1 and not list(folder.glob(".training-*"))
    assert all((folder / name).stat().st_mtime_ns == at for name, at in done.items()), "not trained again"


WITHOUT = """
import sys
for name in ("papermill", "nbformat", "nbclient", "ipykernel", "jupyterlab", "ipywidgets", "dask"):
    sys.modules[name] = None
from saliency_lib.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_from_the_command_line_without_jupyter(elsewhere):
    words = [f"{name}={'null' if value is None else value}" for name, value in TINY.items()]
    options = [word for change in words for word in ("--set", change)]
    command = [sys.executable, "-c", WITHOUT, "--profile", "paper", "--only", "03", "--budget", "0.001", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "the budget of 0.001 s is spent, with 0 new rows; call again" in done.stdout


def test_fewer_images_alone_are_a_change_too(elsewhere, monkeypatch):
    step = replace(
        next(plan.plan()), fields=dict(next(plan.plan()).fields) | {k: TINY[k] for k in TINY if k != "n_eval"}
    )
    monkeypatch.setattr(plan, "plan", lambda: iter([replace(step, rows=plan.GRADIENT)]))
    plan.run(600, {"n_eval": 4}, [], print)
    assert len(rows(elsewhere)) == 1 and not (elsewhere / "figures" / step.folder).exists()


@pytest.mark.parametrize(
    "options,says",
    [(["--profile", "quick", "--budget", "9"], "paper"), (["--profile", "paper", "--budget", "0"], "above zero")],
)
def test_a_budget_of_something_else_is_told(options, says, capsys):
    assert cli.main(options) == 2 and says in capsys.readouterr().out


def test_a_table_is_whole_at_any_moment(tmp_path):
    for k in range(3):
        plan.append(tmp_path / "rows.csv", {"a": k, "b": "x, y"})
    with (tmp_path / "rows.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"a": str(k), "b": "x, y"} for k in range(3)]
