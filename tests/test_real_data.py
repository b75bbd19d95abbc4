"""The papers' own data sets, where ``SALIENCY_DATA`` points at them."""

import json
from functools import reduce
from operator import getitem

import pytest
import torch

from saliency_lib import data
from saliency_lib.book import pipeline

pytestmark = pytest.mark.slow
CMNIST = {
    "dataset": "cmnist", "model": "lenet", "n_train": 6000, "n_val": 300, "n_members": 4, "epochs": 3, "snapshots": 1,
}  # fmt: skip
GREY = {
    "main": {"dataset": "fashion_mnist", "n_train": 1000, "n_val": 200, "n_members": 3, "epochs": 2},
    "dataset": "mnist",
    "size": None,
    "n_train": 500,
    "n_val": 200,
    "epochs": [2, 2],
}
COUNTS = {
    "fashion_mnist": {"train": 48000, "val": 12000, "test": 10000},
    "mnist": {"train": 60000, "val": 10000},
    "cifar10": {"train": 50000, "val": 10000},
    "imagenette": {"train": 9469, "val": 3925},
    "cmnist": {"train": 60000, "val": 10000},
}
SIZE = {"fashion_mnist": 28, "mnist": 28, "cifar10": 32, "imagenette": 128, "cmnist": 32}


@pytest.mark.parametrize("name", list(COUNTS))
def test_counts_sizes_and_constants(name, real_data):
    for split, n in COUNTS[name].items():
        loaded = data.load(name, split)
        assert len(loaded) == n and loaded.images.shape[2:] == (SIZE[name],) * 2
        assert len(loaded.classes) == 10 and loaded.labels.bincount(minlength=10).min() > n / 25
        assert (loaded.masks is not None) == (name == "cmnist")
        if split == "train":
            x = loaded.take(8000).inputs()
            assert x.mean((0, 2, 3)).abs().max() < 0.03 and (x.std((0, 2, 3)) - 1).abs().max() < 0.03


def test_imagenette_classes_have_names(real_data):
    assert "English springer" in data.load("imagenette", "val").classes


def test_cmnist_digits_lie_on_cifar_pictures(real_data):
    val, cifar = data.load("cmnist", "val"), data.load("cifar10", "val")
    corner = val.images[:100, :, 0, 0].float()
    distances = torch.cdist(corner, cifar.images[:, :, 0, 0].float()).min(1).values
    assert distances.max() == 0, "outside the digit every pixel is the picture's"


CHANGES = {
    "02_gradient_snr": {
        "main": {"dataset": "fashion_mnist", "n_members": 3, "n_train": 2000, "n_val": 300, "epochs": 2},
        "same_start": {"n_members": 2},
        "sgd": {"n_members": 2, "epochs": 2},
        "many": {"n_members": 8, "epochs": 3},
        "n_kept": 64,
    },
    "04_sweep_architectures": {
        "dataset": "fashion_mnist",
        "n_train": 1000,
        "n_val": 200,
        "widths": [4, 8],
        "depths": [1, 2],
        "n_members": 3,
        "epochs": 2,
        "longer": 2,
        "deep_members": 2,
        "deep_n_train": 200,
        "deep_epochs": 1,
    },
    "05_ensemble_dreams": {  # grey
        "main": {"dataset": "fashion_mnist", "n_train": 2000, "n_val": 300, "n_members": 4, "epochs": 2},
        "n_classes": 2,
        "dream_size": 32,
        "steps": 8,
        "counts": [1, 2],
        "n_again": 2,
        "n_views": 2,
        "n_real": 4,
        "n_draws": 2,
        "n_shaken": 1,
    },
    "06_noisegrad": {
        "main": CMNIST,
        "n_eval": 16,
        "n_samples": 3,
        "n_nudges": 1,
        "n_runs": 10,
        "fusion_counts": [1, 10],
        "arch_dataset": "cmnist",
        "architectures": ["lenet"],
        "arch_train": [6000],
        "arch_epochs": [3],
        "n_toys": 3,
    },
    "07_sanity_checks": {  # grey throughout
        **GREY,
        "permuted_epochs": [2, 2],
        "n_networks": 3,
        "n_permuted": 3,
        "n_eval": 4,
        "ig_steps": 2,
        "n_noisy": 2,
        "n_fusion": 2,
    },
    "10_edges_and_theory": {  # grey throughout
        **GREY,
        "n_networks": 3,
        "n_eval": 4,
        "ig_steps": 2,
        "n_noisy": 2,
        "n_fusion": 2,
        "n_kernels": 5,
        "n_masks": 3,
    },
    "08_checkerboard_smoothing": {
        "main": {"dataset": "cifar10", "n_train": 500, "n_val": 100, "n_members": 3, "epochs": 2},
        "n_networks": 3,
        "surrogate_epochs": 2,
        "n_eval": 8,
        "n_steps": 4,
        "ig_steps": 2,
        "ensemble_n_eval": 8,
    },
    "11_stand_ins": {"main": CMNIST, "n_eval": 16, "n_gradients": [1, 2]},
}


@pytest.mark.notebook
@pytest.mark.parametrize(
    "name,figure,number",
    [
        ("02_gradient_snr", "02_snr_per_image", ["SNR (Eq. 5)"]),
        ("04_sweep_architectures", "04_nonlinearity", ["ReLU alone"]),
        ("05_ensemble_dreams", "05_noisegrad", ["vividness, relative"]),
        ("06_noisegrad", "06_sigma", ["sigma"]),
        ("07_sanity_checks", "07_independent_maps", ["correspondence", "within methods"]),
        ("10_edges_and_theory", "10_sum_pool", ["AUC for edges", "mnist", "gradient"]),
        ("08_checkerboard_smoothing", "08_spectrum", ["power at period two", "original, layer1.0"]),
        ("11_stand_ins", "11_surrogate", ["likeness of the halves", "pearson"]),
    ],
)
def test_notebooks_run_on_the_papers_data(name, figure, number, real_data, tmp_path, monkeypatch):
    monkeypatch.setenv("SALIENCY_FIGURES", str(tmp_path))
    results = pipeline.run(pipeline.settings("quick", [name], CHANGES[name]), tmp_path / "build")
    assert results[0].status == "executed", results[0].error
    written = json.loads((tmp_path / "custom" / f"{figure}.json").read_text())
    used, changed = written["provenance"]["parameters"], CHANGES[name]
    assert all(used[k] == v or used[k] == used[k] | v for k, v in changed.items())
    assert 0 < reduce(getitem, number, written["numbers"])["value"] < 10
