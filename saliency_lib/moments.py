"""Mean and spread of maps over members, one member at a time."""

import torch
from torch import Tensor


class Moments:
    """Mean and spread of maps over members, without keeping the maps (Welford; Chan et al. for ``merge``).

    Attributes
    ----------
    n : int
        Members seen.
    mean, m2 : Tensor
        (images, c, h, w) float64: mean over members, and sum of squared deviations from it.
    """

    def __init__(self):
        self.n, self.mean, self.m2 = 0, None, None

    def update(self, maps: Tensor) -> "Moments":
        """Add one member's maps, (images, c, h, w); raises ValueError if the shape differs from the others'."""
        if self.mean is not None and maps.shape != self.mean.shape:
            raise ValueError(f"maps of shape {tuple(maps.shape)} do not go with those of {tuple(self.mean.shape)}")
        maps = maps.detach().double()
        if self.mean is None:
            self.mean, self.m2 = torch.zeros_like(maps), torch.zeros_like(maps)
        self.n += 1
        delta = maps - self.mean
        self.mean += delta / self.n
        self.m2.addcmul_(delta, maps - self.mean)
        return self

    def merge(self, other: "Moments") -> "Moments":
        """Add the members that ``other`` has seen; ``other`` stays as it is."""
        if other.n == 0:
            return self
        if self.n == 0:
            self.n, self.mean, self.m2 = other.n, other.mean.clone(), other.m2.clone()
            return self
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"moments of shape {tuple(other.mean.shape)} do not go with {tuple(self.mean.shape)}")
        total, delta = self.n + other.n, other.mean - self.mean
        self.m2 += other.m2 + delta**2 * (self.n * other.n / total)
        self.mean += delta * (other.n / total)
        self.n = total
        return self

    def without(self, part: "Moments") -> "Moments":
        """The moments of the members that are in this but not in ``part``, which must be some of them."""
        if part.n == 0:
            return Moments().merge(self)
        rest = Moments()
        rest.n = self.n - part.n
        if rest.n == 0:
            return rest
        rest.mean = (self.mean * self.n - part.mean * part.n) / rest.n
        delta = part.mean - rest.mean
        rest.m2 = (self.m2 - part.m2 - delta**2 * (part.n * rest.n / self.n)).clamp(min=0)
        return rest

    @property
    def variance(self) -> Tensor:
        """Unbiased variance per pixel, (images, c, h, w)."""
        if self.n < 2:
            raise ValueError(f"a spread needs at least two members, not {self.n}")
        return self.m2 / (self.n - 1)
