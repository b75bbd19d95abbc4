"""NoiseGrad and FusionGrad: a method's maps averaged over networks whose weights are shaken (Bykov et al. 2022)."""

from saliency_lib.noisegrad.level import SigmaChoice, accuracy_drop, choose_sigma
from saliency_lib.noisegrad.weights import perturbed
from saliency_lib.noisegrad.wrappers import fusiongrad, noisegrad, variants

__all__ = ["SigmaChoice", "accuracy_drop", "choose_sigma", "fusiongrad", "noisegrad", "perturbed", "variants"]
