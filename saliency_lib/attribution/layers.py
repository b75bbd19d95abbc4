"""Layers by name, and the names ``top`` and ``mid``; maps of a layer, enlarged to the images."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.weak import WeakIdKeyDictionary

from saliency_lib.attribution.grids import POINTWISE, SPATIAL, Grid, first_of, grid_of, with_first
from saliency_lib.attribution.stages import stages as stages
from saliency_lib.hooks import hooked, uncompiled


def find(model: nn.Module, layer: str) -> nn.Module:
    """The module called ``layer``; ``top`` is the last stage, ``mid`` the lower middle one.

    Woerl et al. 2023 take the second lowest of a ResNet's four stages for ``mid``; they do not say which of VGG's five.

    Raises
    ------
    ValueError
        For an unknown name, or ``top`` or ``mid`` of a network without such stages.
    """
    if layer not in ("top", "mid"):
        named = dict(model.named_modules())
        if not layer or layer not in named:
            raise ValueError(f"unknown layer {layer!r}; 'top', 'mid' or one of {sorted(filter(None, named))}")
        return named[layer]
    found = stages(model)
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no stage on which its logits depend, so no layer {layer!r}; name a layer"
        )
    if layer == "mid" and len(found) < 2:
        raise ValueError(f"{type(model).__name__} has one stage only, {found[0]!r}, so no layer 'mid'; name a layer")
    return model.get_submodule(found[-1] if layer == "top" else found[(len(found) - 1) // 2])


@contextmanager
def used(model: nn.Module, layer: str | None) -> Iterator[list[Grid]]:
    """The grid of the layer's last output, a list of one, in passes of the model inside the block.

    Raises ValueError in a pass that calls the layer not at all or repeatedly, or where it gives no maps, (n, c, h, w),
    (n, h, w, c) or tokens (n, t, c). Without a layer there is nothing to raise for.
    """
    calls, images, grids, spatial = [], [], [], WeakIdKeyDictionary()  # the last keeps no tensor alive

    def begin(_model, inputs) -> None:
        images[:] = inputs[:1]

    def mark(module, inputs, out) -> None:
        if isinstance(module, SPATIAL) or (inputs and inputs[0] in spatial):
            spatial[first_of(out)] = True  # pooling may give indices too

    def note(module, _inputs, out) -> None:
        calls.append(1)
        value = first_of(out)
        grid = grid_of(value, images[0], module) if isinstance(value, Tensor) else None
        if value in spatial:
            grid = Grid("maps", (value.shape[2], value.shape[3]))
        if isinstance(value, Tensor) and len(value) != len(images[0]):
            raise ValueError(
                f"layer {layer!r} sees {len(value)} windows or tokens of {len(images[0])} pictures, not pictures; "
                "choose another"
            )
        if grid is None:
            what = tuple(value.shape) if isinstance(value, Tensor) else type(out).__name__
            raise ValueError(f"layer {layer!r} has no feature maps (n, c, h, w), nor a grid of tokens, but {what}")
        grids[:] = [grid]

    def look(_model, _inputs, _out) -> None:
        times = len(calls)
        calls.clear()
        if not times:
            raise ValueError(f"the model does not use layer {layer!r} in its forward pass; choose another")
        if times > 1:
            raise ValueError(
                f"the model calls layer {layer!r} {times} times, each with maps of its own; choose another"
            )

    if layer is None:
        yield grids
        return
    uncompiled(model)
    plain = [module for module in model.modules() if isinstance(module, (*SPATIAL, *POINTWISE))]
    with (
        hooked([model], begin, before=True),
        hooked(plain, mark),
        hooked([find(model, layer)], note),
        hooked([model], look),
    ):
        yield grids


@contextmanager
def explained(model: nn.Module, layer: str | None, x: Tensor) -> Iterator[list[Tensor]]:
    """What is explained in a pass of x inside the block: a list of one, the layer's output as maps (n, c, h, w), or x
    without a layer.

    What follows the layer may work in place. Raises ValueError as :func:`used` does.
    """
    if layer is None:
        yield [x]
        return
    values: list[Tensor] = []
    with used(model, layer) as grids:

        def keep(_module, _inputs, out: Any) -> Any:
            values[:] = [grids[0].maps(first_of(out))]
            return with_first(out, grids[0].output(values[0], first_of(out)))

        with hooked([find(model, layer)], keep):
            yield values


def upsampled(maps: Tensor, images: Tensor) -> Tensor:
    """Maps of a layer, (n, c, h', w'), bilinearly resized to the images' (h, w); of one pixel exactly constant."""
    if maps.shape[-2:] == (1, 1):
        return maps.repeat(1, 1, *images.shape[-2:])
    return F.interpolate(maps, images.shape[-2:], mode="bilinear", align_corners=False)
