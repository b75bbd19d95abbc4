"""Rows that are there are not computed again, whatever stopped the last run."""

import math
import multiprocessing

import pandas as pd
import pytest

from saliency_lib.estimates import Estimate
from saliency_lib.runtime import rows
from saliency_lib.runtime.rows import Rows


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.setenv("SALIENCY_STORE", str(tmp_path))
    return lambda: Rows("test")


def made(value):
    return {
        "snr": Estimate(value, value - 0.1, value + 1 / 3),
        "share": 0.1 + 0.2,
        "open": Estimate(1, -math.inf, math.inf),
    }


def test_a_row_is_computed_once_and_comes_back_as_it_was(table):
    first, calls = table(), []
    for value, key in ((1.0, "lime"), (2.0, "shap")):
        assert first.get(lambda value=value: calls.append(1) or made(value), method=key, n=8) == made(value)
    again = table()
    assert again.get(lambda: 1 / 0, n=8, method="lime") == made(1.0)
    assert again.get(lambda: made(3.0), method="lime", n=9) == made(3.0)
    assert len(calls) == 2 and (again.computed, again.found) == (1, 1)
    tidy = pd.read_csv(again.path)
    assert list(tidy.method) == ["lime", "shap", "lime"] and list(tidy.n) == [8, 8, 9]
    assert {"snr", "snr.low", "snr.high", "share"} <= set(tidy.columns)


def test_rows_may_have_other_columns_and_values_that_are_no_numbers(table):
    table().get(lambda: {"a": 1.0, "b": math.nan}, method="one")
    table().get(lambda: {"a": 2.0, "c": Estimate(1, 0, 2)}, method="two")
    one, two = (table().get(lambda: 1 / 0, method=m) for m in ("one", "two"))
    assert set(one) == {"a", "b"} and math.isnan(one["b"]) and two == {"a": 2.0, "c": Estimate(1, 0, 2)}


def test_what_is_no_number_is_refused_before_it_is_written(table):
    for value in ("many", None):
        with pytest.raises((ValueError, TypeError)):
            table().get(lambda value=value: {"a": value}, method="one")
    with pytest.raises(ValueError, match="method cannot be both in a row's key and among its numbers"):
        table().get(lambda: {"method": 1.0}, method="one")
    assert table().get(lambda: {"a": True}, method="one") == {"a": 1.0}


def test_a_run_that_stops_keeps_its_finished_rows(table):
    def stop():
        raise KeyboardInterrupt

    table().get(lambda: made(1.0), method="a")
    with pytest.raises(KeyboardInterrupt):
        table().get(stop, method="b")
    again = table()
    again.get(stop, method="a")
    again.get(lambda: made(2.0), method="b")
    assert (again.computed, again.found) == (1, 1)
    assert not list(again.path.parent.glob("*.tmp"))


def grow(k):
    for i in range(5):
        Rows("test").get(lambda i=i: {"value": float(10 * k + i)}, worker=k, i=i)


def test_two_processes_lose_no_row(table):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=grow, args=(k,)) for k in range(3)]
    [w.start() for w in workers]
    [w.join() for w in workers]
    tidy = pd.read_csv(table().path)
    assert len(tidy) == 15 and (tidy.value == 10 * tidy.worker + tidy.i).all()


def test_the_fingerprint_follows_the_source_and_what_it_imports(tmp_path, monkeypatch):
    (tmp_path / "saliency_lib" / "deep").mkdir(parents=True)
    source = {"top": "from saliency_lib import middle", "middle": "from saliency_lib.deep.file import x", "other": ""}
    for name, text in source.items():
        (tmp_path / "saliency_lib" / f"{name}.py").write_text(text)
    (tmp_path / "saliency_lib" / "deep" / "file.py").write_text("x = 1")
    monkeypatch.setattr(rows, "PROJECT", tmp_path)
    before = rows.code("top")
    (tmp_path / "saliency_lib" / "other.py").write_text("y = 1")
    assert rows.code("top") == before != rows.code("middle")
    (tmp_path / "saliency_lib" / "deep" / "file.py").write_text("x = 2")
    assert rows.code("top") != before
    with pytest.raises(FileNotFoundError):
        rows.code("nonsense")
