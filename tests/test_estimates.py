"""Intervals: equal to closed forms, and they cover."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from saliency_lib import estimates
from saliency_lib.convergence import loglog_slope
from saliency_lib.estimates import Estimate, over_members, student

VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20)


@given(VALUES)
def test_jackknife_of_a_mean_is_students_interval(values):
    x = np.array(values)
    ours = estimates.student(x)
    half = stats.t.ppf(0.975, len(x) - 1) * stats.sem(x)
    np.testing.assert_allclose(ours, (x.mean(), x.mean() - half, x.mean() + half), atol=1e-8, rtol=1e-8)


def test_jackknife_with_groups_of_unequal_size_covers_a_mean():
    rng, covered = np.random.default_rng(0), 0
    sizes = np.array([3, 3, 2, 2, 2])
    group = np.repeat(np.arange(5), sizes)
    for _ in range(1000):
        x = rng.normal(size=sizes.sum())
        e = estimates.jackknife(x.mean(), [x[group != g].mean() for g in range(5)], sizes)
        covered += e.low <= 0 <= e.high
    assert abs(covered / 1000 - 0.95) < 0.03


@pytest.mark.parametrize("left_out", [[], [1.0], [1.0, np.nan]])
def test_too_little_to_tell_is_an_unbounded_interval(left_out):
    assert estimates.jackknife(1.0, left_out, np.ones(len(left_out))) == Estimate(1.0, -np.inf, np.inf)


def test_proportion_is_wilsons():
    n, k, z = 40, 3, stats.norm.ppf(0.975)
    centre, half = (k + z**2 / 2) / (n + z**2), z / (n + z**2) * np.sqrt(k * (n - k) / n + z**2 / 4)
    np.testing.assert_allclose(estimates.proportion(k, n), (k / n, centre - half, centre + half))


def test_spread_covers_the_standard_deviation():
    rng = np.random.default_rng(0)
    covered = sum((lambda e: e.low <= 2 <= e.high)(estimates.spread(rng.normal(0, 2, 8))) for _ in range(1000))
    assert abs(covered / 1000 - 0.95) < 0.03
    assert not np.isfinite(estimates.spread([1.0]).high)


def test_ratio_of_certain_and_uncertain_numbers():
    assert estimates.ratio(Estimate(6, 6, 6), Estimate(3, 3, 3)) == Estimate(2, 2, 2)
    e = estimates.ratio(Estimate(6, 5.4, 6.6), Estimate(3, 3, 3))
    assert e.low == pytest.approx(2 * np.exp(-0.1)) and e.high == pytest.approx(2 * np.exp(0.1))
    assert not np.isfinite(estimates.ratio(Estimate(1, 0, 2), Estimate(0, 0, 0)).high)
    clipped = estimates.ratio(Estimate(4.6, 0, 7.4), Estimate(0.8, 0.7, 0.9))
    assert clipped.value == pytest.approx(5.75) and np.isinf([clipped.low, clipped.high]).all()


@given(st.floats(-2, 2), st.floats(0.1, 10))
def test_slope_of_a_power_law(exponent, factor):
    x = np.array([1, 2, 4, 8])
    assert loglog_slope(x, factor * x**exponent) == pytest.approx(exponent, abs=1e-9)
    assert math.isnan(loglog_slope(x, [1, 2, 0, 3]))


def test_over_members_leaves_out_one_at_a_time():
    x, y = np.random.default_rng(0).normal(size=(2, 9))
    mean = over_members(lambda a, b: (a - b).mean(), x, y)
    theirs = student(x - y)
    np.testing.assert_allclose(mean, theirs)
    assert over_members(np.mean, x[:2]) == (x[:2].mean(), -np.inf, np.inf)


def test_over_pairs_leaves_out_a_member_with_all_its_pairs():
    x = np.random.default_rng(0).normal(size=9)
    mean = estimates.over_pairs(np.mean, (x[:, None] + x) / 2)  # of all pairs: the mean of x
    np.testing.assert_allclose(mean, student(x))
    assert estimates.over_pairs(np.mean, np.ones((5, 2, 2))) == (1, -np.inf, np.inf)


@pytest.mark.parametrize("n,count", [(1, 0), (2, 0), (3, 3), (10, 10), (13, 10)])
def test_groups_share_out_the_members(n, count):
    groups = estimates.groups(n)
    assert len(groups) == count and sorted(sum(groups, [])) == list(range(n)) * (count > 0)
    assert all(max(map(len, groups)) - len(group) <= 1 for group in groups)


def test_replicates_carry_a_statistic_through_changes_and_to_its_interval():
    x = np.random.default_rng(0).normal(size=13)
    sums = estimates.replicates(lambda members: (x[members].sum(), len(members)), 13)
    mean = sums.map(lambda pair: pair[0] / pair[1])
    left_out = [x[[i for i in range(13) if i % 10 != k]].mean() for k in range(10)]
    assert mean.estimate() == pytest.approx(estimates.jackknife(x.mean(), left_out, [2, 2, 2] + [1] * 7))
    assert sums.estimate(lambda a, b: a[0] / b, mean).value == pytest.approx(13)
    both = estimates.together({"sum": sums.map(lambda pair: pair[0]), "mean": mean})
    assert both.value == {"sum": pytest.approx(x.sum()), "mean": pytest.approx(x.mean())}
    assert both.map(lambda d: d["mean"]) == mean


def test_replicates_of_other_groups_do_not_go_together():
    ten, nine = (estimates.replicates(len, n) for n in (10, 9))
    with pytest.raises(ValueError, match=r"groups of \(1, .*\) members do not go with groups of \(1, "):
        ten.map(lambda a, b: a + b, nine)


def test_a_function_of_an_estimate_has_its_interval_and_unbounded_stays_so():
    assert Estimate(0, -1, 1).map(np.exp) == pytest.approx((1, np.exp(-1), np.exp(1)))
    assert Estimate(0.0, -np.inf, np.inf).map(np.exp) == (1, -np.inf, np.inf)
    assert math.isnan(estimates.UNKNOWN.map(np.exp).value)


def test_chance_is_reckoned_on_the_scale_of_the_interval():
    logs = student([0.1, 0.3, 0.2, -0.1, 0.4])
    ratio = logs.map(np.exp)
    for limit in (0.9, 1.6):
        bounds = {"low" if limit > 1 else "high": limit}
        assert ratio.outside(**bounds) == pytest.approx(logs.outside(**{k: np.log(v) for k, v in bounds.items()}))
        assert ratio.needed(limit) == logs.needed(np.log(limit))
    assert ratio.outside(high=-1) == 0 and ratio.in_full()["scale"] == "log" and logs.in_full().get("scale") is None


def test_a_value_at_its_bound_needs_very_many():
    assert Estimate(1e-4, 1e-4 - 16, 1e-4 + 16, 7, 8).needed(low=0) > 1e9


@given(st.integers(3, 40), st.floats(0.1, 0.9))
def test_as_many_networks_are_needed_as_student_asks_for(n, share):
    values = np.linspace(-1, 1, n)
    e = student(values + share * (student(values).high))  # zero lies at that share of half its interval
    m, sd = e.needed(low=0), np.std(values, ddof=1)

    def half(m):
        return stats.t.ppf(0.975, m - 1) * sd / math.sqrt(m)

    assert half(m) <= e.value * (1 + 1e-9) and half(m - 1) > e.value * (1 - 1e-9)


def test_rows_are_networks():
    table = pd.DataFrame({"a": [1.0, 2.0, 4.0], "b": [0.0, 0.0, 3.0]})
    assert estimates.over_rows(table["a"]) == student([1, 2, 4]) == estimates.over_rows(table["a"].astype(object))
    assert estimates.over_rows(table) == {"a": student([1, 2, 4]), "b": student([0, 0, 3])}


def test_as_many_are_needed_as_bring_either_bound_out_of_the_interval():
    e = Estimate(3, 1, 4, n=10)  # two down, one up
    assert e.needed(low=2) == 40 and e.needed(high=5) == 3
    assert e.needed(2, 5) == 40 == e.needed(2, 3.75), "the nearer bound in units of its side decides"
    assert e.needed(low=3) is None and Estimate(3, 1, 4).needed(low=2) is None


def test_a_ratio_knows_no_more_than_the_less_certain_of_its_parts():
    few, many = Estimate(3, 2, 4, 3, 4), Estimate(6, 5, 7, 7, 8)
    for e in (estimates.ratio(few, many), estimates.ratio(many, few)):
        assert (e.df, e.n) == (3, 4)


def test_no_slope_of_what_has_no_logarithm():
    assert all(math.isnan(loglog_slope(x, y)) for x, y in (([0, 1, 2], [1, 2, 3]), ([1, 2], [-1, 2]), ([1], [1])))


def test_what_is_replaced_in_an_estimate_keeps_the_rest():
    changed = Estimate(1, 0, 2, 7, 8)._replace(low=0.5)
    assert (changed.low, changed.df, changed.n) == (0.5, 7, 8)
