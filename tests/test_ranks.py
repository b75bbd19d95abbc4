"""Rank correlations and their intervals."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from saliency_lib import ranks
from saliency_lib.estimates import replicates
from saliency_lib.ranks import best_of_others, chosen_apart, explained, redrawn, spearman

NAMES = list("abcdefghij")


TRUTH = tuple(range(10))


def measured(members, noise, seed=0, truth=TRUTH):
    """Means over members of ten numbers, each with so much noise, and the same without each group of members."""
    values = np.array(truth) + noise * np.random.default_rng(seed).standard_normal((members, len(truth)))
    return replicates(lambda kept: dict(zip(NAMES, values[kept].mean(0))), members)


def test_redrawn_numbers_have_the_spread_of_a_mean():
    drawn = redrawn(measured(400, 3.0), draws=4000)
    assert list(drawn) == NAMES
    for place, name in enumerate(NAMES):
        assert drawn[name].mean() == pytest.approx(place, abs=0.6)
    spread = np.mean([drawn[name].std() for name in NAMES])
    assert spread == pytest.approx(3 / math.sqrt(400), rel=0.25)


def test_what_goes_together_is_drawn_together():
    shared = np.random.default_rng(0).standard_normal(20)
    both = replicates(lambda kept: {"a": shared[kept].mean(), "b": 2 * shared[kept].mean()}, 20)
    drawn = redrawn(both)
    np.testing.assert_allclose(drawn["b"], 2 * drawn["a"])


def test_a_clear_order_is_certain_and_a_blurred_one_is_not():
    assert spearman(measured(16, 0.01), measured(16, 0.01, 1)) == pytest.approx((1, 1, 1))
    blurred = spearman(measured(16, 8.0), measured(16, 8.0, 1))
    assert blurred.high - blurred.low > 0.1 and blurred.low <= blurred.value <= blurred.high <= 1
    assert blurred.n == 16 and blurred.df == 9


def test_intervals_cover_the_true_order():
    """The order of twenty members' means against the true one, ten numbers a standard error apart."""
    held = 0
    for seed in range(40):
        a, b = measured(20, math.sqrt(20), 2 * seed), measured(20, math.sqrt(20), 2 * seed + 1)
        e = spearman(a, b)
        held += e.low <= 1 <= e.high + 1e-9
    assert held >= 36


def test_two_members_and_missing_numbers_leave_it_open():
    for of in (measured(2, 0.1), measured(16, 0.1, truth=(math.nan, *TRUTH[1:]))):
        assert spearman(of, of)[1:] == (-math.inf, math.inf)


def test_what_classes_explain_of_ranks():
    classes, rng = np.arange(300) % 3, np.random.default_rng(0)
    assert explained(classes + rng.random(300), classes) > 0.85, "three blocks: 8/9 of the variance of ranks"
    assert np.mean([explained(rng.random(300), classes) for _ in range(200)]) == pytest.approx(0, abs=0.002)
    values = rng.random(300) + classes
    assert explained(np.exp(values), classes) == explained(values, classes)


def test_the_best_of_several_is_chosen_by_the_others():
    values = np.array([[9.0, 0, 0], [1, 1, 1], [0, 0, 5]])  # options, members
    assert best_of_others(values).tolist() == [0, 0, 0], "9 and 5 choose for the others alone"
    rising = np.arange(12.0).reshape(3, 4)
    assert best_of_others(rising).tolist() == rising[2].tolist()


def test_the_best_of_several_is_chosen_on_one_half_and_taken_from_the_other():
    lucky, steady = np.array([9.0, 0.0, 9.0, 0.0]), np.array([2.0, 3.0, 2.0, 3.0])
    assert chosen_apart([lucky, steady]) == (0 + 2) / 2  # lucky leads on the even images, steady on the odd
    assert chosen_apart([steady]) == np.mean(steady)
    chance = np.random.default_rng(0).normal(size=(500, 40, 6))
    best = [chosen_apart(scores) for scores in chance]
    assert abs(np.mean(best)) < 3 * stats.sem(best)


def test_redrawn_means_of_few_members_have_their_standard_error():
    values = np.random.default_rng(0).standard_normal(4)
    drawn = redrawn(replicates(lambda kept: {"a": values[kept].mean()}, 4), draws=20000)["a"]
    assert drawn.std() == pytest.approx(stats.sem(values), rel=0.03)


@pytest.mark.parametrize("members", [11, 12, 16, 19])
def test_redrawn_numbers_deviate_as_the_jackknife_of_unequal_groups_says(members, monkeypatch):
    values = np.random.default_rng(members).standard_normal(members) ** 3
    of_all = replicates(lambda kept: {"a": np.median(values[kept])}, members)
    monkeypatch.setattr(np.random, "default_rng", lambda _: SimpleNamespace(standard_normal=lambda shape: np.eye(10)))
    deviations = redrawn(of_all, draws=10)["a"] - of_all.value["a"]  # what each group adds
    e = of_all.estimate(lambda of: of["a"])
    assert np.linalg.norm(deviations) == pytest.approx((e.high - e.value) / stats.t.ppf(0.975, 9))


def test_the_interval_is_students_with_the_root_mean_square_deviation(monkeypatch):
    swapped = [1, 0, *range(2, 10)]  # whose correlation with the order is 1 - 12 / 990
    columns = {(k, name): np.array([p, (p, swapped[p])[k]]) for k in (0, 1) for p, name in enumerate(NAMES)}
    monkeypatch.setattr(ranks, "redrawn", lambda replicates, seed: columns)
    e = spearman(measured(4, 0.01), measured(4, 0.01, 1))
    assert e.low == pytest.approx(1 - stats.t.ppf(0.975, 3) * 12 / 990 / math.sqrt(2)) and e.high == pytest.approx(1)
