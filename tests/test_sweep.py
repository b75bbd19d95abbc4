"""Rows of a sweep are what measuring by hand gives, are measured once, and their effects have known answers."""

import csv
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from saliency_lib import controls, ensembles, snr, sweep
from saliency_lib.ensembles import EnsembleSpec
from saliency_lib.estimates import Estimate
from saliency_lib.training import Recipe, default_device


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("SALIENCY_STORE", str(tmp_path))
    return tmp_path


def cell(width, depth=1, n_members=3):
    model = f"convnet-w{width}-d{depth}-max"
    recipe = Recipe(epochs=1, batch_size=64, **sweep.fastest(model, 8))
    return {"width": width}, EnsembleSpec("digits", model, n_members, recipe, n_train=120, n_val=40)


def test_a_row_is_the_measurement_of_its_ensemble():
    recipe = Recipe(epochs=10, batch_size=32, **sweep.fastest("convnet-w16-d1-none", 8))
    spec = EnsembleSpec("digits", "convnet-w16-d1-none", 4, recipe, n_train=300, n_val=40)
    row = sweep.measure(spec, 16)
    _, val = ensembles.splits(spec)
    found = snr.measure("input_gradient", ensembles.get(spec), val.inputs()[:16], val.labels[:16])
    assert row["debiased"] == found.debiased() and row["snr"] == found.estimate(snr.plugin_mean)
    assert row["images"] == 16 and row["clipped"] == found.clipped
    assert row["accuracy"].value == pytest.approx(np.mean(ensembles.get(spec).accuracies))
    joint = sweep.contrast({"a": row}, lambda power: sweep.log_snr(power["a"]), 4)
    assert 1 < joint.value == pytest.approx(row["debiased"].value), "power is there for joint statistics"


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_a_sweep_goes_on_where_it_was_stopped(executor, own_store):
    cells = [cell(2), cell(3), cell(4)]
    first, known = sweep.run("trial", cells[:2], 8, executor)
    assert known == 0
    files = {path: path.stat().st_mtime_ns for path in own_store.rglob("member-*.safetensors")}
    rows, known = sweep.run("trial", cells, 8, executor)
    assert known == 2 and rows[:2] == first
    assert all(path.stat().st_mtime_ns == time for path, time in files.items()), "nothing is trained twice"
    with (own_store / "rows" / "trial.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert sorted(row["width"] for row in table) == ["2", "3", "4"]
    assert {float(row["snr"]) for row in table} == {row["snr"].value for row in rows}


def test_a_failing_cell_keeps_the_others(monkeypatch):
    measure = sweep.measure

    def fails(spec, n_images):
        if "-w3-" in spec.model:
            raise RuntimeError("no power")
        return measure(spec, n_images)

    monkeypatch.setattr(sweep, "measure", fails)
    with pytest.raises(RuntimeError, match="no power"):
        sweep.run("trial", [cell(2), cell(3), cell(4)], 8)
    monkeypatch.setattr(sweep, "measure", measure)
    assert sweep.run("trial", [cell(2), cell(3), cell(4)], 8)[1] == 1


def test_rows_depend_on_the_number_of_images_and_members():
    assert sweep.run("trial", [cell(2)], 8)[1] == 0
    assert sweep.run("trial", [cell(2)], 9)[1] == 0
    assert sweep.run("trial", [cell(2, n_members=2)], 8)[1] == 0
    assert sweep.run("trial", [cell(2)], 8)[1] == 1
    (row,), known = sweep.run("trial", [cell(2)], None)
    assert known == 0 and row["images"] == 40


def made(value, jitter=0.0, members=8, seed=0):
    """A row with a known squared SNR, and parts that scatter around it."""
    noise = np.random.default_rng(seed).normal(0, jitter, members)
    return controls.with_parts("power", [value**2, *(value**2 * np.exp(noise))])


def test_effects_of_known_rows():
    rows = {name: made(value) for name, value in {"a": 2.0, "b": 8.0, "c": 1.0, "d": 2.0}.items()}
    assert sweep.effect(rows, ["a", "b"], ["c", "d"], 8) == pytest.approx((math.sqrt(8),) * 3)
    assert sweep.effect(rows, ["a", "b"], [], 8).value == pytest.approx(4)
    line = {w: made(3 * w**0.4) for w in (4, 8, 32)}
    assert sweep.exponent(line, [{w: w for w in line}], 8) == pytest.approx((0.4,) * 3)
    flat = {w: made(5.0) for w in (4, 8)}
    rows = {("up", w): row for w, row in line.items()} | {("flat", w): row for w, row in flat.items()}
    lines = [{w: ("up", w) for w in line}, {w: ("flat", w) for w in flat}]
    assert sweep.exponent(rows, lines, 8).value == pytest.approx(0.2)


def test_the_interval_of_an_effect_is_the_jackknife_of_its_logarithm():
    rows = {"a": made(2.0, 0.1, seed=1), "b": made(1.0, 0.1, seed=2)}
    value, low, high = sweep.effect(rows, ["a"], ["b"], 8)
    logs = np.array([np.log(rows["a"][f"power without {k}"] / rows["b"][f"power without {k}"]) / 2 for k in range(8)])
    pseudo = 8 * math.log(2) - 7 * logs
    half = 2.3646 * math.sqrt(np.sum((pseudo - (8 * math.log(2) - 7 * logs.mean())) ** 2) / 8 / 7)
    assert (math.log(high) - math.log(low)) / 2 == pytest.approx(half, rel=1e-3) and value == pytest.approx(2)


def test_noise_without_signal_gives_no_effect_and_no_crash():
    rows = {"a": made(2.0), "b": controls.with_parts("power", [-0.1] * 9)}
    for estimate in (sweep.effect(rows, ["a"], ["b"], 8), sweep.exponent(rows, [{4: "a", 8: "b"}], 8)):
        assert math.isnan(estimate.value) and estimate[1:] == (-math.inf, math.inf)
    assert isinstance(sweep.effect(rows, ["a"], [], 8), Estimate)


TABLE = Path(__file__).parent / "benchmarks" / "joint_training.csv"


def measured():
    with TABLE.open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["device"] == "cpu" and row["executor"] == "processes"]


@pytest.mark.parametrize("size", [8, 28])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("pool", ["none", "max", "avg"])
@pytest.mark.parametrize("width", [4, 8, 16, 32, 64])
def test_the_way_that_is_fixed_is_about_the_fastest_that_was_measured(size, depth, pool, width):
    fixed = sweep.fastest(f"convnet-w{width}-d{depth}-{pool}", size, "cpu")
    way = ("stacked" if fixed["together"] > 1 else "loop", "channels_last" if fixed["channels_last"] else "contiguous")
    here = [
        r
        for r in measured()
        if (r["size"], r["depth"], r["pool"], r["width"]) == tuple(map(str, (size, depth, pool, width)))
    ]
    times = {(row["way"], row["layout"]): float(row["ms"]) for row in here}
    assert len(times) == 4 and times[way] <= 1.25 * min(times.values())


def test_nothing_is_fixed_for_a_device_that_was_not_measured():
    assert sweep.fastest("convnet-w4-d1-max", 8, "cuda") == {"device": "cuda"}
    assert sweep.fastest("convnet-w4-d1-max", 8)["device"] == default_device()
    with pytest.raises(ValueError, match="only convnets were measured, such as convnet-w16-d2-max, not 'resnet18'"):
        sweep.fastest("resnet18", 32)


def test_networks_trained_side_by_side_have_the_saliency_of_those_trained_alone():
    _, joint = cell(4, depth=2, n_members=4)
    alone = EnsembleSpec("digits", joint.model, 4, Recipe(epochs=1, batch_size=64), n_train=120, n_val=40)
    assert joint.recipe.together > 1 and alone.recipe.together == 1
    maps = partial(snr.member_maps, "input_gradient")
    _, val = ensembles.splits(joint)
    one, other = (maps(ensembles.get(s), val.inputs()[:8], val.labels[:8]) for s in (joint, alone))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
