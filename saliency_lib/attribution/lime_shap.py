"""LIME and KernelSHAP: a linear model of what hiding superpixels does to the logit.

captum's do the same but take superpixels as an argument, send a few perturbations at a time through the network and
loop over them in Python; tests/test_surrogates.py compares the coefficients.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from sklearn.linear_model import Lasso
from torch import Tensor, nn

from saliency_lib.attribution.superpixels import superpixels
from saliency_lib.inference import in_batches
from saliency_lib.runtime.seeds import derive

SOLVERS = ("ridge", "lasso")


@torch.no_grad()
def _logits(model: nn.Module, x: Tensor, y: Tensor, segments: Tensor, masks: Tensor, size: int) -> Tensor:
    """Target's logit of one image, (c, h, w), with superpixels shown or at the mean colour; masks (m, k): (m,)."""
    found = []
    for part in masks.to(x).split(size):
        keep = part[:, segments.flatten()].view(-1, 1, *segments.shape)
        shown = (keep * x).contiguous(memory_format=torch.channels_last)
        found.append(model(shown)[:, y])
    return torch.cat(found)


def _surrogate(
    fit: Callable[[np.ndarray, np.ndarray], np.ndarray],
    draw: Callable[[int], np.ndarray],
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    batch_size: int | None,
    n_segments: int,
) -> Tensor:
    """Maps (n, 1, h, w) of coefficients: ``draw(k)`` gives masks (m, k) bool, ``fit(masks, logits)`` k numbers."""
    drawn: dict[int, np.ndarray] = {}

    def maps(x: Tensor, y: Tensor, size: int) -> Tensor:
        found = []
        for image, target in zip(x, y):
            segments = superpixels(image, n_segments)
            k = int(segments.max()) + 1
            if k not in drawn:
                drawn[k] = draw(k)
            masks = drawn[k]
            logits = _logits(model, image, target, segments.to(x.device), torch.from_numpy(masks), size)
            coefficients = fit(masks.astype(np.float64), logits.double().cpu().numpy())
            found.append(torch.from_numpy(coefficients).to(x)[segments.to(x.device)])
        return torch.stack(found)[:, None]

    return in_batches(maps, model, images, targets, batch_size)


def fit_lime(masks: np.ndarray, logits: np.ndarray, solver: str, alpha: float, kernel_width: float) -> np.ndarray:
    """Coefficients (k,) of a linear model, with intercept, of logits (m,) by masks (m, k), nearer masks weighing more.

    The weight is exp(-d^2 / w^2)^(1/2), d the cosine distance to the whole image (Ribeiro et al. 2016 and their code).
    """
    shown = masks.sum(1)
    distance = 1 - shown / np.sqrt(np.maximum(shown, 1) * masks.shape[1])
    weights = np.sqrt(np.exp(-(distance**2) / kernel_width**2))
    if solver == "lasso":
        return Lasso(alpha=alpha).fit(masks, logits, sample_weight=weights).coef_
    centre, level = np.average(masks, axis=0, weights=weights), np.average(logits, weights=weights)
    x = masks - centre
    weighted = x.T * weights
    return np.linalg.solve(weighted @ x + alpha * np.eye(masks.shape[1]), weighted @ (logits - level))


def lime(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    n_samples: int = 1000,
    n_segments: int = 50,
    solver: str = "ridge",
    alpha: float | None = None,
    kernel_width: float = 0.25,
) -> Tensor:
    """LIME on SLIC superpixels, (n, 1, h, w), each pixel with its superpixel's coefficient, in logits; signed.

    Ribeiro et al. 2016, of the logit in place of the probability. The first sample is the whole image, in the others
    every superpixel is shown or not with equal chance; images with as many superpixels share them.

    Parameters
    ----------
    solver : str
        ``ridge`` (their code for images) or ``lasso`` (captum's default).
    alpha : float, optional
        Its penalty; default 1 for ridge, 0.01 for lasso.
    """
    if solver not in SOLVERS:
        raise ValueError(f"unknown solver {solver!r}; one of {sorted(SOLVERS)}")
    penalty = alpha if alpha is not None else {"ridge": 1.0, "lasso": 0.01}[solver]
    if n_samples < 2 or not penalty > 0 or not kernel_width > 0:
        raise ValueError(
            f"LIME needs at least two samples, alpha > 0 and kernel_width > 0, not {n_samples}, {penalty} and "
            f"{kernel_width}"
        )

    def draw(k: int) -> np.ndarray:
        masks = np.random.default_rng(derive(seed, k)).random((n_samples, k)) < 0.5
        masks[0] = True
        return masks

    return _surrogate(
        lambda masks, logits: fit_lime(masks, logits, solver, penalty, kernel_width),
        draw, model, images, targets, batch_size, n_segments,
    )  # fmt: skip


def draw_coalitions(k: int, n_samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks (m, k), the empty and the full one first, and weights (m - 2,) of the others.

    All 2^k coalitions with the Shapley kernel's weights where they are no more than ``n_samples``; else draws from that
    kernel, each followed by its complement, all of weight one (Lundberg and Lee 2017; Covert and Lee 2021).
    """
    ends = np.array([[False] * k, [True] * k])
    if 2**k <= n_samples:
        inner = np.array(list(itertools.product([False, True], repeat=k))[1:-1], bool).reshape(-1, k)
        sizes = inner.sum(1)
        weights = np.array([(k - 1) / (math.comb(k, s) * s * (k - s)) for s in sizes])
        return np.concatenate([ends, inner]), weights
    if n_samples - 2 < k - 1:
        raise ValueError(f"{n_samples} samples cannot tell {k} superpixels apart; take n_samples={4 * k} or more")
    rng, sizes = np.random.default_rng(derive(seed, k)), np.arange(1, k)
    chance = 1 / (sizes * (k - sizes))
    pairs = -(-(n_samples - 2) // 2)
    size = rng.choice(sizes, pairs, p=chance / chance.sum())
    half = rng.random((pairs, k)).argsort(1).argsort(1) < size[:, None]
    inner = np.stack([half, ~half], 1).reshape(-1, k)[: n_samples - 2]
    return np.concatenate([ends, inner]), np.ones(len(inner))


def fit_kernel_shap(masks: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Shapley values (k,): least squares under the constraint that they sum to the logit's difference of the ends."""
    empty, full, z, k = logits[0], logits[1], masks[2:], masks.shape[1]
    if k == 1:
        return np.array([full - empty])
    x = z[:, :-1] - z[:, -1:]  # the last value follows from the constraint
    target = logits[2:] - empty - z[:, -1] * (full - empty)
    root = np.sqrt(weights)
    first = np.linalg.lstsq(x * root[:, None], target * root, rcond=None)[0]
    return np.append(first, full - empty - first.sum())


def kernel_shap(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    n_samples: int = 1000,
    n_segments: int = 50,
) -> Tensor:
    """Shapley values of SLIC superpixels, (n, 1, h, w), each pixel with its superpixel's value, in logits; signed.

    Lundberg and Lee 2017 (KernelExplainer): hidden superpixels take the data's mean colour. The values of an image's
    superpixels sum to the difference of its logit to that of the empty image. Exact where all coalitions fit into
    ``n_samples``; images with as many superpixels share the coalitions.
    """
    if n_samples < 4:
        raise ValueError(f"KernelSHAP needs at least four samples, not {n_samples}")
    weights: dict[int, np.ndarray] = {}

    def draw(k: int) -> np.ndarray:
        masks, weights[k] = draw_coalitions(k, n_samples, seed)
        return masks

    return _surrogate(
        lambda masks, logits: fit_kernel_shap(masks, logits, weights[masks.shape[1]]),
        draw, model, images, targets, batch_size, n_segments,
    )  # fmt: skip
