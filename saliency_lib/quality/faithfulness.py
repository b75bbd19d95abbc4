"""Does the model lose most where a map is largest."""

import torch
from torch import Tensor, nn

from saliency_lib.channels import finite
from saliency_lib.inference import check, fitting, scores
from saliency_lib.runtime.seeds import SUBSETS, derive
from saliency_lib.similarity import pearson


def faithfulness_correlation(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    maps: Tensor,
    *,
    n_runs: int = 100,
    subset_size: int = 224,
    seed: int = 0,
    batch_size: int | None = None,
) -> Tensor:
    """Correlation of a random subset's sum in the map with the drop of the target's logit when it is erased, (..., n).

    Bhatt et al. 2020, with Quantus's defaults; Pearson, float64. Not a number where one of the two does not vary.

    Parameters
    ----------
    maps : Tensor
        (..., n, c or 1, h, w): several sets of maps share the passes. One channel stands for all of them.
    n_runs : int
        Random subsets per image; they depend on ``seed`` and the image's place, not on ``batch_size``.
    subset_size : int
        Values of the image, of all c * h * w, that are erased at once: they become the image's smallest value, as
        with Quantus's "black".

    Raises
    ------
    ValueError
        For maps of another shape than the images, and sizes out of range.
    """
    features = images[0].numel()
    if n_runs < 2 or not 1 <= subset_size <= features:
        raise ValueError(
            f"a correlation needs two runs and subsets of 1 to {features} values, not n_runs={n_runs} and "
            f"subset_size={subset_size}"
        )
    if maps.shape[-4:] not in (images.shape, images[:, :1].shape):
        raise ValueError(f"images {tuple(images.shape)} need maps of one or all channels, not {tuple(maps.shape)}")
    check(model, images, targets, batch_size)
    size, flat = batch_size or fitting(model, images), images.flatten(1)
    values = finite(maps).detach().double().expand(*maps.shape[:-4], *images.shape).flatten(-3)
    black = flat.amin(1, keepdim=True).expand(-1, subset_size)
    before, drops, sums = scores(model, images, targets, size), [], []
    for run in range(n_runs):
        generator = torch.Generator().manual_seed(derive(seed, SUBSETS, run + 1))
        order = torch.rand(len(images), features, generator=generator)
        erased = order.topk(subset_size, sorted=False).indices.to(images.device)
        x = flat.scatter(1, erased, black).view_as(images)
        drops.append(before - scores(model, x, targets, size))
        sums.append(values.gather(-1, erased.expand(*maps.shape[:-4], *erased.shape)).sum(-1))
    sums, drops = torch.stack(sums, -1), torch.stack(drops, -1)
    return pearson(sums.flatten(0, -2), drops.expand_as(sums).flatten(0, -2)).view(sums.shape[:-1])
