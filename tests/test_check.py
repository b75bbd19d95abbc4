"""``check`` finds what moved, and only that."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from saliency_lib.attribution import METHODS
from saliency_lib.book.compare import PAPERS_NAMES, chance, compare, flatten, renamed
from saliency_lib.book.plotting import as_json
from saliency_lib.book.results import QUICK
from saliency_lib.estimates import student

BASE = {
    "numbers": {
        "snr": {"value": 0.6, "low": 0.5, "high": 0.7},
        "exact": 7.07107,
        "n": 8,
        "few": {"value": 0.6, "low": 0.5, "high": 0.7, "df": 3},
        "open": {"value": 1.0, "low": None, "high": None},
        "nested": {"a": [{"value": 1.0, "low": 0.9, "high": 1.1}, 2]},
    },
    "verdicts": [{"claim": "W01", "verdict": "agrees"}],
}


def compared(tmp_path, change):
    new = copy.deepcopy(BASE)
    change(new)
    for name, content in (("old", BASE), ("new", new)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "02_x.json").write_text(json.dumps(content))
    return compare([(tmp_path / "old", tmp_path / "new")])


@pytest.mark.parametrize(
    "change,moved",
    [
        (lambda c: None, None),
        (lambda c: c["numbers"]["snr"].update(value=0.76, low=0.66, high=0.86), None),  # p = .027, three compared
        (lambda c: c["numbers"]["snr"].update(value=0.8, low=0.7, high=0.9), "snr from 0.6"),  # p = .0056
        (lambda c: c["numbers"]["few"].update(value=0.74, low=0.64, high=0.84), None),  # p = .020
        (lambda c: c["numbers"].update(exact=7.0711), None),
        (lambda c: c["numbers"].update(exact=7.08), "exact from 7.07107 to 7.08"),
        (lambda c: c["numbers"].update(n=9), "n from 8 to 9"),
        (lambda c: c["numbers"]["open"].update(value=99.0), None),
        (lambda c: c["numbers"]["nested"]["a"][0].update(value=2.0, low=1.9, high=2.1), "nested.a[0] from"),
        (lambda c: c["numbers"].pop("n"), "n is gone"),
        (lambda c: c["numbers"].update(m=1), "m is new"),
    ],
)
def test_compare(tmp_path, change, moved):
    found = compared(tmp_path, change)
    assert found.counts == {"estimates": 3, "without an interval": 1, "exact": 3} or moved[-4:] in ("gone", " new")
    assert not found.verdicts and found.passes == (moved is None)
    assert found.figures == [] if moved is None else len(found.figures) == 1 and moved in found.figures[0]


@pytest.mark.parametrize("verdict,passes", [("cannot tell", True), ("identity", True), ("differs", False)])
def test_verdicts_that_changed_are_listed_apart(tmp_path, verdict, passes):
    found = compared(tmp_path, lambda c: c["verdicts"][0].update(verdict=verdict))
    assert found.figures == [] and found.verdicts == [f"W01 (02_x): agrees became {verdict}"]
    assert found.passes is passes


def test_a_new_figure_is_reported(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "02_x.json").write_text(json.dumps(BASE))
    assert compare([(tmp_path, tmp_path / "new")]).figures == ["02_x: no committed numbers to compare with"]


def test_what_is_gone_is_reported(tmp_path):
    for name in ("02_x", "02_gone", "03_of_a_notebook_that_was_not_run"):
        (tmp_path / f"{name}.json").write_text(json.dumps(BASE))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "02_x.json").write_text(json.dumps(BASE | {"verdicts": []}))
    found = compare([(tmp_path, tmp_path / "new")])
    assert found.figures == ["02_gone: it is gone"] and not found.passes
    assert found.verdicts == ["W01 (02_x): agrees became no verdict"]


def test_an_estimate_is_one_number():
    assert set(flatten(BASE["numbers"])) == {"snr", "exact", "n", "few", "open", "nested.a[0]", "nested.a[1]"}


@given(st.integers(3, 20), st.integers(3, 20), st.floats(0.1, 10), st.integers(0, 10**6))
def test_the_difference_of_two_means_is_tested_as_by_welch(m, n, scale, seed):
    rng = np.random.default_rng(seed)
    one, other = rng.normal(size=m), rng.normal(0.5, scale, size=n)
    ours = chance(*(as_json(student(values)) for values in (one, other)))
    assert ours == pytest.approx(stats.ttest_ind(one, other, equal_var=False).pvalue, rel=1e-3, abs=1e-9)


def test_chance_alone_moves_nothing_in_nineteen_of_twenty_runs(tmp_path):
    rng, failed = np.random.default_rng(0), 0
    for run in range(60):
        for name in ("old", "new"):
            folder = tmp_path / f"{run}" / name
            folder.mkdir(parents=True)
            numbers = {str(k): student(rng.normal(size=8)) for k in range(100)}
            content = {"numbers": as_json(numbers), "verdicts": []}
            (folder / "02_x.json").write_text(json.dumps(content))
        failed += not compare([(tmp_path / f"{run}" / "old", tmp_path / f"{run}" / "new")]).passes
    assert failed <= stats.binom.ppf(0.999, 60, 0.05)


def planted(content, method, change):
    """The content with ``change`` in all estimates whose path names the method; how many that were."""
    content, count = copy.deepcopy(content), 0

    def visit(value, inside):
        nonlocal count
        if isinstance(value, dict) and value.keys() >= {"value", "low", "high"}:
            if inside and None not in (value["value"], value["low"], value["high"]):
                ends = sorted(change(value[name]) for name in ("low", "high"))
                value |= {"value": change(value["value"]), "low": ends[0], "high": ends[1]}
                count += 1
        elif isinstance(value, dict):
            for name, item in value.items():
                visit(item, inside or name == method)

    visit(content["numbers"], False)
    return content, count


@pytest.mark.parametrize("change", [lambda x: -x, lambda x: 1.3 * x], ids=["sign", "a factor of 1.3"])
def test_a_fault_in_all_numbers_of_a_method_is_found(tmp_path, change):
    committed = {path.name: json.loads(path.read_text()) for path in QUICK.glob("03_*.json")}
    tried = 0
    for method in METHODS:
        folder, count = tmp_path / method, 0
        folder.mkdir()
        for name, content in committed.items():
            faulty, here = planted(content, method, change)
            (folder / name).write_text(json.dumps(faulty))
            count += here
        if count > 3:
            tried += 1
            assert not compare([(QUICK, folder)]).passes, method
    assert tried > 10
    assert compare([(QUICK, QUICK)]).passes


def test_keys_are_renamed_part_by_part_and_values_stay():
    value = {"a": 1, "a, b": {"b": student([1, 2]), "ab": ["a"]}}
    assert renamed(value, {"a": "x", "b": "y"}) == {"x": 1, "x, y": {"y": student([1, 2]), "ab": ["a"]}}
    assert set(PAPERS_NAMES) - set(METHODS) == {"gradient_x_pixels"}
    assert len({*PAPERS_NAMES.values()}) == len(PAPERS_NAMES), "no two become one"


def test_of_two_estimates_the_sides_that_face_each_other_count():
    lower, upper = {"value": 0.0, "low": -9.0, "high": 3.0}, {"value": 2.0, "low": 1.0, "high": 9.0}
    expected = 2 * stats.norm.sf(2 * stats.norm.ppf(0.975) / (3**2 + 1**2) ** 0.5)
    assert chance(lower, upper) == chance(upper, lower) == pytest.approx(expected)


def test_figures_of_one_name_in_two_folders_are_both_compared(tmp_path):
    for where, value in (("old/a", 0.6), ("new/a", 9.0), ("old/b", 0.6), ("new/b", 0.6)):
        (tmp_path / where).mkdir(parents=True)
        numbers = {"snr": {"value": value, "low": value - 0.1, "high": value + 0.1}}
        (tmp_path / where / "02_x.json").write_text(json.dumps({"numbers": numbers, "verdicts": []}))
    found = compare([(tmp_path / "old" / name, tmp_path / "new" / name) for name in "ab"])
    assert len(found.figures) == 1 and found.counts["estimates"] == 2
