"""``check`` finds what moved, and only that."""

import copy
import json

import pytest

from saliency_lib.book.compare import compare, flatten

BASE = {
    "numbers": {
        "snr": {"value": 0.6, "low": 0.5, "high": 0.7},
        "exact": 7.07107,
        "n": 8,
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
    return compare(tmp_path / "old", tmp_path / "new")


@pytest.mark.parametrize(
    "change,moved",
    [
        (lambda c: None, None),
        (lambda c: c["numbers"]["snr"].update(value=0.85), None),  # within 2 * hypot(0.1, 0.1) = 0.283
        (lambda c: c["numbers"]["snr"].update(value=0.9), "snr moved from 0.6"),
        (lambda c: c["numbers"].update(exact=7.0711), None),
        (lambda c: c["numbers"].update(exact=7.08), "exact moved from 7.07107 to 7.08"),
        (lambda c: c["numbers"].update(n=9), "n moved from 8 to 9"),
        (lambda c: c["numbers"]["open"].update(value=99.0), None),
        (lambda c: c["numbers"]["nested"]["a"][0].update(value=2.0), "nested.a moved"),
        (lambda c: c["numbers"].pop("n"), "n is gone"),
        (lambda c: c["numbers"].update(m=1), "m is new"),
        (lambda c: c["verdicts"][0].update(verdict="cannot tell"), None),
        (lambda c: c["verdicts"][0].update(verdict="differs"), "verdict on W01 moved from agrees to differs"),
    ],
)
def test_compare(tmp_path, change, moved):
    lines, count = compared(tmp_path, change)
    assert count >= 5
    assert lines == [] if moved is None else len(lines) == 1 and moved in lines[0]


def test_a_new_figure_is_reported(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "02_x.json").write_text(json.dumps(BASE))
    assert compare(tmp_path, tmp_path / "new")[0] == ["02_x: no committed numbers to compare with"]


def test_an_estimate_is_one_number():
    assert set(flatten(BASE["numbers"])) == {"snr", "exact", "n", "open", "nested.a"}
