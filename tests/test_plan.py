"""Rows of the papers' tables within a budget of seconds."""

import copy
import csv
import itertools
import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from saliency_lib import __main__ as cli
from saliency_lib import attribution, controls, data, ensembles, models
from saliency_lib.book import arms, asked, measured, pipeline, plan, profiles
from saliency_lib.runtime import deadline
from saliency_lib.runtime.seeds import seeded

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
    return measured.read(tmp_path / "figures" / "custom" / "rows.csv")


def test_the_plan_is_in_the_order_of_what_it_tells():
    steps = list(plan.paper())
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


def test_what_two_cores_reach_asks_the_same_networks_otherwise():
    headline, *steps = plan.paper_cpu()
    assert headline.folder == "imagenette-resnet18" and headline.fields["n_members"] == 3
    assert [step.folder for step in steps] == ["cifar10-resnet18"] * 4 + ["imagenette-resnet18"] * 2
    assert steps[0].otherwise == ("", *asked.OTHERWISE) and steps[0].fields == steps[1].fields
    assert [step.arm[:1] for step in steps[2:4]] == list("AB") and set(steps[2].rows) == set(plan.THREE)
    recipes = [profiles.spec("x", dict(step.fields) | {"snapshots": 0}).recipe for step in steps]
    assert [recipe.augment for recipe in recipes[:4]] == ["flip_crop"] * 2 + ["none", "flip_crop"]
    assert recipes[-1].lr == 0.01 and recipes[-1].schedule == "adam_onecycle", "as in Woerl et al."
    main = profiles.load("imagenette-cpu")["03_compare_methods"]["main"]
    assert all(
        profiles.spec("main", main | {"seed": 0}).key == profiles.spec("x", dict(step.fields)).key
        for step in (headline, *steps[4:])
    )


@pytest.mark.parametrize("name", ["input_gradient", "gradcam"])
def test_asked_otherwise(name, monkeypatch):
    method = attribution.METHODS[name].function
    with seeded(0):
        model = models.build("resnet_small", 4).double().eval()
        x = torch.randn(6, 3, 32, 32, dtype=torch.float64)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    y = torch.arange(6) % 4
    said = model(x).argmax(1)
    maps = {way: asked.asked(method, way)(model, x, y, seed=0, batch_size=2) for way in ("", *asked.OTHERWISE)}
    assert torch.equal(maps["predicted class"], method(model, x, said)) and torch.equal(maps[""], method(model, x, y))
    assert torch.equal(maps["training images"], maps[""])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items()) and not model.training
    each = sum(method(model, x, torch.full_like(y, k)) for k in range(4))
    torch.testing.assert_close(maps["sum of logits"], each)
    if name == "input_gradient":
        leaf = x.clone().requires_grad_()
        logits = copy.deepcopy(model).train()(leaf).gather(1, y[:, None]).sum()
        torch.testing.assert_close(maps["batch statistics"], torch.autograd.grad(logits, leaf)[0].float())
        monkeypatch.setattr(asked, "BATCH", 3)
        options = {"seed": 0, "batch_size": None}
        halves = asked.asked(method, "batch statistics")(model, x, y, **options)
        each = [
            asked.asked(method, "batch statistics")(model, *part, **options) for part in zip(x.split(3), y.split(3))
        ]
        torch.testing.assert_close(halves, torch.cat(each))
        assert (halves - maps["batch statistics"]).abs().max() > 1e-6
    else:
        assert (maps["batch statistics"] - maps[""]).abs().max() > 1e-6


def test_rows_are_asked_otherwise_and_drawn(elsewhere, monkeypatch):
    step = replace(list(plan.paper_cpu())[1], rows={"input_gradient": ({}, 4), "gradcam mid": ({"layer": "mid"}, 4)})
    arm = replace(list(plan.paper_cpu())[3], rows=step.rows)
    monkeypatch.setitem(plan.PLANS, "paper-cpu", lambda: iter([step, arm]))
    plan.run("paper-cpu", 600, TINY, [], print)
    found = rows(elsewhere)
    assert [row["asked"] for row in found[::2]] == ["", *asked.OTHERWISE, "", ""]
    snr = {row["asked"]: row["snr"] for row in found[:10:2]}
    assert len(set(snr.values())) == len(snr), "another question, another number"
    monkeypatch.setenv("SALIENCY_FIGURES", str(elsewhere))
    (elsewhere / arms.FOLDER).mkdir()
    table = elsewhere / "figures" / "custom" / measured.FILE
    shutil.copy(table, elsewhere / arms.FOLDER)
    assert not arms.fresh(elsewhere) and arms.draw(elsewhere).exists() and arms.fresh(elsewhere)
    content = json.loads((elsewhere / arms.FOLDER / f"{arms.NAME}.json").read_text())
    kept = content["numbers"][plan.AS_BEFORE]["epoch 2"]["input_gradient, sum of logits"]["value"]
    assert f"{kept:.4f}" == next(row for row in found if row["asked"] == "sum of logits")["corrected"]
    mid = controls.inflation(float(found[1]["independent"]), 30)
    assert content["numbers"]["paper"]["gradcam mid"] == pytest.approx(((1.112 / mid) ** 2 - 1 / 30) ** 0.5, rel=1e-5)
    assert (elsewhere / arms.FOLDER / f"{arms.NAME}.png").stat().st_size > 10_000
    parameters = {"profile": arms.FOLDER}
    assert not pipeline._figures("03_compare_methods", parameters), "of no notebook, so a run of 03 removes none"
    lines = list(measured.lines(table))
    assert len(lines) == len(found) and all(len(line) == len(measured.HEAD) for line in lines)
    assert lines[4][3] == "input_gradient, sum of logits" and lines[0][7] == "–", "the paper has no photodigits"
    assert [bool(row["independent"]) for row in found] == [row["method"] == "gradcam mid" for row in found]


def test_the_papers_number_beside_a_row():
    row = {"network": "imagenette-resnet18-13b6fd8dd467", "method": "gradcam top"}
    assert measured.of_paper(row) == pytest.approx((2.363**2 - 1 / 30) ** 0.5)
    assert measured.of_paper(row | {"method": "lime 25 segments"}) == pytest.approx((0.997**2 - 1 / 30) ** 0.5)
    assert measured.of_paper(row | {"network": "fashion_mnist-convnet-w4-d1-none-0"}) is None


def test_few_networks_of_one_pixel_are_told_from_a_high_ratio():
    plain = {"members": "4", "snr": "2", "low": "1", "high": "3"} | {
        f"corrected{end}": str((snr**2 - 0.25) ** 0.5) for end, snr in (("", 2), (" low", 1), (" high", 3))
    }
    assert measured.corrected(plain) == measured.corrected(plain | {"independent": ""})
    assert measured.corrected(plain)[:3] == pytest.approx([(snr**2 - 0.25) ** 0.5 for snr in (2, 1, 3)])
    alone = measured.corrected(plain | {"independent": "1"})
    excess = 2 * (1.5 / math.pi) ** 0.5  # of a deviation of three degrees of freedom
    assert alone[:3] == pytest.approx([((snr / excess) ** 2 - 0.25) ** 0.5 for snr in (2, 1, 3)])
    row = {"network": "cifar10-resnet18-0", "method": "gradcam top", "independent": "1"}
    assert measured.of_paper(row) < measured.of_paper(row | {"independent": ""})


def test_rows_are_kept_as_they_are_made_and_not_made_again(elsewhere, monkeypatch):
    steps = list(plan.paper())[:4]
    monkeypatch.setitem(plan.PLANS, "paper", lambda: iter([replace(steps[0], rows=plan.THREE), steps[3]]))
    said = []
    closing = plan.run("paper", 600, TINY, [], said.append)
    found = rows(elsewhere)
    assert closing == f"all is measured, {len(said)} rows of it now" and len(said) == len(found) == 3 + 2 * 3
    assert {row["epoch"] for row in found} == {"1", "2"} and {row["method"] for row in found} == set(plan.THREE)
    for row in found:
        assert float(row["low"]) <= float(row["snr"]) <= float(row["high"]) and row["images"] == "4"
        assert 0 <= float(row["accuracy"]) <= 1 and row["torch"] == torch.__version__ and "photodigits" in row["data"]
    assert plan.run("paper", 600, TINY, [], said.append) == "all is measured, 0 rows of it now"
    assert rows(elsewhere) == found
    assert plan.run("paper", 600, TINY, ["08"], said.append) == "all is measured, 0 rows of it now"


def test_a_spent_budget_loses_nothing(elsewhere, monkeypatch):
    step = replace(next(plan.paper()), rows=plan.GRADIENT)
    monkeypatch.setitem(plan.PLANS, "paper", lambda: iter([step]))
    spec = profiles.spec("x", dict(step.fields) | {"snapshots": 0} | {k: v for k, v in TINY.items() if k != "n_eval"})
    looks = itertools.count()
    with monkeypatch.context() as patch:
        patch.setattr(deadline, "passed", lambda: next(looks) > 6)  # in the training of a later member
        closing = plan.run("paper", 600, TINY, [], print)
    assert "call again" in closing and not rows(elsewhere)
    folder = ensembles.files.folder_of(spec)
    done = {path.name: path.stat().st_mtime_ns for path in folder.glob("member-*")}
    assert 0 < len(done) < 3 and list(folder.glob(".training-*")), "one is done, and the state of the next is kept"
    plan.run("paper", 600, TINY, [], print)
    assert len(rows(elsewhere)) == 1 and not list(folder.glob(".training-*"))
    assert all((folder / name).stat().st_mtime_ns == at for name, at in done.items()), "not trained again"


def test_a_row_that_the_budget_ends_in_goes_on(elsewhere, monkeypatch):
    steps = [replace(next(plan.paper()), rows=some) for some in (plan.GRADIENT, {"lime": ({"n_samples": 20}, 100)})]
    monkeypatch.setitem(plan.PLANS, "paper", lambda: iter(steps[:1]))
    plan.run("paper", 600, TINY, [], print)  # trains the networks
    monkeypatch.setitem(plan.PLANS, "paper", lambda: iter(steps[1:]))
    before, looks = set((elsewhere / "results").glob("measure-*.pickle")), itertools.count()
    with monkeypatch.context() as patch:
        patch.setattr(deadline, "passed", lambda: next(looks) > 6)  # at the first network of the third part
        assert "call again" in plan.run("paper", 600, TINY | {"n_eval": 25}, [], print)
    kept = {path: path.stat().st_mtime_ns for path in set((elsewhere / "results").glob("measure-*.pickle")) - before}
    assert len(kept) == 2 and len(rows(elsewhere)) == 1
    plan.run("paper", 600, TINY | {"n_eval": 25}, [], print)
    assert len(set((elsewhere / "results").glob("measure-*.pickle")) - before) == plan.PARTS
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items()), "not measured again"
    assert [row["images"] for row in rows(elsewhere)] == ["4", "25"]


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
        next(plan.paper()), fields=dict(next(plan.paper()).fields) | {k: TINY[k] for k in TINY if k != "n_eval"}
    )
    monkeypatch.setitem(plan.PLANS, "paper", lambda: iter([replace(step, rows=plan.GRADIENT)]))
    plan.run("paper", 600, {"n_eval": 4}, [], print)
    assert len(rows(elsewhere)) == 1 and not (elsewhere / "figures" / step.folder).exists()


def test_every_row_of_the_papers_table(elsewhere, monkeypatch):
    step = replace(next(plan.paper()), rows=plan.TABLE_1)
    monkeypatch.setitem(plan.PLANS, "paper", lambda: iter([step]))
    references, measure = [], plan.snr.measure

    def noted(method, *args, **options):
        references.append(method.keywords.get("references"))
        return measure(method, *args, **options)

    monkeypatch.setattr(plan.snr, "measure", noted)
    plan.run("paper", 600, TINY | {"n_eval": 2, "n_train": 32, "epochs": 1}, [], print)
    found = {row["method"]: float(row["snr"]) for row in rows(elsewhere)}
    assert list(found) == list(plan.TABLE_1) and all(value > 0 for value in found.values())
    train = data.load("photodigits", "train", 20).inputs()
    assert len(references) == 2 * len(plan.TABLE_1), "each of two images is a part"
    given = {name: got for name, got in zip(plan.TABLE_1, references[::2]) if got is not None}
    assert set(given) == {"gradient_shap", "deeplift_shap"} and all(torch.equal(got, train) for got in given.values())


@pytest.mark.parametrize(
    "options,says",
    [
        (["--profile", "quick", "--budget", "9"], "paper"),
        (["--profile", "paper", "--budget", "0"], "above zero"),
        (["--profile", "paper", "--budget", "9", "--only", "05"], "rows of 03, 04, 06, 08 alone"),
        (["--profile", "paper-cpu", "--budget", "9", "--only", "06"], "rows of 03 alone"),
        (["--profile", "paper", "--budget", "9", "--only", "03", "99"], "no notebook '99'"),
        (["--profile", "paper", "--budget", "9", "--set", "n_eval=-3"], "n_eval=-3 should be a number of images"),
    ],
)
def test_a_budget_of_something_else_is_told(options, says, capsys):
    assert cli.main(options) == 2 and says in capsys.readouterr().out


def test_a_table_is_whole_at_any_moment(tmp_path):
    for k in (0, 1, 2, 1):
        measured.append(tmp_path / "rows.csv", {"a": k}, {"b": "x, y"})
    assert measured.has(tmp_path / "rows.csv", {"a": 1}) and not measured.has(tmp_path / "rows.csv", {"a": 3})
    with (tmp_path / "rows.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"a": str(k), "b": "x, y"} for k in range(3)]
