"""Layers by name, and the names ``top`` and ``mid``; maps of a layer, enlarged to the images."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn import functional as F

from saliency_lib.hooks import hooked

POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Flatten, nn.Linear)
CONVOLUTIONAL = (nn.Conv2d, nn.BatchNorm2d, nn.InstanceNorm2d, nn.ReLU, nn.Softplus, nn.GELU, nn.Tanh, nn.Identity)


def stages(model: nn.Module) -> list[str]:
    """Names of the layers that close a stage, lowest first.

    The model's own ``stages`` if it has them; the residual stages ``layer1`` to ``layer4``; else, in the order of the
    modules, what comes last before each pooling, or each convolution's end where nothing is pooled. That order is right
    for the networks of this project and for plain ones like them; for others, name the layer.
    """
    if own := getattr(model, "stages", None):
        return list(own)
    residual = [f"layer{k}" for k in range(1, 5)]
    if all(hasattr(model, name) for name in residual):
        return residual
    leaves = [(name, module) for name, module in model.named_modules() if not any(module.children())]
    before_pool, before_conv, last = [], [], None
    for name, module in leaves:
        if isinstance(module, POOLS) and last:
            before_pool.append(last)
            last = None
        if isinstance(module, nn.Linear):
            break
        if isinstance(module, nn.Conv2d) and last:
            before_conv.append(last)
        if isinstance(module, CONVOLUTIONAL) and (last or isinstance(module, nn.Conv2d)):
            last = name
    return before_pool if len(before_pool) > 1 else before_conv + before_pool


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
        raise ValueError(f"{type(model).__name__} has no convolutional stage, so no layer {layer!r}; name a layer")
    if layer == "mid" and len(found) < 2:
        raise ValueError(f"{type(model).__name__} has one stage only, {found[0]!r}, so no layer 'mid'; name a layer")
    return model.get_submodule(found[-1] if layer == "top" else found[(len(found) - 1) // 2])


@contextmanager
def used(model: nn.Module, layer: str | None) -> Iterator[None]:
    """Raise ValueError in a pass of the model inside the block that calls the layer not at all or repeatedly, or where
    it gives no maps (n, c, h, w). Without a layer there is nothing to raise for."""
    calls = []

    def note(_module, _inputs, out) -> None:
        calls.append(1)
        if not isinstance(out, Tensor) or out.ndim != 4:
            what = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ValueError(f"layer {layer!r} has no feature maps (n, c, h, w) but {what}; choose another")

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
        yield
        return
    with hooked([find(model, layer)], note), hooked([model], look):
        yield


@contextmanager
def explained(model: nn.Module, layer: str | None, x: Tensor) -> Iterator[list[Tensor]]:
    """What is explained in a pass of x inside the block: a list of one, the layer's output, or x without a layer.

    What follows the layer may work in place. Raises ValueError as :func:`used` does.
    """
    if layer is None:
        yield [x]
        return
    values = []

    def keep(_module, _inputs, out: Tensor) -> Tensor:
        values[:] = [out]
        return out.clone()

    with used(model, layer), hooked([find(model, layer)], keep):
        yield values


def upsampled(maps: Tensor, images: Tensor) -> Tensor:
    """Maps of a layer, (n, c, h', w'), bilinearly resized to the images' (h, w)."""
    return F.interpolate(maps, images.shape[-2:], mode="bilinear", align_corners=False)
