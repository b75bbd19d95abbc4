"""What members' maps share, against what is each map's own, with what maps score that share no place."""

from dataclasses import dataclass

import torch
from torch import Tensor

from saliency_lib import snr
from saliency_lib.controls import SHIFT, shift
from saliency_lib.estimates import Estimate
from saliency_lib.runtime.seeds import derive

SHIFTS = 4


@dataclass(frozen=True)
class Signal:
    """Signal-to-noise ratios of a method's maps; intervals are over members, and need three.

    Attributes
    ----------
    plugin, debiased : Estimate
        Mean over images of Eq. 5 of Woerl et al. 2023; the same less what pure noise adds.
    null : Estimate
        Debiased, of the same maps, each moved about at random.
    """

    plugin: Estimate
    debiased: Estimate
    null: Estimate

    @property
    def shown(self) -> bool:
        """Whether the interval lies above that of the null."""
        return self.debiased.low > self.null.high


def signal(maps: Tensor, seed: int = 0) -> Signal:
    """Signal of maps (members, images, c, h, w); ValueError for values that are not finite."""
    if not torch.isfinite(maps).all():
        raise ValueError("the maps hold values that are not finite")
    own = snr.measure_maps(maps)
    moved = snr.measure_maps(torch.cat([shift(maps, derive(seed, SHIFT, k)) for k in range(SHIFTS)], 1))
    plugin = own.estimate(snr.plugin_mean)
    return Signal(plugin._replace(low=max(plugin.low, 0.0)), own.debiased(), moved.debiased())
