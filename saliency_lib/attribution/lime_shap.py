"""KernelSHAP and LIME: a linear model of what hiding superpixels does to the logit.

captum's do the same but take superpixels as an argument, send a few perturbations at a time through the network and
loop over them in Python; tests/test_surrogates.py compares the coefficients.
"""

import hashlib
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from saliency_lib.attribution.method import Kernel, method
from saliency_lib.runtime.seeds import derive

PENALTY, WIDTH = 1.0, 0.25  # of LIME: of its ridge regression, and of the kernel that weighs near samples more
KEPT = 20_000_000  # pixels of segmentations that are remembered
_segments: OrderedDict[tuple, Tensor] = OrderedDict()


def superpixels(image: Tensor, n_segments: int) -> Tensor:
    """Segments of one image, (h, w) int64, numbered from 0 without gaps; at most about ``n_segments`` of them.

    Where there are no more pixels than segments, every pixel is one.

    Achanta et al. 2012, by scikit-image, on the normalised image (c, h, w) stretched to [0, 1]; of others than three
    channels their mean, as a grey picture. The same image always gives the same segments, from memory if it was seen
    lately, so that networks and methods share them.
    """
    from skimage.segmentation import slic  # here, since it takes a third of a second

    if n_segments < 2:
        raise ValueError(f"at least two superpixels are needed, not n_segments={n_segments}")
    if n_segments >= image[0].numel():
        return torch.arange(image[0].numel()).view_as(image[0])
    values = image.detach().cpu().float().contiguous().numpy()
    key = (hashlib.sha256(values.tobytes()).digest(), values.shape, n_segments)
    if key not in _segments:
        colours = values if len(values) == 3 else values.mean(0, keepdims=True).repeat(3, 0)
        stretched = (colours - colours.min()) / max(np.ptp(colours), 1e-12)
        labels = slic(stretched, n_segments=n_segments, start_label=0, channel_axis=0)
        _segments[key] = torch.from_numpy(np.unique(labels, return_inverse=True)[1].reshape(labels.shape))
        while len(_segments) > 1 and len(_segments) * values[0].size > KEPT:
            _segments.popitem(last=False)
    _segments.move_to_end(key)
    return _segments[key].clone()


@torch.no_grad()
def _logits(model: nn.Module, x: Tensor, y: Tensor, segments: Tensor, masks: Tensor, size: int) -> Tensor:
    """Target's logit of one image, (c, h, w), with superpixels shown or at the mean colour; masks (m, k): (m,)."""
    found = []
    for part in masks.to(x).split(size):
        keep = part[:, segments.flatten()].view(-1, 1, *segments.shape)
        shown = keep * x
        found.append(model(shown)[:, y])
    return torch.cat(found)


def _surrogate(
    model: nn.Module,
    n_segments: int,
    draw: Callable[[int], tuple[np.ndarray, np.ndarray]],
    fit: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
) -> Kernel:
    """Kernel of maps (m, 1, h, w) of coefficients: ``draw(k)`` gives masks (m, k) bool and weights, and
    ``fit(masks, logits, weights)`` k numbers."""
    drawn = cache(draw)

    def kernel(x, y, size):
        found = []
        for image, target in zip(x, y):
            segments = superpixels(image, n_segments).to(x.device)
            masks, weights = drawn(int(segments.max()) + 1)
            logits = _logits(model, image, target, segments, torch.from_numpy(masks), size)
            coefficients = fit(masks.astype(np.float64), logits.double().cpu().numpy(), weights)
            found.append(torch.from_numpy(coefficients).to(x)[segments])
        return torch.stack(found)[:, None]

    return kernel


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
    rng, sizes = np.random.default_rng(derive(seed, k)), np.arange(1, k)
    chance = 1 / (sizes * (k - sizes))
    pairs = -(-(n_samples - 2) // 2)
    size = rng.choice(sizes, pairs, p=chance / chance.sum())
    half = rng.random((pairs, k)).argsort(1).argsort(1) < size[:, None]
    inner = np.stack([half, ~half], 1).reshape(-1, k)[: n_samples - 2]
    if np.linalg.matrix_rank(inner[:, :-1] - inner[:, -1:].astype(float)) < k - 1:
        raise ValueError(f"{n_samples} samples cannot tell {k} superpixels apart; take n_samples={4 * k} or more")
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


@method("Lundberg and Lee 2017", forwards=1000, backwards=0, stochastic=True)
def kernel_shap(model, images, seed, *, n_samples: int = 1000, n_segments: int = 50):
    """Shapley values of SLIC superpixels, (n, 1, h, w), each pixel with its superpixel's value, in logits; signed.

    Their KernelExplainer: hidden superpixels take the data's mean colour. The values of an image's superpixels sum to
    the difference of its logit to that of the empty image. Exact where all coalitions fit into ``n_samples``; images
    with as many superpixels share the coalitions.
    """
    if n_samples < 4:
        raise ValueError(f"KernelSHAP needs at least four samples, not {n_samples}")
    return _surrogate(model, n_segments, lambda k: draw_coalitions(k, n_samples, seed), fit_kernel_shap)


def draw_shown(k: int, n_samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks (n_samples, k), the full one first, and weights: exp(-d^2 / w^2)^(1/2), d the cosine distance to it."""
    masks = np.random.default_rng(derive(seed, k)).random((n_samples, k)) < 0.5
    masks[0] = True
    shown = masks.sum(1)
    distance = 1 - shown / np.sqrt(np.maximum(shown, 1) * k)
    return masks, np.sqrt(np.exp(-(distance**2) / WIDTH**2))


def fit_lime(masks: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Coefficients (k,) of a linear model, with intercept, of logits (m,) by masks (m, k): ridge regression, as in the
    authors' code for images."""
    centre, level = np.average(masks, axis=0, weights=weights), np.average(logits, weights=weights)
    x = masks - centre
    weighted = x.T * weights
    return np.linalg.solve(weighted @ x + PENALTY * np.eye(masks.shape[1]), weighted @ (logits - level))


@method("Ribeiro et al. 2016", forwards=1000, backwards=0, stochastic=True)
def lime(model, images, seed, *, n_samples: int = 1000, n_segments: int = 50):
    """LIME on SLIC superpixels, (n, 1, h, w), each pixel with its superpixel's coefficient, in logits; signed.

    Of the logit in place of the probability. The first sample is the whole image, in the others every superpixel is
    shown or not with equal chance; images with as many superpixels share them.
    """
    if n_samples < 2:
        raise ValueError(f"LIME needs at least two samples, not {n_samples}")
    return _surrogate(model, n_segments, lambda k: draw_shown(k, n_samples, seed), fit_lime)
