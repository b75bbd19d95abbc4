"""GradCAM: feature maps of one layer, weighted by their mean gradients."""

from captum.attr import LayerGradCam
from torch import Tensor, nn

from saliency_lib.attribution import layers
from saliency_lib.inference import in_batches


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
        For an unknown layer, one that is not called just once, or one whose output is not (n, c, h, w).
    """
    module = layers.find(model, layer)
    method = LayerGradCam(lambda x: model(x), module)

    def maps(x: Tensor, y: Tensor, _size: int) -> Tensor:
        small = method.attribute(x, target=y, relu_attributions=relu)
        return layers.upsampled(layers.feature_maps(small, layer), x)

    with layers.used(model, module, layer):
        return in_batches(maps, model, images, targets, batch_size)
