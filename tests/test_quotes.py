"""What texts quote is what figures say: every number with an interval names its source, and is as it stands there."""

import json
import re

import pytest

from saliency_lib.book import quotes, results

TEXT = """The gradient has 0.123 [0.100, 0.146], which is 12 % [10 %, 15 %], and 1,234 [1,000, 1,500] pixels.

<!-- quotes
02_a: snr.mean
percent of 02_a: snr.mean
02_a: W01: pixels
-->

<!-- found -->9.9 [9.8, 10.0]<!-- end of found -->

Less: -0.5 [-0.6, -0.4].

<!-- quotes
minus paper/02_b: loss
-->
"""


@pytest.fixture
def figures(tmp_path, monkeypatch):
    """Two figures, and a way to change a number of the first."""
    monkeypatch.setattr(quotes, "FIGURES", tmp_path)
    quotes.estimates.cache_clear()

    def write(mean=0.123):
        quotes.estimates.cache_clear()
        snr = {"mean": {"value": mean, "low": 0.1, "high": 0.146}, "none": {"value": 1, "low": None, "high": None}}
        pixels = {"name": "pixels", "value": 1234.4, "low": 1000.0, "high": 1500.0}
        loss = {"value": 0.5, "low": 0.4, "high": 0.6}
        made = {"numbers": {"snr": snr}, "verdicts": [{"claim": "W01", "quantities": [pixels]}]}
        for name, content in {
            "quick/02_a": made,
            "paper/02_b": {"numbers": {}, "series": {"loss": loss}, "verdicts": []},
        }.items():
            path = tmp_path / f"{name}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(content))

    write()
    yield write
    quotes.estimates.cache_clear()


def test_what_is_as_the_figures_have_it_stays(figures):
    assert quotes.refreshed(TEXT) == TEXT


def test_a_number_that_moved_is_written_anew_with_as_many_digits(figures):
    figures(mean=0.1366)
    wanted = TEXT.replace("0.123 [0.100", "0.137 [0.100").replace("12 % [10 %", "14 % [10 %")
    assert quotes.refreshed(TEXT) == wanted != TEXT


def test_a_number_that_leaves_its_interval_is_told(figures):
    figures(mean=0.1366)
    assert not list(quotes.jumps(TEXT, quotes.refreshed(TEXT)))
    figures(mean=0.2)
    told = list(quotes.jumps(TEXT, quotes.refreshed(TEXT)))
    assert told == ["0.123 [0.100, 0.146] became 0.200 [0.100, 0.146]", "12 % [10 %, 15] became 20 % [10 %, 15]"]
    cell = {"cell_type": "markdown", "source": TEXT.replace(" [", "\n[").splitlines(True)}
    book = json.dumps({"cells": [cell]}, indent=1, ensure_ascii=False) + "\n"
    assert list(quotes.jumps(book, quotes.refreshed_notebook(book))) == told


def test_zero_has_no_sign():
    assert quotes.like("0.12", -0.004) == "0.00" and quotes.like("1,000", -1234.4) == "-1,234"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("percent of 02_a: snr.mean\n", "", "3 numbers have intervals up to the comment that ends with '02_a: W01"),
        ("02_a: snr.mean\np", "02_a: snr.none\np", "a text quotes 'snr.none', which is not in the figure 02_a"),
        ("paper/02_b", "paper/02_c", "the figure 'paper/02_c', which there is not"),
        ("<!-- quotes\nminus paper/02_b: loss\n-->\n", "", r"no comment says where -0.5 \[-0.6, -0.4 ... comes from"),
    ],
)
def test_what_names_no_number_gets_a_sentence(old, new, message, figures):
    assert old in TEXT
    with pytest.raises(ValueError, match=message):
        quotes.refreshed(TEXT.replace(old, new))


def test_notebooks_keep_their_form(figures):
    cell = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": TEXT.splitlines(True)}
    book = json.dumps({"cells": [cell, cell | {"cell_type": "code", "source": ["x = '1 [2, 3]'"]}]}, indent=1) + "\n"
    assert quotes.refreshed_notebook(book) == book


def test_the_texts_quote_intervals():
    """So that the tests of up-to-date pages are about something."""
    texts = "".join(path.read_text(encoding="utf-8") for path in results.TEXTS)
    assert len(re.findall(quotes.QUOTE, texts)) > 90
