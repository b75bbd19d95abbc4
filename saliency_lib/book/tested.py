"""The methods that notebooks 07 and 10 put to the test, with options of the same cost for all."""

from functools import partial

from torch import Tensor, nn

from saliency_lib import attribution, noisegrad
from saliency_lib.attribution.method import Function


def methods_of(
    net: nn.Module, black: Tensor, *, ig_steps: int, n_noisy: int, n_fusion: int, sigma: float
) -> dict[str, Function]:
    """Methods by name; without GradCAM for a network that has no convolution.

    Parameters
    ----------
    black : Tensor
        (c, h, w), what a black pixel is to the network: the reference of all methods that have one
        but ``gradient_x_input``, whose reference is the mean colour.
    ig_steps : int
        Of integrated gradients; half of them where their input is noisy.
    n_noisy : int
        Copies of SmoothGrad and VarGrad, and networks of NoiseGrad.
    n_fusion : int
        Copies, and networks, of FusionGrad; copies of integrated gradients.
    sigma : float
        NoiseGrad's noise on weights; FusionGrad takes half of it.
    """
    ig = partial(attribution.integrated_gradients, baseline=black)
    found = {
        "input_gradient": attribution.input_gradient,
        "smoothgrad": partial(attribution.smoothgrad, n_samples=n_noisy),
        "NoiseGrad": noisegrad.noisegrad("input_gradient", sigma, n_noisy),
        "FusionGrad": noisegrad.fusiongrad("input_gradient", sigma / 2, n_models=n_fusion, n_inputs=n_fusion),
        "vargrad": partial(attribution.vargrad, n_samples=n_noisy),
        "gradient_x_pixels": partial(attribution.gradient_x_input, baseline=black),
        "gradient_x_input": attribution.gradient_x_input,
        "integrated_gradients": partial(ig, n_steps=ig_steps),
        "smoothgrad_ig": attribution.smooth(partial(ig, n_steps=max(2, ig_steps // 2)), n_samples=n_fusion),
        "deeplift": partial(attribution.deeplift, baseline=black),
        "guided_backprop": attribution.guided_backprop,
    }
    if any(isinstance(module, nn.Conv2d) for module in net.modules()):
        found["gradcam"] = partial(attribution.gradcam, relu=True)
        found["guided_gradcam"] = attribution.guided_gradcam
    return found
