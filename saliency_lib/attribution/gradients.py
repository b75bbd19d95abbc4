"""Gradients of one output by the input, or by a layer."""

from captum.attr import InputXGradient, LayerGradientXActivation, Saliency
from torch import Tensor, nn

from saliency_lib.attribution import layers
from saliency_lib.inference import in_batches


def input_gradient(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    layer: str | None = None,
) -> Tensor:
    """Gradients of the target's logit by the input, (n, c, h, w), logit per unit of normalised input; signed.

    Woerl et al. 2023, Eq. 6 (after Simonyan et al. 2014): no softmax, no absolute value.

    Parameters
    ----------
    layer : str, optional
        Explain the output of this layer, at its own channels and resolution, (n, c', h', w'), as Herdt et al. 2024 do.

    Raises
    ------
    ValueError
        For an unknown layer, one that is not called just once, or one whose output is not (n, c, h, w).
    """
    if layer is None:
        return _gradient(model, lambda x: model(x), images, targets, batch_size)
    module = layers.find(model, layer)
    method = LayerGradientXActivation(lambda x: model(x), module, multiply_by_inputs=False)
    with layers.used(model, module, layer):
        return in_batches(
            lambda x, y, _: layers.feature_maps(method.attribute(x, target=y), layer),
            model, images, targets, batch_size,
        )  # fmt: skip


def probability_gradient(
    model: nn.Module, images: Tensor, targets: Tensor, *, seed: int = 0, batch_size: int | None = None
) -> Tensor:
    """Gradients of the target's softmax probability by the input, (n, c, h, w); they vanish at confident outputs.

    Woerl et al. 2023, Eq. 7-8, which give it as the reason to use logits.
    """
    return _gradient(model, lambda x: model(x).softmax(1), images, targets, batch_size)


def _gradient(model, outputs, images, targets, batch_size) -> Tensor:
    saliency = Saliency(outputs)
    return in_batches(
        lambda x, y, _: saliency.attribute(x.requires_grad_(), target=y, abs=False), model, images, targets, batch_size
    )


def gradient_x_input(
    model: nn.Module, images: Tensor, targets: Tensor, *, seed: int = 0, batch_size: int | None = None
) -> Tensor:
    """Input times gradient, (n, c, h, w), in logits; signed. The input is normalised: zero is the mean colour.

    Shrikumar et al. 2017, who found that DeepLIFT improves on it; tested by Adebayo et al. 2018.
    """
    method = InputXGradient(lambda x: model(x))
    return in_batches(
        lambda x, y, _: method.attribute(x.requires_grad_(), target=y), model, images, targets, batch_size
    )
