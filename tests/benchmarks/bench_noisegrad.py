"""NoiseGrad against what it must do, and the quality criteria against Quantus's, as ratios in one run."""

import numpy as np
import pytest
import quantus
import torch
from bench_methods import pictures, timed
from conftest import as_it_comes
from timing import compare, report, sized

from saliency_lib import attribution, models, noisegrad, quality
from saliency_lib.channels import abs_sum
from saliency_lib.runtime.seeds import seeded

N_DRAWS, N_RUNS, N_NUDGES = sized(25, 2), 5, 2


def network(name):
    with seeded(0):
        return models.build(name, 10).eval()


def plain_calls_and_noise(net, x, y):
    """As many plain calls, and as many draws of noise for all weights."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(N_DRAWS):
        attribution.input_gradient(net, x, y)
        for p in net.parameters():
            torch.randn(p.shape, generator=generator)


@pytest.mark.parametrize("name,n", [("resnet_small", 64), ("lenet", 64), ("resnet18", 32), ("resnet9", 16)])
def test_cost_over_plain_calls(name, n):
    net, (x, y) = network(name), pictures(sized(n, 2))
    method = noisegrad.noisegrad("input_gradient", 0.1, N_DRAWS)
    found = compare(lambda: timed(method, net, x, y), lambda: plain_calls_and_noise(net, x, y))
    report(f"NoiseGrad, {N_DRAWS} draws, {name}, {len(x)} images", "as many calls and draws of noise", found)


CRITERIA = ["relevance_rank_accuracy", "ranking_auc", "gini", "faithfulness_correlation", "max_sensitivity"]


def in_turn(net, x, y, masks, maps):
    """Ours and Quantus's way for each criterion, of the same maps and settings."""
    a, b, m, s = x.numpy(), y.numpy(), maps.numpy(), masks[:, None].numpy()

    def theirs(kind, **options):
        metric = kind(abs=False, normalise=False, disable_warnings=True, **options)
        of_maps = kind is not quantus.MaxSensitivity  # which makes its own, as ours does
        explain = {} if of_maps else {"explain_func": explained}

        def call():
            metric(net, a, b, m.copy() if of_maps else None, s_batch=s, device="cpu", batch_size=128, **explain)

        return call

    def explained(model, inputs, targets, **_):
        found = attribution.input_gradient(model, torch.as_tensor(np.float32(inputs)), torch.as_tensor(targets))
        return abs_sum(found).numpy()

    return {
        "relevance_rank_accuracy": (
            lambda: quality.relevance_rank_accuracy(maps, masks), theirs(quantus.RelevanceRankAccuracy)
        ),
        "ranking_auc": (lambda: quality.ranking_auc(maps, masks), theirs(quantus.AUC)),
        "gini": (lambda: quality.gini(maps), theirs(quantus.Sparseness)),
        "faithfulness_correlation": (
            lambda: quality.faithfulness_correlation(net, x, y, maps, n_runs=N_RUNS),
            theirs(quantus.FaithfulnessCorrelation, nr_runs=N_RUNS, return_aggregate=False),
        ),
        "max_sensitivity": (
            lambda: quality.max_sensitivity("input_gradient", net, x, y, n_samples=N_NUDGES),
            theirs(quantus.MaxSensitivity, nr_samples=N_NUDGES),
        ),
    }  # fmt: skip


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("name", ["resnet9", "lenet"])
def test_criteria_against_quantus(name, criterion):
    net, (x, y) = network(name), pictures(sized(256, 4))
    maps = torch.rand(len(x), 1, *x.shape[2:], generator=torch.Generator().manual_seed(0))
    ours, theirs = in_turn(net, x, y, maps[:, 0] + 0.2 > 0.7, maps)[criterion]
    with as_it_comes():
        found = compare(lambda: timed(ours), theirs)
    report(f"{criterion}, {name}, {len(x)} images", "Quantus", found)
