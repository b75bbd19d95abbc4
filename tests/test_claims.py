"""Verdicts follow from intervals and ranges, and the committed ones are complete and true to their figures."""

import csv
import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from saliency_lib.book import claims, plotting, profiles, seeds
from saliency_lib.book.claims import (
    AGREES,
    CANNOT_TELL,
    DIFFERS,
    FIRST,
    IDENTITY,
    NOT_TESTABLE,
    SECOND,
    TO_RUN,
    Quantity,
    judge,
    judged,
    verdicts_of,
)
from saliency_lib.book.results import PAPERS_DATA, QUICK
from saliency_lib.estimates import UNKNOWN, Estimate, exact, over_rows, student
from saliency_lib.runtime.store import PROJECT
from saliency_lib.snr import debiased_number


def quantity(value, low, high, least=-math.inf, most=math.inf, reading=FIRST):
    return Quantity("x", Estimate(value, low, high), least, most, reading=reading)


YES, NO, OPEN = quantity(0, 0, 0, -1, 1), quantity(5, 5, 5, -1, 1), quantity(0, -9, 9, -1, 1)


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
    assert verdicts_of([q]) == [verdict]


@given(st.floats(-9, 9), st.floats(0.01, 9), st.floats(-9, 9))
def test_opposite_ranges_give_opposite_verdicts(value, half, bound):
    estimate = Estimate(value, value - half, value + half)
    assume(abs(abs(bound - value) - half) > 1e-6)
    up, down = (verdicts_of([Quantity("x", estimate, **limit)])[0] for limit in ({"low": bound}, {"high": bound}))
    assert {up, down} in ({AGREES, DIFFERS}, {CANNOT_TELL})


@given(st.lists(st.floats(-4, 4), min_size=1, max_size=12))
def test_what_differs_is_holms_procedure(z):
    p = 2 * stats.norm.sf(z)
    order, rejected = np.argsort(p, kind="stable"), np.zeros(len(p), bool)
    for place, k in enumerate(order):  # as Holm 1979 has it
        if p[k] >= 0.05 / (len(p) - place):
            break
        rejected[k] = True
    half = stats.norm.ppf(0.975)
    found = verdicts_of([Quantity("x", Estimate(v, v - half, v + half), high=0) for v in z])
    assert [verdict == DIFFERS for verdict in found] == [bool(r) and v > 0 for r, v in zip(rejected, z)]


def test_one_claim_in_twenty_differs_by_chance_however_many_quantities_it_has():
    rng = np.random.default_rng(0)
    means = [[student(rng.normal(size=8)) for _ in range(16)] for _ in range(1000)]
    differ = [DIFFERS in verdicts_of([Quantity("x", e, high=0) for e in found]) for found in means]
    assert np.mean(differ) < 0.05  # without a correction a third of them: each is outside on this side in 2.5 %
    alone = [any(e.low > 0 for e in found) for found in means]
    assert np.mean(alone) > 0.25


def test_a_claim_of_several_quantities():
    assert judged("W01", [YES, YES])["verdict"] == AGREES
    assert judged("W01", [YES, OPEN])["verdict"] == CANNOT_TELL
    assert judged("W01", [YES, OPEN, NO])["verdict"] == DIFFERS
    with pytest.raises(ValueError, match="at least one quantity"):
        judged("W01", [])


def test_a_second_reading_is_judged_apart():
    second = quantity(5, 5, 5, -1, 1, SECOND)
    found = judged("W01", [YES, second])
    assert found["verdict"] == AGREES and found["second reading"] == DIFFERS
    assert "second reading" not in judged("W01", [YES])


def test_what_holds_by_construction_is_no_agreement():
    holds, broken, vague = (
        quantity(v, low, high, -1, 1, IDENTITY) for v, low, high in ((0, 0, 0), (5, 5, 5), (0, -9, 9))
    )
    assert judged("W08", [holds, holds])["verdict"] == IDENTITY
    assert judged("W08", [holds, broken])["verdict"] == judged("W08", [YES, broken])["verdict"] == DIFFERS
    assert judged("W08", [vague])["verdict"] == CANNOT_TELL
    assert judged("W08", [holds, YES])["verdict"] == AGREES and judged("W08", [holds, OPEN])["verdict"] == CANNOT_TELL


READINGS = {
    "W01": {
        "size": {"low": "", "high": "1", "unit": "networks", "reading": FIRST},
        "share": {"low": "-rule", "high": "rule", "unit": "images", "reading": FIRST},
    }
}


@pytest.fixture
def readings(monkeypatch):
    monkeypatch.setattr(claims, "all_readings", lambda: READINGS)


def test_ranges_are_looked_up(readings):
    found = judge("W01", {"size": exact(0.5), "share": {"a": exact(0.1), "b": exact(0.3)}}, rule=0.2)
    assert [(q["name"], q["range"], q["unit"], q["verdict"]) for q in found["quantities"]] == [
        ("size", [-math.inf, 1.0], "networks", AGREES),
        ("share, a", [-0.2, 0.2], "images", AGREES),
        ("share, b", [-0.2, 0.2], "images", DIFFERS),
    ]
    assert len(judge("W01", {"size": exact(0.5), "share": {}}, rule=0.2)["quantities"]) == 1
    with pytest.raises(ValueError, match="unknown claim 'W99'"):
        judge("W99", {})
    with pytest.raises(ValueError, match=r"claim W01: .*do not both have \['share'\]"):
        judge("W01", {"size": exact(1)})
    with pytest.raises(ValueError, match="the limit 'rule', which the notebook does not give"):
        judge("W01", {"size": exact(1), "share": {}})


def test_an_open_quantity_says_how_many_would_settle_it():
    e = student([0.0, 2.0, 1.0, -1.0])
    q = Quantity("x", e, low=0)
    (open_,) = judged("W01", [q])["quantities"]
    assert open_["verdict"] == CANNOT_TELL and open_["n"] == 4
    half = (e.high - e.value) / stats.t.ppf(0.975, 3) * 2 / np.sqrt([28, 29]) * stats.t.ppf(0.975, [27, 28])
    assert open_["needed"] == 29 and half[0] > e.value >= half[1]
    assert "needed" not in judged("W01", [YES])["quantities"][0]
    assert "needed" not in judged("W01", [Quantity("x", UNKNOWN, low=0)])["quantities"][0]


def test_readings_are_complete_and_in_the_order_of_claims():
    with (PROJECT / "data" / "readings.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    order = list(claims.all_claims())
    assert [order.index(row["claim"]) for row in rows] == sorted(order.index(row["claim"]) for row in rows)
    assert {row["claim"] for row in rows} == set(order)
    assert len({(row["claim"], row["quantity"]) for row in rows}) == len(rows)
    for row in rows:
        assert row["reading"] in (FIRST, SECOND, IDENTITY) and row["unit"] and row["words"].endswith("."), row
        assert row["low"] or row["high"], row
        for side in (row["low"], row["high"]):
            assert re.fullmatch(r"-?([\d.e-]+|[a-z]\w*)?", side), row


def test_claims_name_notebooks_and_figures_consistently():
    rows = claims.all_claims()
    assert len(rows) >= 59
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
            assert verdict["verdict"] in (AGREES, DIFFERS, CANNOT_TELL, IDENTITY, NOT_TESTABLE)
            for q in verdict["quantities"]:
                known = [q[name] for name in ("low", "value", "high") if q[name] is not None]
                assert known == sorted(known), claim


def of_json(q):
    low, high = (end if q[side] is None else q[side] for side, end in (("low", -math.inf), ("high", math.inf)))
    known = q.get("df", math.inf), q.get("n", 0), q.get("scale", "")
    e = Estimate(math.nan if q["value"] is None else q["value"], low, high, *known)
    least, most = (end if at is None else at for at, end in zip(q["range"], (-math.inf, math.inf)))
    return Quantity(q["name"], e, least, most, q["unit"], q["reading"])


@pytest.mark.parametrize("folder", [QUICK, *PAPERS_DATA], ids=lambda folder: folder.name)
def test_committed_verdicts_follow_from_their_numbers_and_readings(folder):
    for claim, verdict in claims.verdicts(folder).items():
        if not verdict["quantities"]:
            assert verdict["verdict"] in (NOT_TESTABLE, TO_RUN) and verdict["remark"], claim
            assert folder in PAPERS_DATA or claims.all_claims()[claim]["quick"] != "yes"
            continue
        again = judged(claim, [of_json(q) for q in verdict["quantities"]])
        assert (verdict["verdict"], verdict.get("second reading")) == (again["verdict"], again.get("second reading"))
        assert [q["verdict"] for q in verdict["quantities"]] == [q["verdict"] for q in again["quantities"]], claim
        rows = claims.all_readings()[claim]
        for q in verdict["quantities"]:
            row = rows[next(name for name in rows if q["name"] == name or q["name"].startswith(f"{name}, "))]
            assert (q["unit"], q["reading"]) == (row["unit"], row["reading"]), claim
            for written, used in zip((row["low"], row["high"]), q["range"]):
                if not written or re.fullmatch(r"-?[\d.e-]+", written):
                    assert (float(written) if written else None) == used, claim


def test_how_many_verdicts_change_with_the_seed_is_said():
    every = [claims.verdicts(QUICK), *(claims.verdicts(seeds.folder_of(QUICK, seed)) for seed in seeds.OTHERS)]
    given = [{verdicts[claim]["verdict"] for verdicts in every} for claim in every[0]]
    said = f"With two other seeds {sum(len(of) > 1 for of in given)} of the {len(given)} verdicts change."
    assert said in (PROJECT / "RESULTS.md").read_text(encoding="utf-8")
    assert not any({claims.AGREES, claims.DIFFERS} <= of for of in given)


@pytest.mark.parametrize("seed", seeds.OTHERS)
def test_other_seeds_are_read_by_the_same_quantities_with_the_same_parameters(seed):
    figures, theirs = claims.verdicts(QUICK), claims.verdicts(seeds.folder_of(QUICK, seed))
    assert theirs.keys() == figures.keys()
    for claim, verdict in theirs.items():
        here = [(q["name"], q["reading"]) for q in figures[claim]["quantities"]]
        assert [(q["name"], q["reading"]) for q in verdict["quantities"]] == here, claim
        made = [
            json.loads((folder / f"{verdict['figure']}.json").read_text())["provenance"]["parameters"]
            for folder in (QUICK, seeds.folder_of(QUICK, seed))
        ]
        assert made[1] | made[0] | {"seed": seed, "profile": "custom"} == made[1], claim


@pytest.mark.parametrize("folder", [QUICK, *PAPERS_DATA], ids=lambda folder: folder.name)
def test_committed_figures_are_pictures_with_numbers_and_alternative_text(folder):
    pngs, texts = ({p.stem for p in folder.glob(f"*.{kind}")} for kind in ("png", "json"))
    assert pngs == texts and len(pngs) >= (11 if folder == QUICK else 1)
    for name in texts:
        content = json.loads((folder / f"{name}.json").read_text())
        assert content["id"] == name and len(content["alt"]) > 40 and content["paper"]
        made = content["provenance"]
        assert (
            made["profile"] in (folder.name, *(["paper"] if folder != QUICK else []))
            and made["notebook"][:2] == name[:2]
        )
        assert made["versions"]["torch"]


def test_a_claim_that_cannot_be_tested_says_why():
    verdict = claims.not_testable("W14", "it is about CIFAR-10")
    assert verdict["verdict"] == NOT_TESTABLE and verdict["remark"] == "it is about CIFAR-10"
    with pytest.raises(ValueError, match="unknown claim 'W99'"):
        claims.not_testable("W99", "")


def test_published_tables_are_read_by_name():
    table = claims.published("woerl2023_text_snr").set_index("setting")
    assert table.snr["instance_norm"] == 0.702
    with pytest.raises(ValueError, match="unknown table 'nope'; one of .*woerl2023_table1_snr"):
        claims.published("nope")


def test_what_woerl_et_al_call_similar_follows_from_their_numbers():
    """0.79 with SGD against 0.589 of Tab. 1, and against 0.694 of the text, all less what noise adds in 30 networks."""
    text = claims.published("woerl2023_text_snr").set_index("setting").snr
    of_table = claims.published("woerl2023_table1_snr").set_index(["dataset", "method"]).resnet18
    against = {"1.37": of_table["imagenette", "input_gradient"], "1.15": text["batch_norm"]}
    sgd, found = debiased_number(text["sgd_step_decay"], 30), 0
    for rows in claims.all_readings().values():
        for row in rows.values():
            for number, plugin in against.items():
                if f"factor of {number}" in row["words"] or f"{number} is the paper's" in row["words"]:
                    ratio, found = sgd / debiased_number(plugin, 30), found + 1
                    limits = {float(row[side]) for side in ("low", "high") if row[side]}
                    assert limits <= {round(1 / ratio, 2), round(ratio, 2)}, (row["claim"], row["quantity"])
    assert found >= 11


def test_a_table_with_a_row_per_network_is_judged_by_its_columns():
    table = pd.DataFrame({"a": [0.1, 0.2, 0.3], "b": [0.3, 0.3, 0.4]})
    first, second = claims.all_readings()["B11"]
    judged = claims.judge("B11", {first: table, second: table["a"]})
    assert judged == claims.judge("B11", {first: over_rows(table), second: over_rows(table["a"])})
    assert plotting.as_json({"t": table, "s": table["a"]})["t"]["a"] == plotting.as_json(over_rows(table["a"]))


def test_what_only_holms_correction_leaves_open_asks_for_no_more_networks():
    outside = Quantity("x", Estimate(1, 0.02, 1.98, n=8), high=0)  # p = 0.046, and two quantities
    open_, _ = judged("W01", [outside, YES])["quantities"]
    assert open_["verdict"] == CANNOT_TELL and "needed" not in open_
