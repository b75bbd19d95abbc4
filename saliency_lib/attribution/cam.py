"""GradCAM: feature maps of one layer, weighted by their mean gradients."""

from collections.abc import Iterator
from contextlib import contextmanager

from captum.attr import LayerGradCam
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_lib.attribution import layers
from saliency_lib.attribution.passes import hooked, in_batches


@contextmanager
def used(model: nn.Module, module: nn.Module, layer: str) -> Iterator[None]:
    """Raise ValueError after a pass of the model inside the block that went past ``module``."""
    calls = []

    def look(_model, _inputs, _out) -> None:
        if not calls:
            raise ValueError(f"the model does not use layer {layer!r} in its forward pass; choose another")
        calls.clear()

    with hooked([module], lambda *_: calls.append(1)), hooked([model], look):
        yield


def gradcam(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    layer: str = "top",
    relu: bool = False,
) -> Tensor:
    """Class activation maps at a layer, (n, 1, h, w), bilinearly resized to the images; signed, in logits.

    Selvaraju et al. 2019. Their ReLU is an option, since maps without negative values inflate the SNR.

    Parameters
    ----------
    layer : str
        A module's name, or ``top`` (the last convolutional stage) or ``mid`` (the lower middle one).
    relu : bool
        Cut negative values at the layer's own resolution, as the paper does.

    Raises
    ------
    ValueError
        For an unknown layer, or one whose output is not (n, c, h, w).
    """
    module = layers.find(model, layer)
    method = LayerGradCam(lambda x: model(x), module)

    def maps(x: Tensor, y: Tensor, _size: int) -> Tensor:
        small = method.attribute(x, target=y, relu_attributions=relu)
        if small.ndim != 4:
            raise ValueError(
                f"layer {layer!r} has no feature maps (n, c, h, w) but {tuple(small.shape)}; choose another"
            )
        return F.interpolate(small.detach(), x.shape[-2:], mode="bilinear", align_corners=False)

    with used(model, module, layer):
        return in_batches(maps, model, images, targets, batch_size)
