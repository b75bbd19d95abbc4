"""What networks trained alike share in their maps: as a ratio of signal to noise, and pixel by pixel."""

import math
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from saliency_lib import snr
from saliency_lib.channels import finite, total
from saliency_lib.controls import SHIFT, independent_pixels, shift, unbiased_power
from saliency_lib.estimates import Estimate
from saliency_lib.runtime.seeds import derive

SHIFTS = 4
ROUNDING = 1e-6  # of a map's largest value: less has no sign


@dataclass(frozen=True)
class Signal:
    """Signal-to-noise ratios of a method's maps; intervals are over members, and need three."""

    plugin: Estimate  # mean over images of Eq. 5 of Woerl et al. 2023
    debiased: Estimate  # the same less what pure noise adds, and few members of maps that are worth few pixels
    null: Estimate  # debiased, of the same maps, each moved about at random
    more: Estimate  # share of a map's power that members share, minus that of the moved maps

    @property
    def shown(self) -> bool:
        """Whether members share more of their maps than of the moved ones, by the interval of the difference."""
        return self.more.low > 0


def _shared(p: snr.Powers) -> float:
    """Mean over images of the share of a single map's power that is common, 1 at most."""
    return (p.signal / (p.signal + p.noise)).nanmean().item()


def signal(maps: Tensor, seed: int = 0) -> Signal:
    """Signal of maps (members, images, c, h, w); ValueError for values that are not finite."""
    both = finite(maps), torch.cat([shift(maps, derive(seed, SHIFT, k)) for k in range(SHIFTS)], 1)
    own, moved = (snr.measure_maps(each) for each in both)
    plugin = own.estimate(snr.plugin_mean)
    more = own.estimate(lambda of_own, of_moved: _shared(of_own) - _shared(of_moved), moved)
    debiased, null = (_unbiased(measured, each) for measured, each in zip((own, moved), both))
    return Signal(plugin.map(lambda value: max(value, 0.0)), debiased, null, more)


def _unbiased(measured: snr.Measurement, maps: Tensor) -> Estimate:
    pixels = independent_pixels(maps).nan_to_num(math.inf)  # two members do not tell how many
    return measured.estimate(lambda p: unbiased_power(p, pixels)).map(snr.rooted)


@dataclass(frozen=True)
class Agreement:
    """Agreement of members per image and pixel, (images, h, w), of maps summed over channels."""

    mean: Tensor  # over members
    spread: Tensor  # standard deviation over members
    share: Tensor  # of members that have the more frequent sign; zero counts for neither
    readable: Tensor  # bool: as many agree as `votes_needed` asks for
    members: int
    votes: int  # how many must agree
    by_chance: float  # share of pixels that would be readable if every sign were tossed
    signed: bool  # whether members agree in the sign, or else in the side of the map's own median


def votes_needed(members: int) -> tuple[int, float]:
    """Members that must agree in sign, the fewest that tossed signs reach with probability 0.05 at most, and that
    probability; all of them where even that is likelier, as for fewer than six. ValueError for fewer than two."""
    if members < 2:
        raise ValueError(f"agreement takes two members at least, not {members}")
    votes = min(int(stats.binom.isf(0.025, members, 0.5)) + 1, members)
    return votes, 2 * float(stats.binom.sf(votes - 1, members, 0.5))


def agreement(maps: Tensor, signed: bool = True) -> Agreement:
    """Agreement of maps (members, images, c, h, w); ValueError for fewer than two members, and for values that
    are not finite.

    Where a method's maps have one sign (``signed=False``), what lies above and below the map's own median is compared;
    above the mean chance would be no tossed coin where few pixels are large.
    """
    votes, chance = votes_needed(len(maps))
    flat = torch.stack([total(m).squeeze(1) for m in finite(maps)])
    values = flat if signed else flat - flat.flatten(-2).median(-1).values[..., None, None]
    least = ROUNDING * flat.abs().amax((-2, -1), keepdim=True)
    most = torch.maximum((values > least).sum(0), (values < -least).sum(0))
    return Agreement(flat.mean(0), flat.std(0), most / len(maps), most >= votes, len(maps), votes, chance, signed)
