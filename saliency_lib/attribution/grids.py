"""Outputs of layers as maps: of convolutions (n, c, h, w), of blocks that keep channels last, and of tokens."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

MOST = 16  # tokens of no place, as of the class and registers; they come first
SPATIAL = (  # which give (n, c, h, w)
    nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.InstanceNorm2d, nn.MaxPool2d, nn.AvgPool2d,
)  # fmt: skip
POINTWISE = (  # which leave all places where they are
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.SiLU, nn.GELU, nn.Mish,
    nn.Softplus, nn.Softsign, nn.Sigmoid, nn.Tanh, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.LogSigmoid,
    nn.Dropout, nn.Dropout2d, nn.GroupNorm, nn.Identity,
)  # fmt: skip
LIKE = 0.2  # how far the shape of a grid may be from that of the picture, relative to it


@dataclass(frozen=True)
class Grid:
    """How the places of a layer's output lie.

    Attributes
    ----------
    kind : str
        ``"maps"`` for (n, c, h, w), ``"last"`` for (n, h, w, c), ``"tokens"`` for (n, t, c).
    shape : tuple of int
        (h, w).
    skipped : int
        Tokens of no place before the grid.
    """

    kind: str
    shape: tuple[int, int]
    skipped: int = 0

    def maps(self, out: Tensor) -> Tensor:
        """The output as (n, c, h, w)."""
        if self.kind == "maps":
            return out
        if self.kind == "tokens":
            out = out[:, self.skipped :].unflatten(1, self.shape)
        return out.permute(0, 3, 1, 2)

    def output(self, maps: Tensor, out: Tensor) -> Tensor:
        """Maps, (n, c, h, w), in the place of an output's, as a new tensor."""
        if self.kind == "maps":
            return maps.clone()
        places = maps.permute(0, 2, 3, 1)
        return torch.cat([out[:, : self.skipped], places.flatten(1, 2)], 1) if self.kind == "tokens" else places.clone()


def first_of(out: Any) -> Any:
    """The tensor in a layer's output: itself, or the first entry of several, as transformers' blocks give them."""
    return out[0] if isinstance(out, (tuple, list)) and out else out


def with_first(out: Any, tensor: Tensor) -> Any:
    """A layer's output with another tensor in that place."""
    if hasattr(out, "_fields"):
        return out._replace(**{out._fields[0]: tensor})
    return type(out)([tensor, *out[1:]]) if isinstance(out, (tuple, list)) else tensor


def _spatial(module: nn.Module | None) -> bool:
    """Whether what a module ends with, activations left aside, gives (n, c, h, w)."""
    leaves = [m for m in module.modules() if not any(m.children())] if module is not None else []
    return isinstance(next((m for m in reversed(leaves) if not isinstance(m, POINTWISE)), None), SPATIAL)


def grid_of(out: Tensor, images: Tensor, module: nn.Module | None = None) -> Grid | None:
    """The grid of a module's output in a pass of images, (n, c, h, w); None where it is none.

    A convolution, normalised or pooled, gives maps of any proportions. Of other outputs, the side that has the
    picture's proportions is the grid. Tokens are one if whole rows and columns, nearest to these proportions, are left
    once up to ``MOST`` are taken off the front.
    """
    wanted = images.shape[-2] / images.shape[-1]

    def off(h: int, w: int) -> float:
        """How far a grid is from the picture's proportions, more than by rounding."""
        return 0.0 if abs(h - w * wanted) < 1 else abs(h / w / wanted - 1)

    if out.ndim == 4:
        _, a, b, c = out.shape
        maps, last = off(b, c), off(a, b)
        if isinstance(module, SPATIAL) or (_spatial(module) and not last <= LIKE < maps):
            return Grid("maps", (b, c))
        grid = Grid("maps", (b, c)) if maps <= last else Grid("last", (a, b))
        return grid if min(maps, last) <= LIKE else None
    if out.ndim != 3 or out.shape[2] == 1:
        return None
    ways = []
    for skipped in range(min(MOST, out.shape[1] - 2) + 1):
        places = out.shape[1] - skipped
        h = round((places * wanted) ** 0.5)
        if h and places % h == 0:
            ways.append((off(h, places // h), Grid("tokens", (h, places // h), skipped)))
    least, grid = min(ways, key=lambda way: way[0], default=(math.inf, None))  # of equals the first, which skips fewest
    return grid if least <= LIKE else None
