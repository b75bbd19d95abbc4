"""Where members' maps agree, pixel by pixel, and where they should not be read."""

from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from saliency_lib.channels import total

ROUNDING = 1e-6  # of a map's largest value: less has no sign


@dataclass(frozen=True)
class Agreement:
    """Over members, per image and pixel, of maps summed over channels.

    Attributes
    ----------
    mean, spread : Tensor
        (images, h, w): mean and standard deviation over members.
    share : Tensor
        (images, h, w): of the members, the share that has the more frequent sign; zero counts for neither.
    readable : Tensor
        (images, h, w) bool: as many agree as :func:`votes_needed` asks for.
    members, votes : int
        How many there are, and how many must agree.
    by_chance : float
        The share of pixels that would be readable if every sign were tossed.
    signed : bool
        Whether it is the sign that members agree in, or else the side of the map's own mean.
    """

    mean: Tensor
    spread: Tensor
    share: Tensor
    readable: Tensor
    members: int
    votes: int
    by_chance: float
    signed: bool


def votes_needed(members: int, level: float = 0.05) -> tuple[int, float]:
    """Members that must agree in sign, the fewest that tossed signs reach with probability ``level`` at most, and that
    probability; all of them where even that is likelier, as for fewer than six."""
    for votes in range(members // 2 + 1, members + 1):
        chance = min(1.0, 2 * float(stats.binom.sf(votes - 1, members, 0.5)))
        if chance <= level or votes == members:
            return votes, chance
    raise ValueError(f"agreement takes two members at least, not {members}")


def agreement(maps: Tensor, signed: bool = True) -> Agreement:
    """Agreement of maps (members, images, c, h, w).

    Parameters
    ----------
    signed : bool
        False for methods whose maps have one sign: what lies above and below the map's own mean is compared.

    Raises
    ------
    ValueError
        For fewer than two members.
    """
    if len(maps) < 2:
        raise ValueError(f"agreement takes two members at least, not {len(maps)}")
    flat = torch.stack([total(m).squeeze(1) for m in maps])
    values = flat if signed else flat - flat.mean((-2, -1), keepdim=True)
    least = ROUNDING * flat.abs().amax((-2, -1), keepdim=True)
    most = torch.maximum((values > least).sum(0), (values < -least).sum(0))
    votes, chance = votes_needed(len(maps))
    return Agreement(flat.mean(0), flat.std(0), most / len(maps), most >= votes, len(maps), votes, chance, signed)
