"""What becomes of mean maps as members are added: whether norms settle, by halves, and the law of sqrt(n).

All norms come from inner products of the members' maps, so that hundreds of ways to halve them cost little.
"""

from collections.abc import Sequence
from operator import itemgetter

import numpy as np
import torch
from torch import Tensor

from saliency_lib.channels import finite
from saliency_lib.estimates import GROUPS, Estimate, Replicates, replicates
from saliency_lib.snr import measure_maps


def inner_products(maps: Tensor) -> Tensor:
    """Inner products of every two members' maps (members, images, ...): (images, members, members) float64, on CPU."""
    flat = finite(maps).flatten(2).double().cpu()
    return torch.einsum("nip,mip->inm", flat, flat)


def norms(products: Tensor, chosen: Tensor) -> Tensor:
    """||mean|| and ||sigma|| of some members' maps, (2, choices, images), by their :func:`inner_products`.

    ``chosen``, (choices, members) float64, is 1 for at least two members of each choice and 0 for the others.
    """
    n = chosen.sum(1, keepdim=True)
    mean = torch.einsum("wn,inm,wm->wi", chosen, products, chosen) / n**2
    noise = (torch.einsum("wn,inn->wi", chosen, products) - n * mean) / (n - 1)
    return torch.stack([mean, noise]).sqrt()


def settled(maps: Tensor, *, seed: int = 0, ways: int = 200, within: float = 0.1) -> dict[str, Estimate]:
    """Shares of images, in [0, 1], on which ``‖μ‖``, and on which ``‖σ‖``, has settled, with intervals over members.

    It has where that of one half of the members, maps (members, images, ...), is ``within`` that of the other half,
    relative to it, which shares no member; mean over random ``ways`` to halve them. No number for fewer than four.
    The jackknife's groups are of one even size where the number of members allows it, so that all halves lose alike.
    """
    products = inner_products(maps)

    def of(members: Sequence[int]) -> list[float]:
        if (half := len(members) // 2) < 2:
            return [np.nan, np.nan]
        rng, nobody = np.random.default_rng(seed), torch.zeros(ways, len(maps), dtype=torch.float64)
        order = torch.as_tensor(np.stack([rng.permutation(members) for _ in range(ways)]))
        halves = [nobody.scatter(1, part, 1.0) for part in (order[:, :half], order[:, half : 2 * half])]
        one, other = (norms(products, chosen) for chosen in halves)
        return ((one / other - 1).abs() < within).double().mean((1, 2)).tolist()

    n = len(maps)
    counts = (*range(GROUPS, 2, -1), *range(GROUPS + 1, n // 2 + 1))
    found = replicates(of, n, most=next((count for count in counts if n % (2 * count) == 0), n))
    return {"‖μ‖": found.estimate(itemgetter(0)), "‖σ‖": found.estimate(itemgetter(1))}


def loglog_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Exponent b of the least-squares fit y = a x^b; not a number for fewer than two points, or one at or below 0."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if len(x) < 2 or not ((x > 0).all() and (y > 0).all()):
        return float("nan")
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def of_groups(maps: Tensor, sizes: Sequence[int]) -> Replicates[np.ndarray]:
    """SNR of the mean of k maps for each k of ``sizes``, and its noise relative to one map's: rows of (2, sizes).

    Maps (members, images, c, h, w) are put into disjoint groups of k consecutive members, and each group's mean is
    taken for a map. The SNR is debiased, a root of a ratio of means over images. Replicates leave out a block of as
    many members as the last, largest size, of which there must be four.
    """

    def curves(maps: Tensor) -> np.ndarray:
        means = [maps[: len(maps) // k * k].unflatten(0, (-1, k)).mean(1) for k in sizes]
        powers = [measure_maps(of_size).value for of_size in means]
        signal, noise = np.array([(p.signal.mean().item(), p.noise.mean().item()) for p in powers]).T
        return np.sqrt([np.clip(signal, 0, None) / noise, noise / noise[0]])

    block = torch.arange(len(maps)) // sizes[-1]
    left_out = tuple(curves(maps[block != b]) for b in block.unique())
    return Replicates(curves(maps), left_out, tuple(block.bincount().tolist()))
