"""Does a map point at the object, given the object's mask."""

import torch
from scipy.stats import rankdata
from torch import Tensor

from saliency_lib.channels import finite


def _flat(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    if masks.ndim != 3 or masks.dtype != torch.bool:
        raise ValueError(f"expected masks (n, h, w) of bool, not {tuple(masks.shape)} of {masks.dtype}")
    if maps.shape[-4:] != (len(masks), 1, *masks.shape[1:]):
        raise ValueError(
            f"masks {tuple(masks.shape)} need maps (..., {len(masks)}, 1, {masks.shape[1]}, {masks.shape[2]}), not "
            f"{tuple(maps.shape)}; channels.abs_sum(maps) makes one channel of several"
        )
    return finite(maps).detach().flatten(-3), masks.flatten(1).to(maps.device)


def relevance_rank_accuracy(maps: Tensor, masks: Tensor) -> Tensor:
    """Share of the k highest pixels that lie on the object of k pixels, (..., n) float64 in [0, 1].

    Arras et al. 2020. Pixels with the value of the k-th share what is left of the k evenly, so that a constant map
    scores the object's share of the picture; Quantus takes them as they come. Not a number for an empty mask.

    Parameters
    ----------
    maps : Tensor
        (..., n, 1, h, w): as they are, so take absolute values before if the sign does not matter.
    masks : Tensor
        (n, h, w) bool, True on the object.
    """
    values, inside = _flat(maps, masks)
    k = inside.sum(1)
    ordered = values.sort(-1, descending=True).values
    place = (k - 1).clamp(min=0).view(-1, 1).expand(*values.shape[:-1], 1)
    limit = ordered.gather(-1, place)
    above, level = values > limit, values == limit
    left = (k - above.sum(-1)).double() / level.sum(-1)
    hits = (above & inside).sum(-1) + left * (level & inside).sum(-1)
    return torch.where(k > 0, hits / k, torch.nan)


def boxes(masks: Tensor) -> Tensor:
    """The smallest box around every object, masks (n, h, w) bool like those given; an empty mask has none."""

    def between(hit: Tensor) -> Tensor:  # from the first to the last that is True, (n, side)
        after, before = hit.int().cummax(1).values, hit.int().flip(1).cummax(1).values.flip(1)
        return (after * before).bool()

    return between(masks.any(2))[:, :, None] & between(masks.any(1))[:, None, :]


def ranking_auc(maps: Tensor, masks: Tensor) -> Tensor:
    """Area under the ROC curve of the map as a score of being on the object, (..., n) float64 in [0, 1].

    Bykov et al. 2022, Tab. 2, after Fawcett 2006; 0.5 for a constant map. Not a number where the mask is empty or full.

    Parameters
    ----------
    maps, masks
        As in :func:`relevance_rank_accuracy`.
    """
    values, inside = _flat(maps, masks)
    ranks = torch.from_numpy(rankdata(values.cpu().numpy(), axis=-1)).to(values.device)  # ties by mean rank
    n_in = inside.sum(1).double()
    n_out = inside.shape[1] - n_in
    return ((ranks * inside).sum(-1) - n_in * (n_in + 1) / 2) / (n_in * n_out)
