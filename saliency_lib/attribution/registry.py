"""The methods by name, with source and cost."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from saliency_lib.attribution.cam import gradcam
from saliency_lib.attribution.deeplift import deeplift, deeplift_shap
from saliency_lib.attribution.gradients import gradient_x_input, input_gradient, probability_gradient
from saliency_lib.attribution.guided import guided_backprop, guided_gradcam
from saliency_lib.attribution.integrated import gradient_shap, integrated_gradients
from saliency_lib.attribution.lime_shap import kernel_shap, lime
from saliency_lib.attribution.masking import occlusion, rise
from saliency_lib.attribution.smoothing import smoothgrad, smoothgrad_ig, vargrad


@dataclass(frozen=True)
class Method:
    """A registry entry: the function, where it comes from, and what it costs.

    Attributes
    ----------
    forwards, backwards : int
        Passes per image with default options.
    stochastic : bool
        Whether the map depends on ``seed``.
    signed : bool
        Whether maps have both signs; non-negative maps inflate the SNR.
    needs_modules : bool
        Whether ReLUs (and, for DeepLIFT, all non-linearities) must be modules; the method raises where they are not.
    """

    function: Callable[..., Tensor]
    citation: str
    forwards: int
    backwards: int
    stochastic: bool = False
    signed: bool = True
    needs_modules: bool = False


METHODS: dict[str, Method] = {
    "input_gradient": Method(input_gradient, "Simonyan et al. 2014; Woerl et al. 2023, Eq. 6", 1, 1),
    "probability_gradient": Method(probability_gradient, "Woerl et al. 2023, Eq. 7-8", 1, 1),
    "gradient_x_input": Method(gradient_x_input, "Shrikumar et al. 2017; Adebayo et al. 2018", 1, 1),
    "integrated_gradients": Method(integrated_gradients, "Sundararajan et al. 2017", 50, 50),
    "smoothgrad": Method(smoothgrad, "Smilkov et al. 2017", 25, 25, stochastic=True),
    "smoothgrad_ig": Method(smoothgrad_ig, "Woerl et al. 2023, 4.3", 200, 200, stochastic=True),
    "vargrad": Method(vargrad, "Adebayo et al. 2018", 25, 25, stochastic=True, signed=False),
    "deeplift": Method(deeplift, "Shrikumar et al. 2017", 1, 1, needs_modules=True),
    "gradient_shap": Method(gradient_shap, "Lundberg and Lee 2017", 25, 25, stochastic=True),
    "deeplift_shap": Method(deeplift_shap, "Lundberg and Lee 2017", 10, 10, stochastic=True, needs_modules=True),
    "kernel_shap": Method(kernel_shap, "Lundberg and Lee 2017", 1000, 0, stochastic=True),
    "lime": Method(lime, "Ribeiro et al. 2016", 1000, 0, stochastic=True),
    "gradcam": Method(gradcam, "Selvaraju et al. 2019", 1, 1),
    "guided_backprop": Method(guided_backprop, "Springenberg et al. 2015", 1, 1, needs_modules=True),
    "guided_gradcam": Method(guided_gradcam, "Selvaraju et al. 2019", 2, 2, needs_modules=True),
    "occlusion": Method(occlusion, "Zeiler and Fergus 2014", 50, 0),
    "rise": Method(rise, "Petsiuk et al. 2018", 1000, 0, stochastic=True, signed=False),
}


def resolve(method: str | Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function of a method's name, or the function itself; ValueError for an unknown name or no function."""
    if callable(method):
        return method
    if not isinstance(method, str):
        raise ValueError(
            f"a method is a name or a function, not {type(method).__name__}; METHODS[name].function is one"
        )
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; one of {sorted(METHODS)}")
    return METHODS[method].function


def attribute(
    method: str | Callable[..., Tensor],
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    seed: int = 0,
    batch_size: int | None = None,
    layer: str | None = None,
) -> Tensor:
    """Maps, (n, c, h, w) float32, by a method of the registry or any function of the same signature.

    Parameters
    ----------
    layer : str, optional
        For methods that explain a layer, as :func:`gradcam` does; default: the method's own.

    Raises
    ------
    ValueError
        For an unknown method, and all that the methods raise.
    """
    method = resolve(method)
    if layer is not None:
        if "layer" not in inspect.signature(method).parameters:
            raise ValueError(f"{getattr(method, '__name__', method)} explains the input, not a layer; leave layer out")
        method = partial(method, layer=layer)
    return method(model, images, targets, seed=seed, batch_size=batch_size)
