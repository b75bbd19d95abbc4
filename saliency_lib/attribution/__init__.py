"""Saliency methods, all of one signature: ``f(model, images, targets, *, seed=0, batch_size=None) -> maps``.

``METHODS`` has them by name, in the order of these imports, which is that of the figures' legends.
"""

from saliency_lib.attribution.method import METHODS, Method, attribute, changed, composition, method, resolve
from saliency_lib.attribution.gradients import gradient_x_input, input_gradient, probability_gradient
from saliency_lib.attribution.integrated import integrated_gradients
from saliency_lib.attribution.smoothing import smooth, smoothgrad, smoothgrad_ig, vargrad
from saliency_lib.attribution.deeplift import deeplift
from saliency_lib.attribution.references import deeplift_shap, gradient_shap
from saliency_lib.attribution.lime_shap import kernel_shap, lime
from saliency_lib.attribution.cam import gradcam
from saliency_lib.attribution.guided import guided_backprop, guided_gradcam
from saliency_lib.attribution.masking import occlusion, rise

__all__ = ["METHODS", "Method", "attribute", "changed", "composition", "method", "resolve", "smooth"]
