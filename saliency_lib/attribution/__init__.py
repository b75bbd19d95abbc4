"""Saliency methods, all of one signature: ``f(model, images, targets, *, seed=0, batch_size=None) -> maps``."""

from saliency_lib.attribution.cam import gradcam
from saliency_lib.attribution.deeplift import deeplift, deeplift_shap
from saliency_lib.attribution.gradients import gradient_x_input, input_gradient, probability_gradient
from saliency_lib.attribution.guided import guided_backprop, guided_gradcam
from saliency_lib.attribution.integrated import gradient_shap, integrated_gradients
from saliency_lib.attribution.lime_shap import kernel_shap, lime
from saliency_lib.attribution.masking import occlusion, rise
from saliency_lib.attribution.registry import METHODS, Method, attribute
from saliency_lib.attribution.smoothing import smooth, smoothgrad, smoothgrad_ig, vargrad

__all__ = [
    "METHODS",
    "Method",
    "attribute",
    "deeplift",
    "deeplift_shap",
    "gradcam",
    "gradient_shap",
    "gradient_x_input",
    "guided_backprop",
    "guided_gradcam",
    "input_gradient",
    "integrated_gradients",
    "kernel_shap",
    "lime",
    "occlusion",
    "probability_gradient",
    "rise",
    "smooth",
    "smoothgrad",
    "smoothgrad_ig",
    "vargrad",
]
