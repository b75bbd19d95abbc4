"""The four criteria and the ranking AUC: Quantus as an oracle, closed forms on maps made by hand, properties."""

import numpy as np
import pytest
import quantus
import torch
from conftest import as_it_comes, batch, tiny_net
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import nn

from saliency_lib import attribution, noisegrad
from saliency_lib.channels import abs_sum
from saliency_lib.quality import (
    boxes,
    faithfulness_correlation,
    gini,
    input_drop,
    max_sensitivity,
    ranking_auc,
    relevance_rank_accuracy,
    roughness,
)
from saliency_lib.quality.criteria import CRITERIA, criteria, not_beaten, sensitivities
from saliency_lib.runtime.seeds import seeded


def maps_and_masks(n=12, size=16, seed=0, share=0.3):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(n, size, size, generator=generator) < share
    maps = torch.randn(n, 1, size, size, generator=generator).abs() + masks[:, None]
    return maps, masks


def theirs(metric, net=None, x=None, y=None, maps=None, masks=None, **options):
    """Quantus's value per image."""
    x = np.zeros((len(maps), 1, *maps.shape[-2:]), np.float32) if x is None else x.numpy()
    y = np.zeros(len(maps), int) if y is None else y.numpy()
    with as_it_comes():
        return np.array(
            metric(
                model=net or nn.Identity(),
                x_batch=x,
                y_batch=y,
                a_batch=None if maps is None else maps.numpy(),
                s_batch=None if masks is None else masks[:, None].numpy(),
                device="cpu",
                **options,
            )
        )


def plain(kind, **options):
    return kind(abs=False, normalise=False, disable_warnings=True, **options)


@pytest.mark.parametrize("seed", range(3))
def test_relevance_rank_accuracy_is_quantus(seed):
    maps, masks = maps_and_masks(seed=seed)
    expected = theirs(plain(quantus.RelevanceRankAccuracy), maps=maps, masks=masks)
    np.testing.assert_allclose(relevance_rank_accuracy(maps, masks), expected, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_ranking_auc_is_quantus_and_scikit_learn(seed):
    maps, masks = maps_and_masks(seed=seed)
    maps = (4 * maps).round()  # with ties
    expected = theirs(plain(quantus.AUC), maps=maps, masks=masks)
    np.testing.assert_allclose(ranking_auc(maps, masks), expected, atol=1e-12)
    scikit = [roc_auc_score(m.flatten(), v.flatten()) for m, v in zip(masks, maps)]
    np.testing.assert_allclose(ranking_auc(maps, masks), scikit, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_gini_is_quantus(seed):
    maps, _ = maps_and_masks(seed=seed)
    expected = theirs(plain(quantus.Sparseness), maps=maps.clone())
    np.testing.assert_allclose(gini(maps), expected, atol=1e-5)


def faithfulness_of_quantus(subsets, net, x, y, maps, subset_size, monkeypatch, nr_runs):
    """Quantus with its own draws, or with ours handed to it where it asks NumPy for some."""
    metric = plain(quantus.FaithfulnessCorrelation, nr_runs=nr_runs, subset_size=subset_size, return_aggregate=False)
    if subsets is not None:
        draws = iter(subsets)
        monkeypatch.setattr(np.random, "choice", lambda *_, **__: next(draws))
    return theirs(metric, net, x, y, maps)


@pytest.mark.parametrize("channels", [1, 3])
def test_faithfulness_correlation_is_quantus_for_the_same_subsets(channels, monkeypatch):
    net, (x, y) = tiny_net(), batch(6)
    maps = attribution.attribute("input_gradient", net, x, y).abs()
    maps = abs_sum(maps) if channels == 1 else maps
    subsets, real = [], torch.Tensor.topk

    def note(values, *arguments, **options):
        found = real(values, *arguments, **options)
        subsets.extend(found.indices.numpy())
        return found

    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "topk", note)
        ours = faithfulness_correlation(net, x, y, maps, n_runs=20, subset_size=100, seed=4)
    assert len(subsets) == 20 * len(x) and all(len(set(s.tolist())) == 100 for s in subsets)
    expected = faithfulness_of_quantus(subsets, net, x, y, maps, 100, monkeypatch, 20)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_faithfulness_correlation_is_quantus_within_its_sampling_error(monkeypatch):
    net, (x, y) = tiny_net(), batch(8)
    maps = abs_sum(attribution.attribute("input_gradient", net, x, y))
    runs = 300
    ours = faithfulness_correlation(net, x, y, maps, n_runs=runs, subset_size=150).numpy()
    with seeded(0):
        np.random.seed(0)
        expected = faithfulness_of_quantus(None, net, x, y, maps, 150, monkeypatch, runs)
    difference = np.arctanh(ours) - np.arctanh(expected)  # Fisher: each has a standard error of 1 / sqrt(runs - 3)
    chi2 = (difference**2).sum() * (runs - 3) / 2
    assert chi2 < 26.1, "0.999 quantile of chi-square with 8 degrees of freedom"


def test_faithfulness_of_a_linear_models_own_contributions_is_one():
    """Erasing to the smallest value costs exactly the sum of weight times what goes."""
    with seeded(0):
        net = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).eval()
    x, y = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1])
    maps = net[1].weight[y].detach().view_as(x) * (x - x.amin((1, 2, 3), keepdim=True))
    found = faithfulness_correlation(net, x, y, torch.stack([maps, -maps]), n_runs=20, subset_size=7)
    np.testing.assert_allclose(found, np.array([[1.0] * 5, [-1.0] * 5]), atol=1e-5)


def test_several_sets_of_maps_share_the_passes_and_batches_do_not_matter():
    net, (x, y) = tiny_net(), batch(5)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    maps = torch.stack([attribution.attribute("input_gradient", net, x, y), noise])
    both = faithfulness_correlation(net, x, y, maps, n_runs=10, subset_size=50)
    for one, own in zip(both, maps):
        torch.testing.assert_close(faithfulness_correlation(net, x, y, own, n_runs=10, subset_size=50), one)
    small = faithfulness_correlation(net, x[:2], y[:2], maps[:, :2], n_runs=10, subset_size=50, batch_size=1)
    torch.testing.assert_close(small, both[:, :2], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["input_gradient", "smoothgrad"])
def test_max_sensitivity_is_quantus_for_the_same_noise(kind, monkeypatch):
    net, (x, y) = tiny_net(), batch(4)
    noise, real = [], torch.rand

    def note(*arguments, **options):
        noise.append(real(*arguments, **options))
        return noise[-1]

    with monkeypatch.context() as patched:
        patched.setattr(torch, "rand", note)
        ours = max_sensitivity(kind, net, x, y, radius=0.3, n_samples=4, seed=5)
    draws = iter(noise)
    metric = plain(
        quantus.MaxSensitivity,
        nr_samples=4,
        perturb_func=lambda arr, indices, **_: arr + 0.3 * (2 * next(draws) - 1).flatten(1).numpy(),
    )

    def explain(model, inputs, targets, **_):
        maps = attribution.attribute(kind, model, torch.as_tensor(inputs), torch.as_tensor(targets), seed=5)
        return abs_sum(maps).numpy()

    expected = theirs(metric, net, x, y, explain_func=explain)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_max_sensitivity_is_quantus_within_its_sampling_error():
    net, (x, y) = tiny_net(), batch(4)
    metric = plain(quantus.MaxSensitivity, nr_samples=30, lower_bound=0.3)

    def explain(model, inputs, targets, **_):
        maps = attribution.attribute("input_gradient", model, torch.as_tensor(inputs), torch.as_tensor(targets))
        return abs_sum(maps).numpy()

    def repeated(once):
        return np.array([once(k) for k in range(8)])

    def one(k):
        np.random.seed(k)
        return theirs(metric, net, x, y, explain_func=explain)

    ours = repeated(lambda k: max_sensitivity("input_gradient", net, x, y, radius=0.3, n_samples=30, seed=k).numpy())
    other = repeated(one)
    error = np.sqrt((ours.var(0, ddof=1) + other.var(0, ddof=1)) / 8)
    assert (np.abs(ours.mean(0) - other.mean(0)) < 5 * error).all()


def test_a_linear_models_gradient_never_moves_and_its_gradient_times_input_moves_as_the_input():
    with seeded(0):
        net = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).eval()
        x = torch.randn(5, 3, 4, 4)
    y = torch.tensor([0, 1, 2, 0, 1])
    assert not max_sensitivity("input_gradient", net, x, y, n_samples=3).any()
    found = max_sensitivity("gradient_x_input", net, x, y, radius=0.5, n_samples=40)
    weights = net[1].weight[y].detach().view_as(x)
    limit = 0.5 * abs_sum(weights).flatten(1).norm(dim=1) / abs_sum(weights * x).flatten(1).norm(dim=1)
    assert (found > 0).all() and (found < limit).all()


@pytest.mark.parametrize("metric", ["faithfulness", "robustness"])
def test_a_network_in_training_mode_is_refused_before_it_is_touched(metric):
    net, (x, y) = tiny_net().train(), batch(4)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ValueError, match="training mode"):
        if metric == "faithfulness":
            faithfulness_correlation(net, x, y, x)
        else:
            max_sensitivity("input_gradient", net, x, y)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())


def test_a_methods_own_sampling_counts_as_sensitivity_only_where_it_is_drawn_anew():
    net, (x, y) = tiny_net(), batch(6)
    method = noisegrad.noisegrad("input_gradient", 0.3, 2)
    found = max_sensitivity(method, net, x, y, radius=1e-4, n_samples=3)
    maps, others = (abs_sum(method(net, x, y, seed=seed)).double() for seed in (0, 1))
    redrawn = (others - maps).flatten(1).norm(dim=1) / maps.flatten(1).norm(dim=1)
    assert (redrawn > 10 * found).all()
    anew = max_sensitivity(method, net, x, y, radius=1e-4, n_samples=3, redraw=True)
    assert (anew > 10 * found).all() and not torch.equal(anew, redrawn)
    for redraw in (True, False):
        plain = max_sensitivity("input_gradient", net, x, y, radius=0.1, redraw=redraw)
        assert torch.equal(plain, max_sensitivity("input_gradient", net, x, y, radius=0.1))


def test_rank_accuracy_by_hand():
    masks = torch.zeros(4, 4, 4, dtype=torch.bool)
    masks[:, 0] = True  # four pixels of sixteen
    maps = torch.zeros(4, 1, 4, 4)
    maps[0, 0, 0] = 1  # all on the object
    maps[1, 0, 1] = 1  # all beside it
    maps[2, 0, 0, :2] = maps[2, 0, 1, :2] = 1  # half and half
    assert relevance_rank_accuracy(maps, masks).tolist() == [1, 0, 0.5, 0.25]
    halves = (11 / 12 + 5 / 12) / 2  # a pixel of the object beats 10 or 0 of the 12 others and ties with 2 or 10
    assert ranking_auc(maps, masks).tolist() == pytest.approx([1, 0.5 * 8 / 12, halves, 0.5])


@given(share=st.integers(1, 15), seed=st.integers(0, 99))
def test_a_constant_map_scores_the_share_of_the_object(share, seed):
    masks = torch.zeros(1, 16, dtype=torch.bool)
    masks[0, torch.randperm(16, generator=torch.Generator().manual_seed(seed))[:share]] = True
    maps, masks = torch.full((1, 1, 4, 4), 0.7), masks.view(1, 4, 4)
    assert relevance_rank_accuracy(maps, masks).item() == pytest.approx(share / 16)
    assert ranking_auc(maps, masks).item() == 0.5


@given(seed=st.integers(0, 999), scale=st.floats(1e-6, 1e6))
def test_scores_do_not_depend_on_scale_and_localisation_on_no_rising_function(seed, scale):
    maps, masks = maps_and_masks(2, 8, seed)
    for metric in (relevance_rank_accuracy, ranking_auc):
        torch.testing.assert_close(metric(maps * scale, masks), metric(maps, masks))
        torch.testing.assert_close(metric(maps.double().exp(), masks), metric(maps, masks))
    torch.testing.assert_close(ranking_auc(-maps, masks), 1 - ranking_auc(maps, masks))
    torch.testing.assert_close(gini(maps * scale), gini(maps), atol=1e-6, rtol=1e-5)
    assert ((gini(maps) >= 0) & (gini(maps) < 1)).all()


def test_gini_by_hand():
    one, level = torch.zeros(1, 1, 5, 5), torch.ones(1, 1, 5, 5)
    one[0, 0, 2, 3] = 7.0
    assert gini(one).item() == pytest.approx(1 - 1 / 25) and gini(level).item() == pytest.approx(0)
    assert gini(torch.tensor([1.0, 3.0]).view(1, 1, 1, 2)).item() == pytest.approx(0.25)
    assert gini(torch.zeros(1, 1, 3, 3)).isnan().all()


def test_leading_axes_are_kept():
    maps, masks = maps_and_masks(4)
    stacked = torch.stack([maps, maps.flip(-1), maps * 2])
    for metric in (relevance_rank_accuracy, ranking_auc):
        found = metric(stacked, masks)
        assert found.shape == (3, 4) and torch.equal(found[1], metric(maps.flip(-1), masks))
    assert gini(stacked).shape == (3, 4)


def test_masks_without_object_or_without_background_give_no_number():
    maps, masks = maps_and_masks(3)
    masks[0], masks[1] = False, True
    assert relevance_rank_accuracy(maps, masks).isnan().tolist() == [True, False, False]
    assert ranking_auc(maps, masks).isnan().tolist() == [True, True, False]


def test_criteria_of_several_methods_are_those_of_each_alone():
    (net, (x, y)), masks = (tiny_net(), batch()), torch.zeros(5, 16, 16, dtype=torch.bool)
    masks[:, 4:9, 6:12] = True
    methods = list(noisegrad.variants("input_gradient", 0.3, n=2).values())
    found = criteria(net, x, y, masks, methods=methods, n_nudges=2, radius=0.1, n_runs=8, subset_size=99, seed=3)
    assert found.shape == (len(CRITERIA), 4, 5) and found.dtype == torch.float64
    for k, method in enumerate(methods):
        maps = abs_sum(method(net, x, y, seed=3))
        alone = {
            "localisation": relevance_rank_accuracy(maps, masks),
            "faithfulness": faithfulness_correlation(net, x, y, maps, n_runs=8, subset_size=99, seed=3),
            "robustness": max_sensitivity(method, net, x, y, radius=0.1, n_samples=2, seed=3),
            "sparseness": gini(maps),
        }
        torch.testing.assert_close(found[:, k], torch.stack([alone[name] for name in CRITERIA]), atol=1e-4, rtol=1e-4)


X, Y = torch.zeros(2, 3, 16, 16), torch.zeros(2, dtype=torch.long)


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda: relevance_rank_accuracy(torch.ones(2, 3, 8, 8), torch.ones(2, 8, 8) > 0), "makes one channel of"),
        (lambda: ranking_auc(torch.ones(2, 1, 8, 8), torch.ones(2, 8, 8)), "masks .* of bool, not .* torch.float32"),
        (lambda: ranking_auc(torch.ones(3, 1, 8, 8), torch.ones(2, 8, 8) > 0), r"need maps \(..., 2, 1, 8, 8\), not"),
        (lambda: ranking_auc(torch.full((2, 1, 8, 8), torch.nan), torch.ones(2, 8, 8) > 0), "not finite"),
        (lambda: gini(torch.tensor([[[[1.0, -1.0]]]])), "not negative; use channels.abs_sum"),
        (lambda: gini(torch.full((1, 1, 2, 2), torch.inf)), "finite values"),
        (lambda: faithfulness_correlation(tiny_net(), X, Y, X, subset_size=769), "1 to 768 values, not .*=769"),
        (lambda: faithfulness_correlation(tiny_net(), X, Y, X, n_runs=1), "needs two runs"),
        (lambda: faithfulness_correlation(tiny_net(), X, Y, X[:, :2]), "maps of one or all channels"),
        (lambda: max_sensitivity("input_gradient", tiny_net(), X, Y, radius=0), "radius > 0"),
        (lambda: max_sensitivity("input_gradient", tiny_net(), X, Y, n_samples=0), "one sample"),
        (lambda: max_sensitivity("input_gradient", tiny_net(), X, Y, maps=X[:, 0]), "the method gives maps"),
        (lambda: max_sensitivity("gradient", tiny_net(), X, Y), "unknown method 'gradient'"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_sensitivities_are_those_of_each_size_and_method():
    net, (x, y) = tiny_net(), batch()
    methods = [attribution.METHODS[name].function for name in ("input_gradient", "gradient_x_input")]
    methods[0] = noisegrad.noisegrad("input_gradient", 0.3, 2)
    for redraw in (False, True):
        options = {"n_nudges": 2, "seed": 1, "redraw": redraw}
        found = sensitivities(net, x, y, None, methods=methods, radii=[0.1, 0.3], **options)
        assert found.shape == (2, 2, len(x))
        alone = max_sensitivity(methods[0], net, x, y, radius=0.3, n_samples=2, seed=1, redraw=redraw)
        assert torch.equal(found[1, 0], alone)
        plain = max_sensitivity("gradient_x_input", net, x, y, radius=0.3, n_samples=2, seed=1)
        assert torch.equal(found[1, 1], plain), "what draws nothing is the same either way"


def test_a_box_reaches_from_the_first_to_the_last_pixel():
    masks = torch.zeros(2, 6, 7, dtype=torch.bool)
    masks[0, 1, 5] = masks[0, 4, 2] = True
    expected = torch.zeros_like(masks)
    expected[0, 1:5, 2:6] = True
    assert torch.equal(boxes(masks), expected) and torch.equal(boxes(expected), expected)


def test_roughness_of_constants_ramps_and_noise():
    everywhere, generator = torch.ones(40, 40, dtype=torch.bool), torch.Generator().manual_seed(0)
    assert roughness(torch.ones(2, 40, 40), everywhere) == 0
    noise = torch.randn(2, 40, 40, generator=generator)
    assert roughness(noise, everywhere) == pytest.approx(2, abs=0.1)
    assert roughness(7 * noise, everywhere) == pytest.approx(roughness(noise, everywhere))
    half = everywhere.clone()
    half[:, 20:] = False
    still = torch.cat([torch.ones(2, 40, 20), noise[:, :, 20:]], 2)
    assert roughness(still, half) == 0 < roughness(still, ~half)


def test_the_best_is_not_beaten_and_neither_is_what_equals_it():
    rising = torch.arange(1.0, 25.0)
    values = {"best": rising, "same": rising.clone(), "worse": rising - 1}
    assert not_beaten(values) == {"best", "same"} and not_beaten(values, sign=-1) == {"worse"}
    alternating = values | {"near": rising - torch.tensor([3, -1, -1, -0.9]).repeat(6)}
    assert not_beaten(alternating) == {"best", "same", "near"}, "by chance"
    assert not_beaten({name: v.view(4, 6) for name, v in alternating.items()}) == not_beaten(alternating)


def test_who_is_beaten_is_asked_from_one_side():
    rising = torch.arange(1.0, 6.0)  # five images: p = 1 / 32 from one side, and 1 / 16 from two
    assert not_beaten({"best": 2 * rising, "worse": rising}) == {"best"}


def test_every_image_of_a_draw_has_noise_of_its_own():
    labels = torch.arange(200) % 2
    images = nn.functional.one_hot(labels).float().view(200, 1, 1, 2)
    drops = input_drop(nn.Flatten().eval(), images, labels, 1e6, n_draws=4)
    assert len(drops.unique()) > 1, "the same noise for all would make all of one class: exactly 1 every time"


def test_images_without_a_number_count_for_no_method():
    good = torch.rand(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bad = good - 0.3
    for name in ("good", "bad"):
        values = {"bad": bad.clone(), "good": good.clone()}
        values[name][3] = torch.nan
        assert not_beaten(values) == {"good"} and not_beaten(values, sign=-1) == {"bad"}
