"""Verdicts follow from intervals and ranges, and the committed ones are complete and true to their figures."""

import csv
import json
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from saliency_lib.book import claims, profiles
from saliency_lib.book.claims import AGREES, CANNOT_TELL, DIFFERS, NOT_TESTABLE, Quantity, judge
from saliency_lib.book.results import PAPERS_DATA, QUICK
from saliency_lib.estimates import Estimate
from saliency_lib.runtime.store import PROJECT


def quantity(value, low, high, least=-math.inf, most=math.inf):
    return Quantity("x", Estimate(value, low, high), least, most)


@pytest.mark.parametrize(
    "q,verdict",
    [
        (quantity(0.5, 0.4, 0.6, most=1), AGREES),
        (quantity(1.5, 1.4, 1.6, most=1), DIFFERS),
        (quantity(1, 0.9, 1.1, most=1), CANNOT_TELL),
        (quantity(2, 1.9, 2.1, 1, 3), AGREES),
        (quantity(4, 3.1, 5, 1, 3), DIFFERS),
        (quantity(0, -1, 5, 1, 3), CANNOT_TELL),
        (quantity(1, -math.inf, math.inf, 0), CANNOT_TELL),
        (quantity(math.nan, 0, 1, 0), CANNOT_TELL),
    ],
)
def test_a_quantity(q, verdict):
    assert q.verdict == verdict


@given(st.floats(-9, 9), st.floats(0, 9), st.floats(0, 9), st.floats(-9, 9))
def test_opposite_ranges_give_opposite_verdicts(value, below, above, bound):
    estimate = Estimate(value, value - below, value + above)
    assume(bound not in estimate)
    up, down = Quantity("x", estimate, low=bound).verdict, Quantity("x", estimate, high=bound).verdict
    assert {up, down} in ({AGREES, DIFFERS}, {CANNOT_TELL})


def test_a_claim_of_several_quantities():
    yes, no, open_ = quantity(0, 0, 0, -1, 1), quantity(5, 5, 5, -1, 1), quantity(0, -9, 9, -1, 1)
    assert judge("W01", yes, yes)["verdict"] == AGREES
    assert judge("W01", yes, open_)["verdict"] == CANNOT_TELL
    assert judge("W01", yes, open_, no)["verdict"] == DIFFERS
    with pytest.raises(ValueError, match="unknown claim 'W99'"):
        judge("W99", yes)
    with pytest.raises(ValueError, match="at least one quantity"):
        judge("W01")


def test_claims_name_notebooks_and_figures_consistently():
    rows = claims.all_claims()
    assert len(rows) == 59
    for row in rows.values():
        assert row["figure"].startswith(row["notebook"] + "_") and row["quick"] in ("yes", "no", "partly")


def test_published_tables_are_readable():
    for path in (PROJECT / "data" / "published").glob("*.csv"):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert rows and all(None not in row and None not in row.values() for row in rows), path.name


def test_every_claim_of_a_finished_notebook_has_a_verdict_with_an_interval():
    done = {name[:2] for name in profiles.notebooks()}
    found = claims.verdicts(QUICK)
    for claim, row in claims.all_claims().items():
        if row["notebook"] in done:
            verdict = found[claim]
            assert verdict["figure"] == row["figure"]
            assert verdict["verdict"] in (AGREES, DIFFERS, CANNOT_TELL, NOT_TESTABLE)
            for q in verdict["quantities"]:
                assert q["low"] <= q["value"] <= q["high"], claim


@pytest.mark.parametrize("folder", [QUICK, PAPERS_DATA], ids=lambda folder: folder.name)
def test_committed_verdicts_follow_from_their_numbers(folder):
    for claim, verdict in claims.verdicts(folder).items():
        parts = [q["verdict"] for q in verdict["quantities"]]
        if not parts:
            assert verdict["verdict"] == NOT_TESTABLE and verdict["remark"], claim
            assert claims.all_claims()[claim]["quick"] != "yes"
            continue
        expected = DIFFERS if DIFFERS in parts else AGREES if set(parts) == {AGREES} else CANNOT_TELL
        assert verdict["verdict"] == expected, claim


@pytest.mark.parametrize("folder", [QUICK, PAPERS_DATA], ids=lambda folder: folder.name)
def test_committed_figures_are_pictures_with_numbers_and_alternative_text(folder):
    pngs, texts = ({p.stem for p in folder.glob(f"*.{kind}")} for kind in ("png", "json"))
    assert pngs == texts and len(pngs) >= 11
    for name in texts:
        content = json.loads((folder / f"{name}.json").read_text())
        assert content["id"] == name and len(content["alt"]) > 40 and content["paper"]
        assert content["provenance"]["profile"] == folder.name and content["provenance"]["notebook"][:2] == name[:2]
        assert content["provenance"]["versions"]["torch"]


def test_a_claim_that_cannot_be_tested_says_why():
    verdict = claims.not_testable("W14", "it is about CIFAR-10")
    assert verdict["verdict"] == NOT_TESTABLE and verdict["remark"] == "it is about CIFAR-10"
    with pytest.raises(ValueError, match="unknown claim 'W99'"):
        claims.not_testable("W99", "")


def test_the_table_shows_every_quantity():
    yes = Quantity("one", Estimate(1, 0.9, 1.1), low=0)
    table = claims.table(judge("W01", yes, yes), claims.not_testable("W14", "no"))
    assert len(table) == 3 and list(table["measured"]) == ["one", "one", ""]
    assert "1 [0.9, 1.1] over networks" in table["value"].iloc[0]
    assert list(table["so it"]) == ["agrees", "agrees", ""]


def test_published_tables_are_read_by_name():
    table = claims.published("woerl2023_text_snr").set_index("setting")
    assert table.snr["instance_norm"] == 0.702
    with pytest.raises(ValueError, match="unknown table 'nope'; one of .*woerl2023_table1_snr"):
        claims.published("nope")
